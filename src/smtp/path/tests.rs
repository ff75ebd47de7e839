//! The forms that servers read differently, and those that all read alike.

use proptest::prelude::*;

use super::*;

const LABEL: &str = "abcdefghijabcdefghijabcdefghijabcdefghijabcdefghijabcdefghij123"; // 63

fn parse(kind: PathKind, argument: &str) -> Result<EnvelopeArgument<'_>, PathError> {
    EnvelopeArgument::parse(kind, argument.as_bytes())
}

fn forward(argument: &str) -> Result<EnvelopeArgument<'_>, PathError> {
    parse(PathKind::Forward, argument)
}

/// The canonical command of a RCPT, or why there is none; before it `~` for a rerouting by the domain, `~~` for one by a route.
fn read(argument: &str) -> String {
    match forward(argument) {
        Ok(read) => {
            let mark = match read.rerouting() {
                None => "",
                Some(Rerouting::Domain) => "~",
                Some(Rerouting::Route) => "~~",
            };
            format!("{mark}{}", read.canonical())
        }
        Err(error) => format!("{error:?}"),
    }
}

#[test]
fn mailboxes_are_read_and_spelt_in_one_way() {
    for (argument, expected) in [
        ("TO:<u@a.example>", "RCPT TO:<u@a.example>"),
        ("to: u@a.example", "RCPT TO:<u@a.example>"),
        (
            "To:   <u@a.example>   NOTIFY=NEVER  ORCPT=rfc822;u@a.example",
            "RCPT TO:<u@a.example> NOTIFY=NEVER ORCPT=rfc822;u@a.example",
        ),
        ("TO:u@a.example NOTIFY=NEVER", "RCPT TO:<u@a.example> NOTIFY=NEVER"),
        ("TO:<Postmaster>", "RCPT TO:<Postmaster>"),
        ("TO:postmaster", "RCPT TO:<postmaster>"),
        ("TO:<o'brien+tag.x=y/z@A.example>", "RCPT TO:<o'brien+tag.x=y/z@A.example>"),
        ("TO:<\"a b\\\"<>,;:()\"@a.example>", "RCPT TO:<\"a b\\\"<>,;:()\"@a.example>"),
        ("TO:\"a b\"@a.example X=1", "RCPT TO:<\"a b\"@a.example> X=1"),
        ("TO:<\u{e4}@a.example>", "RCPT TO:<\u{e4}@a.example>"),
        ("TO:<u@b\u{fc}ro.example>", "RCPT TO:<u@b\u{fc}ro.example>"),
        ("TO:<u@B\u{dc}RO.example>", "RCPT TO:<u@B\u{dc}RO.example>"),
        (
            "TO:<u@\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947}.example>",
            "RCPT TO:<u@\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947}.example>",
        ),
        // A server may deliver these elsewhere.
        ("TO:<@r.example,@s.example:u@a.example>", "~~RCPT TO:<u@a.example>"),
        ("TO:<u%b.example@a.example>", "~~RCPT TO:<u%b.example@a.example>"),
        ("TO:<b.example!u@a.example>", "~~RCPT TO:<b.example!u@a.example>"),
        ("TO:<\"u@b.example\"@a.example>", "~~RCPT TO:<\"u@b.example\"@a.example>"),
        ("TO:<\"u\\@b.example\"@a.example>", "~~RCPT TO:<\"u\\@b.example\"@a.example>"),
        ("TO:<u@[192.0.2.1]>", "~RCPT TO:<u@[192.0.2.1]>"),
        ("TO:<u@[ipv6:2001:db8::1]>", "~RCPT TO:<u@[ipv6:2001:db8::1]>"),
        ("TO:<u@mx>", "~RCPT TO:<u@mx>"),
        ("TO:<u@stra\u{df}e.example>", "~RCPT TO:<u@stra\u{df}e.example>"),
    ] {
        assert_eq!(read(argument), expected, "{argument}");
    }
}

#[test]
fn what_servers_read_in_different_ways_is_no_path() {
    let long = format!("TO:<u@{LABEL}a.example>");
    let longer = format!("TO:<u@{LABEL}.{LABEL}.{LABEL}.{LABEL}.example>");
    for argument in [
        "TO:",
        "TO:<>",
        "TO:<u>",
        "TO:<abuse>",
        "TO:<postmaster@>",
        "TO:<@r.example:postmaster>",
        "TO:<u@a.example",
        "TO:u@a.example>",
        "TO:<<u@a.example>>",
        "TO:<u@a.example>x",
        "TO:<u@a.example>,<v@a.example>",
        "TO:x<u@a.example>",
        "TO:\"x\" <u@a.example>",
        "TO:<u@a.example>NOTIFY=NEVER",
        "TO:(x)<u@a.example>",
        "TO:<u(x)@a.example>",
        "TO:<u@a.example(x)>",
        "TO:< u@a.example>",
        "TO:<u @a.example>",
        "TO:<u@ a.example>",
        "TO:<u@a.example >",
        "TO:<g:u@a.example;>",
        "TO:g:u@a.example;",
        "TO:@r.example:u@a.example",
        "TO:<@r.example u@a.example>",
        "TO:<@r.example,s.example:u@a.example>",
        "TO:<@[192.0.2.1]:u@a.example>",
        "TO:<@:u@a.example>",
        "TO:<u@a.example@b.example>",
        "TO:<u@a.example:x>",
        "TO:postmaster@<u%a.example>",
        "TO:<\"u\"x@a.example>",
        "TO:<x\"u\"@a.example>",
        "TO:<\"u\".x@a.example>",
        "TO:<\"u@a.example>",
        "TO:<\"\"@a.example>",
        "TO:<u\\@b@a.example>",
        "TO:<.u@a.example>",
        "TO:<u.@a.example>",
        "TO:<u..v@a.example>",
        "TO:<@a.example>",
        "TO:<u@a.example.>",
        "TO:<u@.a.example>",
        "TO:<u@a..example>",
        "TO:<u@-a.example>",
        "TO:<u@a-.example>",
        "TO:<u@a_b.example>",
        "TO:<u@192.0.2.1>",
        "TO:<u@[192.0.2.01]>",
        "TO:<u@[192.0.2]>",
        "TO:<u@[2001:db8::1]>",
        "TO:<u@[IPv6:fe80::1%eth0]>",
        "TO:<u@[tag:x]>",
        "TO:<u@[192.0.2.1>",
        "TO:<u@[192.0.2.1]x>",
        "TO:<u\u{85}@a.example>",
        "TO:\u{feff}<u@a.example>",
        "TO:<u@\u{feff}a.example>",
        // Other spellings of another name: full width, an ideographic dot, not composed, an ignored character.
        "TO:<u@\u{ff41}.example>",
        "TO:<u@b\u{fc}ro\u{3002}example>",
        "TO:<u@bu\u{308}ro.example>",
        "TO:<u@b\u{fc}\u{ad}ro.example>",
        &long,
        &longer,
    ] {
        assert_eq!(read(argument), "Path", "{argument}");
    }
    for argument in ["", "<u@a.example>", "TO", "TO :<u@a.example>", "FROM:<u@a.example>", "T"] {
        assert_eq!(read(argument), "Keyword", "{argument}");
    }
    for word in ["<v@a.example>", "=x", "X Y=<v@a.example> -Z", "X=\u{7f}", "X_Y=1", "\"X\""] {
        assert_eq!(read(&format!("TO:<u@a.example> {word}")), "Parameter", "{word}");
    }
    assert_eq!(
        EnvelopeArgument::parse(PathKind::Forward, b"TO:<\xff@a.example>"),
        Err(PathError::Path)
    );
}

#[test]
fn a_reverse_path_may_be_null_and_has_no_postmaster() {
    let read = |argument| parse(PathKind::Reverse, argument).map(|read| read.canonical());
    assert_eq!(read("FROM:<> SIZE=3").as_deref(), Ok("MAIL FROM:<> SIZE=3"));
    assert_eq!(read("from:u@a.example").as_deref(), Ok("MAIL FROM:<u@a.example>"));
    for argument in
        ["FROM:<>a@b", "FROM:<><a@b>", "FROM:", "FROM:< >", "FROM:<postmaster>", "FROM:\"\""]
    {
        assert_eq!(read(argument), Err(PathError::Path), "{argument}");
    }
    let rerouting = |argument| parse(PathKind::Reverse, argument).unwrap().rerouting();
    assert_eq!(rerouting("FROM:<>"), None);
    assert_eq!(rerouting("FROM:<u@[192.0.2.1]>"), None, "nothing is delivered to it");
    assert_eq!(rerouting("FROM:<u@mx>"), Some(Rerouting::Domain));
    assert_eq!(rerouting("FROM:<u%b.example@a.example>"), Some(Rerouting::Route));
    assert_eq!(rerouting("FROM:<@b.example:u@mx>"), Some(Rerouting::Route));
}

#[test]
fn local_parts_may_be_long() {
    let path = format!("TO:<{}@a.example>", "x".repeat(500));
    assert!(forward(&path).is_ok());
    let domain = format!("TO:<u@{LABEL}.{LABEL}.{LABEL}.example>");
    assert!(forward(&domain).is_ok());
}

#[test]
fn smtputf8_is_a_parameter_of_its_own() {
    let asks = |argument| parse(PathKind::Reverse, argument).unwrap().asks_for_utf8();
    assert!(asks("FROM:<u@a.example> SIZE=3 smtputf8"));
    assert!(!asks("FROM:<\"x SMTPUTF8 y\"@a.example>"));
    assert!(!asks("FROM:<u@a.example> SMTPUTF8=1"));
}

proptest! {
    /// Whatever is accepted is its own canonical form once it is written in it.
    #[test]
    fn the_canonical_form_is_read_as_itself(
        argument in "(TO:|to: )<?(@r.example:)?[a\"%!@. \\\\<(\u{e4}]{0,6}@?[a.\\-\u{e4}\\[0-9\\]]{0,6}>?( [A=<@ ]{0,4})?"
    ) {
        if let Ok(read) = forward(&argument) {
            let canonical = read.canonical();
            let again = forward(canonical.strip_prefix("RCPT ").unwrap()).unwrap();
            prop_assert_eq!(again.canonical(), canonical.clone());
            prop_assert_eq!(again.mailbox(), read.mailbox());
            prop_assert_eq!(argument.get(read.mailbox_range()), Some(read.mailbox()));
            prop_assert!(again.parameters().eq(read.parameters()));
        }
    }

    #[test]
    fn nothing_panics(argument in proptest::collection::vec(any::<u8>(), 0..60)) {
        for kind in [PathKind::Reverse, PathKind::Forward] {
            let _ = EnvelopeArgument::parse(kind, &argument);
            let keyword = [kind.keyword().as_bytes(), &argument].concat();
            let _ = EnvelopeArgument::parse(kind, &keyword);
        }
        let _ = lenient_range(&argument);
    }
}
