//! Paths as attackers write them: every way around a rule on a domain that is known, in combination, and bytes changed at
//! random. The lab tests a real Postfix with them.

#![allow(dead_code, reason = "each of its users needs a part of it")]

use proptest::prelude::*;
use proptest::sample::select;

/// The domain that a rule protects.
pub(crate) const PROTECTED: &str = "protected.example";
/// A domain of the same site that is open.
pub(crate) const OPEN: &str = "open.example";
/// A domain that the mail server of the lab delivers to its own users.
pub(crate) const LOCAL: &str = "local.example";

/// The argument of a RCPT.
pub(crate) fn forward_argument() -> impl Strategy<Value = Vec<u8>> {
    argument(vec![
        "TO:", "TO:", "TO:", "TO:", "to:", "TO: ", "TO:  ", "TO:\t", "TO :", " TO:", "TO",
    ])
}

/// The argument of a MAIL.
pub(crate) fn reverse_argument() -> impl Strategy<Value = Vec<u8>> {
    argument(vec!["FROM:", "FROM:", "FROM:", "from:", "FROM: ", "FROM:\t", "FROM :", "FROM"])
}

fn argument(keywords: Vec<&'static str>) -> impl Strategy<Value = Vec<u8>> {
    let parts = (select(keywords), path(), parameters());
    let text =
        parts.prop_map(|(keyword, path, rest)| format!("{keyword}{path}{rest}").into_bytes());
    let changes = proptest::collection::vec((any::<proptest::sample::Index>(), change()), 0..3);
    (text, prop_oneof![3 => Just(Vec::new()).boxed(), 2 => changes.boxed()]).prop_map(
        |(mut text, changes)| {
            for (at, change) in changes {
                // Behind the keyword, where it matters.
                let at = 3 + at.index(text.len().saturating_sub(3).max(1));
                change.apply(&mut text, at);
            }
            text
        },
    )
}

#[derive(Clone, Debug)]
enum Change {
    Insert(&'static [u8]),
    Remove,
}

impl Change {
    fn apply(self, text: &mut Vec<u8>, at: usize) {
        let at = at.min(text.len());
        match self {
            Self::Insert(bytes) => drop(text.splice(at..at, bytes.iter().copied())),
            Self::Remove if at < text.len() => drop(text.remove(at)),
            Self::Remove => {}
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let bytes: Vec<&'static [u8]> = vec![
        b"\0",
        b"\x01",
        b"\t",
        b"\x0b",
        b"\x0c",
        b"\r",
        b"\x1b",
        b"\x7f",
        b"\x80",
        b"\xa0",
        b"\xef\xbb\xbf",
        b"\xc3\xa9",
        b" ",
        b"\"",
        b"\\",
        b"(",
        b")",
        b"()",
        b"(x)",
        b"<",
        b">",
        b",",
        b";",
        b":",
        b"@",
        b"%",
        b"!",
        b".",
        b"[",
        b"]",
        b"=",
        b"+",
    ];
    prop_oneof![5 => select(bytes).prop_map(Change::Insert), 1 => Just(Change::Remove)]
}

fn domain() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => Just(PROTECTED),
        3 => Just(OPEN),
        3 => Just(LOCAL),
        1 => Just("PROTECTED.Example"),
        1 => Just("protected.example."),
        1 => Just("protected"),
        1 => Just("protected .example"),
        1 => Just("protected(x).example"),
        1 => Just("\u{ff50}rotected.example"),
        1 => Just("protected\u{3002}example"),
        1 => Just("[127.0.0.1]"),
        1 => Just("[IPv6:::1]"),
        1 => Just("127.0.0.1"),
        1 => Just(""),
    ]
    .prop_map(str::to_owned)
}

fn local_part() -> impl Strategy<Value = String> {
    let inner = (select(vec!["victim", "postmaster", "abuse", "v.w", "v+w"]), domain());
    prop_oneof![
        4 => Just("victim".to_owned()),
        1 => select(vec!["postmaster", "Abuse", "POSTMASTER", "v.w", "v+w", "x..y", ".x", ""]).prop_map(str::to_owned),
        1 => Just("v".repeat(70)),
        4 => (select(vec!["N%D", "D!N", "\"N@D\"", "\"N%D\"", "\"D!N\"", "N@D", "\"N\\@D\"", "N%D%D", "D!D!N"]), inner)
            .prop_map(|(form, (name, domain))| form.replace('N', name).replace('D', &domain)),
        2 => select(vec![
            "\"victim\"", "\"vic tim\"", "\"vic\\tim\"", "\"\"", "\"victim\"x", "vic\\tim", "vic tim", "vic(x)tim", "(x)victim",
            "\"vic\"tim", "\"victim",
        ])
        .prop_map(str::to_owned),
    ]
}

fn mailbox() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => (local_part(), domain()).prop_map(|(local, domain)| format!("{local}@{domain}")),
        2 => local_part(),
        1 => domain().prop_map(|domain| format!("@{domain}")),
    ]
}

/// Unusual, but most of them mailboxes, so that not everything is rejected.
fn plausible() -> impl Strategy<Value = String> {
    let locals = vec![
        "v.w",
        "v+w",
        "v-w",
        "-v",
        "o'brien",
        "=?x?=",
        "{v}|~`",
        "\"vic tim\"",
        "\"a\\\"b\"",
        "\"a<b>\"",
        "\"x,y:z;\"",
        "\"(c)\"",
        "\"a\\\\b\"",
        "\"vic\\ tim\"",
        "\".x\"",
        "\"x..y\"",
        "\" x \"",
        "\"victim\"",
        "\u{e9}",
        "\"\u{e9} x\"",
        "postmaster",
        "v%w",
        "v!w",
        "\"v@w\"",
        "V.W",
        "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv",
    ];
    let domains = vec![
        OPEN,
        OPEN,
        OPEN,
        LOCAL,
        "Other.Example",
        "a-b.1c.example",
        "xn--bcher-kva.example",
        "b\u{fc}cher.example",
        "stra\u{df}e.example",
        "other",
        PROTECTED,
    ];
    let forms = vec!["<L@D>", "<L@D>", "<L@D>", "L@D", "<@r.example:L@D>"];
    (select(forms), select(locals), select(domains)).prop_map(|(form, local, domain)| {
        form.replace('L', "\u{1}").replace('D', domain).replace('\u{1}', local)
    })
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![2 => odd(), 1 => plausible()]
}

fn odd() -> impl Strategy<Value = String> {
    let forms = vec![
        "<M>",
        "<M>",
        "<M>",
        "<M>",
        "<M>",
        "<M>",
        "M",
        "M",
        "M>",
        "<M",
        "<<M>>",
        "<<M>",
        "<M>>",
        "< M>",
        "<M >",
        "<\tM>",
        "x<M>",
        "x <M>",
        "<M>x",
        "<M> x",
        "\"x\" <M>",
        "\"x\"<M>",
        "(x)<M>",
        "<M>(x)",
        "<(x)M>",
        "<M(x)>",
        "<M,N>",
        "<M>,<N>",
        "<N><M>",
        "<N>M",
        "M<N>",
        "g:M;",
        "<g:M;>",
        "g:M,N;",
        "<@r.example:M>",
        "<@r.example,@s.example:M>",
        "@r.example:M",
        "<@protected.example:M>",
        "<@r.example M>",
        "<@[127.0.0.1]:M>",
        "<:M>",
        "<M:N>",
        "<>M",
        "<><M>",
        "<\"M\">",
        "\"<M>\"",
        "\"<\"M\">\"",
        "postmaster@<M>",
        "<postmaster@M>",
        "<postmaster>M",
        "postmaster@open.example <M>",
        "<postmaster@open.example>,<M>",
        "<M;N>",
        "<M\\>",
        "\\<M>",
        "<M>\\",
        "M N",
        "",
    ];
    (select(forms), mailbox(), mailbox()).prop_map(|(form, one, two)| {
        form.replace('N', "\u{1}").replace('M', &one).replace('\u{1}', &two)
    })
}

fn parameters() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => Just(""),
        1 => select(vec![
            " ", "  ", " NOTIFY=NEVER", "  NOTIFY=NEVER ", " <victim@protected.example>", " X=<victim@protected.example>",
            " ORCPT=rfc822;victim@protected.example", " SMTPUTF8", " =", "\t", " TO:<victim@protected.example>", ">", ",",
        ]),
    ]
    .prop_map(str::to_owned)
}

/// The forms of which each was once a way around a rule, with the victim in it.
pub(crate) const KNOWN: [&[u8]; 46] = [
    b"TO:<victim@protected.example",
    b"TO:victim@protected.example>",
    b"TO:< victim@protected.example>",
    b"TO:<victim@protected.example >",
    b"TO:<victim @protected.example>",
    b"TO:<victim@ protected.example>",
    b"TO:<victim@protected .example>",
    b"TO:<victim@protected.example\t>",
    b"TO:<victim(x)@protected.example>",
    b"TO:<victim@(x)protected.example>",
    b"TO:<victim@protected.example(x)>",
    b"TO:(x)<victim@protected.example>",
    b"TO:<victim@protected.example>(x)",
    b"TO:x<victim@protected.example>",
    b"TO:x <victim@protected.example>",
    b"TO:\"x\" <victim@protected.example>",
    b"TO:<victim@protected.example>x",
    b"TO:<<victim@protected.example>>",
    b"TO:<victim@\"protected.example\">",
    b"TO:<\"victim\"@\"protected\".example>",
    b"TO:<vic\\tim@protected.example>",
    b"TO:<victim@protected.example\x0b>",
    b"TO:<\x0bvictim@protected.example>",
    b"TO:\x0b<victim@protected.example>",
    b"TO:<victim@protected.example>\0",
    b"TO:<victim@protected.example\0>",
    b"TO:<victim@protected.example>\0@open.example>",
    b"TO:\xef\xbb\xbf<victim@protected.example>",
    b"TO:<victim@protected.example\x7f>",
    b"TO:<victim@protected.\rexample>",
    b"TO:<g:victim@protected.example;>",
    b"TO:g:victim@protected.example;",
    b"TO:<victim%protected.example>",
    b"TO:<protected.example!victim>",
    b"TO:<victim%protected.example@local.example>",
    b"TO:<protected.example!victim@local.example>",
    b"TO:<\"victim@protected.example\"@local.example>",
    b"TO:<\"victim%protected.example\"@local.example>",
    b"TO:<victim@protected.example@local.example>",
    b"TO:<@open.example:victim@protected.example>",
    b"TO:@open.example:victim@protected.example",
    b"TO:postmaster@<victim%protected.example>",
    b"TO:<postmaster@open.example>,<victim@protected.example>",
    b"TO:<postmaster>victim@protected.example",
    b"TO:<victim@protected.example.>",
    b"TO:victim@protected.example@",
];
