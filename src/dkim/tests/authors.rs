//! From fields (RFC 5322 §3.4, §4.4).

use super::read;

/// From values, the domains in them, the count of mailboxes, and whether the value is malformed.
const FIELDS: &[(&str, &[&str], usize, bool)] = &[
    ("a@a.example", &["a.example"], 1, false),
    ("A <a@A.Example>", &["a.example"], 1, false),
    ("<a@a.example>", &["a.example"], 1, false),
    ("a@a.example (b@b.example)", &["a.example"], 1, false),
    ("(b@b.example (nested \\) ) <c@c.example>) a@a.example", &["a.example"], 1, false),
    ("\"b@b.example\" <a@a.example>", &["a.example"], 1, false),
    ("\"B \\\" <b@b.example>\" <a@a.example>", &["a.example"], 1, false),
    ("Dr. J. Doe <a@a.example>", &["a.example"], 1, false),
    ("\"a b\"@a.example", &["a.example"], 1, false),
    ("\"b@b.example\"@a.example", &["a.example"], 1, false),
    ("a . b @ a (x) .\r\n example", &["a.example"], 1, false),
    ("<@r.example,@s.example:a@a.example>", &["a.example"], 1, false),
    ("=?utf-8?Q?b=40b.example?= <a@a.example>", &["a.example"], 1, false),
    ("=?utf-8?Q?B,_b@b.example?= <a@a.example>", &["a.example"], 1, false),
    ("=?utf-8?B?YQ==?= =?utf-8?q?b?= <a@a.example>", &["a.example"], 1, false),
    ("\u{e4}\u{f6} <a@b\u{fc}ro.example>", &["xn--bro-hoa.example"], 1, false),
    ("a@a.example., a@A.example", &["a.example"], 2, false),
    (
        "a@a.example, B <b@b.example>,, c@c.example",
        &["a.example", "b.example", "c.example"],
        3,
        false,
    ),
    (
        "G: a@a.example, B <b@b.example>; , c@c.example",
        &["a.example", "b.example", "c.example"],
        3,
        false,
    ),
    ("Undisclosed recipients:;", &[], 0, false),
    ("a@[192.0.2.1]", &[], 1, false),
    ("A <a@ (x) [IPv6:2001:db8::1]>", &[], 1, false),
    ("", &[], 0, false),
    ("a@a.example <A@a.example>", &["a.example"], 1, false),
    ("[List] a <a@a.example>", &["a.example"], 1, false),
    // These do not follow the grammar.
    ("b@b.example <a@a.example>", &["a.example"], 1, true),
    ("<b@b.example> <a@a.example>", &["b.example", "a.example"], 2, true),
    ("Doe, John <a@a.example>", &["a.example"], 1, true),
    ("root", &[], 0, true),
    ("A <root>", &[], 1, true),
    ("A <>", &[], 1, true),
    ("<@a.example>", &["a.example"], 1, true),
    ("a@", &[], 1, true),
    ("a@b@c.example", &["b"], 1, true),
    ("a@-a_.example", &["-a_.example"], 1, false),
    ("a@a..example", &[], 1, true),
    ("a@a\u{0}b", &[], 1, true),
    ("\"A <a@a.example>", &["a.example"], 1, true),
    ("(A <a@a.example>", &["a.example"], 1, true),
    ("A <a@a.example", &["a.example"], 1, true),
    ("=?utf-8?Q?<b@b.example>?= <a@a.example>", &["b.example", "a.example"], 2, true),
    ("a@[192.0.2.1", &[], 1, true),
    ("G: a@a.example", &["a.example"], 1, true),
    ("a@a.example;", &["a.example"], 1, true),
    ("a@a.example b@b.example", &["a.example"], 1, true),
];

#[test]
fn authors_have_their_domains() {
    for (value, domains, mailboxes, is_malformed) in FIELDS {
        let authors = read(format!("From: {value}\r\n\r\n").as_bytes()).authors;
        assert_eq!(authors.fields, 1, "{value}");
        assert_eq!(authors.domains, *domains, "{value}");
        assert_eq!(
            (authors.mailboxes, authors.is_malformed),
            (*mailboxes, *is_malformed),
            "{value}"
        );
    }
}

#[test]
fn every_from_field_counts() {
    for (header, fields, domains) in [
        ("To: a@a.example\r\n", 0, &[][..]),
        ("From: a@a.example\r\nFROM : b@b.example\r\n", 2, &["a.example", "b.example"]),
        ("From: a@a.example\nfrom:\n a@a.example\n", 2, &["a.example"]),
        ("X-From: b@b.example\r\n", 0, &[]),
    ] {
        let authors = read(header.as_bytes()).authors;
        assert_eq!(
            (authors.fields, authors.domains.as_slice()),
            (fields, &domains.iter().map(|d| (*d).to_owned()).collect::<Vec<_>>()[..]),
            "{header}"
        );
    }
}

#[test]
fn domains_are_bounded() {
    let many: Vec<String> = (0..20).map(|n| format!("a@a{n}.example")).collect();
    let authors = read(format!("From: {}\r\n\r\n", many.join(",")).as_bytes()).authors;
    assert_eq!((authors.domains.len(), authors.mailboxes), (16, 20));
    assert!(authors.is_malformed);
}

/// Time that grows with the square of the length would be minutes.
#[test]
fn unclosed_brackets_take_linear_time() {
    for unit in ["(", "\"\\", "(\\(", "a@[", "=?a?q?x ", "<", "@", "\"(", ")("] {
        let authors =
            read(format!("From: {}\r\n\r\n", unit.repeat(200_000 / unit.len())).as_bytes()).authors;
        assert!(authors.is_malformed, "{unit}");
    }
}
