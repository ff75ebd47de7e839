//! Header sections, and which fields of them are hashed (RFC 6376 §3.4.1, §3.4.2, §5.4.2).

use super::signer::{BODY, FIELDS, TAGS, key, signed};
use super::{NOW, read, verify};
use crate::dkim::canonical::write_field;
use crate::dkim::header_section::{HeaderProgress, HeaderSection};
use crate::dkim::{Canonicalization, DkimLimits, DkimOutcome, DkimReason, MessageVerifier};

/// The fields that `header` has, under "simple" and "relaxed", `|` between them.
fn canonical(header: &[u8]) -> [String; 2] {
    let mut section = HeaderSection::new(1_000);
    section.write(header);
    [Canonicalization::Simple, Canonicalization::Relaxed].map(|name| {
        let fields = section.fields().map(|field| {
            let mut out = Vec::new();
            write_field(name, field, &mut |bytes| out.extend_from_slice(bytes));
            String::from_utf8_lossy(&out).into_owned()
        });
        fields.collect::<Vec<_>>().join("|")
    })
}

#[test]
fn fields_are_canonical() {
    for (header, simple, relaxed) in [
        // RFC 6376 §3.4.5.
        ("A: X\r\nB : Y\t\r\n\tZ  \r\n", "A: X|B : Y\t\r\n\tZ  ", "a:X|b:Y Z"),
        ("A:\r\n", "A:", "a:"),
        ("A: \r\n \r\n", "A: \r\n ", "a:"),
        ("A:\r\n\tb\r\n", "A:\r\n\tb", "a:b"),
        ("A: b\r\n  c\r\n\t\r\n d", "A: b\r\n  c\r\n\t\r\n d", "a:b c d"),
        ("A: b c\n d\n", "A: b c\r\n d", "a:b c d"),
        ("A: b\rc\r\n", "A: b\rc", "a:b\rc"),
        ("A: b \r\r\n", "A: b \r", "a:b \r"),
        ("A:b:c\r\n", "A:b:c", "a:b:c"),
        ("A: \u{e4} \0\r\n", "A: \u{e4} \0", "a:\u{e4} \0"),
        // Lines that belong to no field.
        (" x\r\nA: b\r\nc\r\n d\r\nE: f\r\n", "A: b|E: f", "a:b|e:f"),
        ("From a@b Thu Jan  1 00:00:00\r\nA: b\r\n: c\r\nd e: f\r\n", "A: b", "a:b"),
    ] {
        assert_eq!(canonical(header.as_bytes()), [simple, relaxed], "{header:?}");
    }
}

#[test]
fn the_first_empty_line_ends_the_header_section() {
    for (message, length) in [
        ("A: b\r\n\r\nC: d\r\n", Some(8)),
        ("A: b\n\nC: d\r\n", Some(6)),
        ("A: b\n\r\nC: d\r\n", Some(7)),
        ("\r\nA: b\r\n", Some(2)),
        ("\n", Some(1)),
        ("A: b\r\n", None),
        ("A: b\r\n \r\nC: d\r\n\r", None),
        ("A: b\r\n\r\r\n", None),
        ("", None),
    ] {
        let expected = length.map_or(HeaderProgress::Incomplete, HeaderProgress::Complete);
        assert_eq!(HeaderSection::new(100).write(message.as_bytes()), expected, "{message:?}");
        let mut section = HeaderSection::new(100);
        let end =
            message.bytes().position(|octet| section.write(&[octet]) != HeaderProgress::Incomplete);
        assert_eq!(end.map(|at| at + 1), length, "{message:?}, octet by octet");
    }
}

#[test]
fn a_header_section_beyond_the_limit_leaves_all_unknown() {
    let limits = DkimLimits { header_section: 10, ..DkimLimits::default() };
    for (message, is_known) in
        [("A: 45678\r\n", true), ("A: 456789\r\n", false), ("A: 4\r\n\r\n9999999", true)]
    {
        for size in 1..message.len() {
            let mut verifier = MessageVerifier::new(limits);
            message.as_bytes().chunks(size).for_each(|chunk| verifier.write(chunk));
            assert_eq!(verifier.finish().is_ok(), is_known, "{message:?} by {size}");
        }
    }
}

/// What each change of the header does to a signature of From, From, To and To, under "relaxed".
#[test]
fn signed_fields_are_taken_from_the_bottom() {
    let tags = TAGS.replace("h=from:to", "h=from:to:x:to:from:\r\n\tto");
    let fields = "To: 1\r\nFrom: a@a.example\r\nTo: 2\r\nY: 3\r\n";
    let message = String::from_utf8(signed(&tags, fields, BODY)).unwrap();
    for (from, to, passes) in [
        ("", "", true),
        ("Y: 3", "Y: 4", true),
        ("Y: 3\r\n", "Y: 3\r\nY: 4\r\n", true),
        ("To: 1", "TO :\r\n  1 ", true),
        ("To: 1", "To: 2", false),
        ("To: 1\r\n", "", false),
        // Fields that were signed as missing.
        ("Y: 3\r\n", "X: 3\r\n", false),
        ("Y: 3\r\n", "From: a@a.example\r\n", false),
        ("DKIM", "To: 0\r\nDKIM", false),
    ] {
        let result = verify(message.replacen(from, to, 1).as_bytes(), &[&key("")]);
        let outcome = if passes { DkimOutcome::Pass } else { DkimOutcome::Fail };
        assert_eq!(result.outcome, outcome, "{from:?} to {to:?}");
    }
}

#[test]
fn a_from_field_that_is_not_covered_is_reported() {
    let message = String::from_utf8(signed(TAGS, FIELDS, BODY)).unwrap();
    let forged = format!("From: ceo@bank.example\r\n{message}");
    for (message, covers, domains) in
        [(&message, true, &["a.example"][..]), (&forged, false, &["bank.example", "a.example"])]
    {
        let read = read(message.as_bytes());
        assert_eq!(read.signatures[0].covers_every_from(), covers);
        assert_eq!(
            read.signatures[0].verify(&[key("").into_bytes()], NOW).outcome,
            DkimOutcome::Pass
        );
        assert_eq!(read.authors.domains, domains);
    }
}

/// The value of `b=` is not part of what it signs, wherever it stands.
#[test]
fn b_may_stand_anywhere() {
    let message = String::from_utf8(signed(&format!("{TAGS}; bb=x; z=b"), FIELDS, BODY)).unwrap();
    let (head, rest) = message.split_once("; b=").unwrap();
    let (signature, rest) = rest.split_once("\r\n").unwrap();
    let (start, end) = signature.split_at(40);
    for (written, passes) in [
        (format!("{head}; b={signature}\r\n{rest}"), true),
        (format!("{head}; b=\r\n {start} \r\n\t{end} \r\n{rest}"), true),
        (format!("{head}; b={signature};\r\n{rest}"), false),
        (format!("{head} ; b={signature}\r\n{rest}"), false),
    ] {
        let passed = verify(written.as_bytes(), &[&key("")]).outcome == DkimOutcome::Pass;
        assert_eq!(passed, passes, "{written}");
    }
}

#[test]
fn octets_beyond_l_are_counted() {
    let message = signed(&format!("{TAGS}; l=6"), FIELDS, "Hello.");
    let longer = [message.as_slice(), b" Bye.\r\n"].concat();
    for (message, unsigned) in [(&message, 2), (&longer, 7)] {
        let read = read(message);
        assert_eq!(
            read.signatures[0].verify(&[key("").into_bytes()], NOW).outcome,
            DkimOutcome::Pass
        );
        assert_eq!(read.signatures[0].unsigned_octets(), unsigned);
    }
}

#[test]
fn signatures_are_limited_and_the_rest_counted() {
    let signature = "DKIM-Signature: v=1\r\n".repeat(13);
    let read = read(format!("{signature}From: a@a.example\r\n\r\n").as_bytes());
    assert_eq!((read.signatures.len(), read.signatures_left_out), (10, 3));
    assert_eq!(read.signatures[9].signature().unwrap_err().reason, DkimReason::MissingTag);
}

/// Lookups may begin while the body comes.
#[test]
fn the_header_is_known_before_the_body() {
    let message = signed(TAGS, FIELDS, BODY);
    let body = message.len() - BODY.len();
    let mut verifier = MessageVerifier::new(DkimLimits::default());
    verifier.write(&message[..body - 1]);
    assert_eq!((verifier.authors(), verifier.signatures().count()), (None, 0));
    verifier.write(&message[body - 1..body]);
    assert_eq!(verifier.authors().unwrap().domains, ["a.example"]);
    let names: Vec<_> = verifier.signatures().map(|one| one.key_name()).collect();
    assert_eq!(names, ["sel._domainkey.a.example"]);
}
