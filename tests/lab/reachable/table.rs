//! The table of sessions and replies.
//!
//! `client`, `sender domain` and the exchanges are those of [`super::world`]. A line without a reply expects 250. The
//! reply is that to RCPT.

/// Rules by name, for the gateways of the test.
pub(crate) const RULES: [(&str, &str); 8] = [
    (
        "names",
        r#"
[[policy]]
name = "ipv6 needs a forward-confirmed name"
when = { family = "ipv6", at = "connect" }
require = ["fcrdns"]

[[policy]]
name = "ipv4 needs a reverse name"
when = { family = "ipv4", at = "connect" }
require = ["reverse_name"]
otherwise = "reject"
"#,
    ),
    (
        "strict names",
        r#"
[[policy]]
name = "confirmed or not at all"
require = ["fcrdns"]
otherwise = "reject"
"#,
    ),
    (
        "return path",
        r#"
[[policy]]
name = "senders can be answered"
require = ["return_path"]
otherwise = "reject"
"#,
    ),
    (
        "same family",
        r#"
[[policy]]
name = "the way back is the way here"
require = [{ fact = "return_path", over = "same-family" }]
"#,
    ),
    (
        "probed",
        r#"
[[policy]]
name = "the sender's server speaks"
require = [{ fact = "return_path", level = "smtp", over = "same-family" }]
otherwise = "reject"
"#,
    ),
    (
        "connected",
        r#"
[[policy]]
name = "the sender's server is there"
require = [{ fact = "return_path", level = "tcp" }]
"#,
    ),
    (
        "recipient",
        r#"
[[policy]]
name = "known recipients only"
when = { recipient = ["example.org"] }
require = ["recipient"]
otherwise = "reject"
exempt = []
"#,
    ),
    (
        "mixed",
        r#"
[[policy]]
name = "friends"
when = { networks = ["203.0.113.3/32", "2001:db8:c::3/128"] }
otherwise = "accept"

[[policy]]
name = "shadow"
when = { family = "ipv6" }
require = ["fcrdns"]
otherwise = "reject"
mode = "shadow"

[[policy]]
name = "unknown passes"
require = ["fcrdns"]
otherwise = "tempfail"
on_unknown = "accept"
url = "https://example.org/why"

[[policy]]
name = "helo is a name"
when = { at = "helo" }
require = ["helo_resolves"]

[[policy]]
name = "not from there"
when = { sender = [".sender.example"], recipient = ["closed.example.org"] }
otherwise = "reject"
"#,
    ),
];

/// `rules | family | client | HELO | sender | recipient | reply`; `-` is the default.
pub(crate) const CASES: &str = "
names | ipv6 | good | - | - | - |
names | ipv6 | missing | - | - | - | 450 4.7.25
names | ipv6 | unconfirmed | - | - | - | 450 4.7.25
names | ipv6 | many | - | - | - |
names | ipv6 | too-many | - | - | - | 450 4.7.25
names | ipv6 | lame | - | - | - | 451 4.7.25
names | ipv6 | broken | - | - | - | 451 4.7.25
names | ipv6 | slow | - | - | - |
names | ipv6 | silent | - | - | - | 451 4.7.25
names | ipv6 | empty | - | - | - | 450 4.7.25
names | ipv6 | alias | - | - | - |
names | ipv6 | missing | - | <> | - | 450 4.7.25
names | ipv6 | good | - | <> | - |
names | ipv6 | missing | - | - | postmaster@elsewhere.example | 450 4.7.25
names | ipv6 | missing | - | - | postmaster@example.org |
names | ipv6 | missing | - | - | Abuse@example.org |
names | ipv4 | good | - | - | - |
names | ipv4 | missing | - | - | - | 550 5.7.25
names | ipv4 | unconfirmed | - | - | - |
names | ipv4 | too-many | - | - | - |
names | ipv4 | lame | - | - | - | 451 4.7.25
names | ipv4 | broken | - | - | - | 451 4.7.25
names | ipv4 | empty | - | - | - | 550 5.7.25
strict names | ipv4 | good | - | - | - |
strict names | ipv4 | missing | - | - | - | 550 5.7.25
strict names | ipv4 | unconfirmed | - | - | - | 550 5.7.25
strict names | ipv4 | many | - | - | - |
strict names | ipv4 | too-many | - | - | - | 550 5.7.25
strict names | ipv4 | alias | - | - | - |
strict names | ipv4 | slow | - | - | - |
strict names | ipv4 | silent | - | - | - | 451 4.7.25
strict names | ipv6 | unconfirmed | - | - | - | 550 5.7.25
strict names | ipv6 | broken | - | - | - | 451 4.7.25
return path | ipv6 | good | - | u@good.sender.example | - |
return path | ipv6 | good | - | u@second.sender.example | - |
return path | ipv6 | good | - | u@implicit.sender.example | - |
return path | ipv6 | good | - | u@null.sender.example | - | 550 5.7.27
return path | ipv6 | good | - | u@nobody.sender.example | - | 550 5.1.8
return path | ipv6 | good | - | u@only4.sender.example | - |
return path | ipv6 | good | - | u@loopback.sender.example | - | 550 5.1.8
return path | ipv6 | good | - | u@mapped.sender.example | - | 550 5.1.8
return path | ipv6 | good | - | u@private.sender.example | - | 550 5.1.8
return path | ipv6 | good | - | u@dangling.sender.example | - | 550 5.1.8
return path | ipv6 | good | - | u@ours.sender.example | - | 550 5.1.8
return path | ipv6 | good | - | u@empty.sender.example | - | 550 5.1.8
return path | ipv6 | good | - | u@lame.sender.example | - | 451 4.4.3
return path | ipv6 | good | - | u@broken.sender.example | - | 451 4.4.3
return path | ipv6 | good | - | u@slow.sender.example | - |
return path | ipv4 | good | - | u@silent.sender.example | - | 451 4.4.3
return path | ipv4 | good | - | u@null.sender.example | - | 550 5.7.27
return path | ipv4 | good | - | u@[203.0.113.1] | - |
return path | ipv4 | good | - | u@[127.0.0.1] | - | 550 5.1.8
return path | ipv4 | good | - | <> | - |
same family | ipv6 | good | - | u@only6.sender.example | - |
same family | ipv6 | good | - | u@only4.sender.example | - | 450 4.1.8
same family | ipv6 | good | - | u@implicit.sender.example | - | 450 4.1.8
same family | ipv4 | good | - | u@only6.sender.example | - | 450 4.1.8
same family | ipv4 | good | - | u@only4.sender.example | - |
probed | ipv6 | good | - | u@good.sender.example | - |
probed | ipv6 | good | - | u@refuses.sender.example | - | 550 5.4.1
probed | ipv6 | good | - | u@drops.sender.example | - | 550 5.4.1
probed | ipv6 | good | - | u@stalls.sender.example | - | 550 5.4.1
probed | ipv6 | good | - | u@turns-away.sender.example | - | 550 5.4.1
probed | ipv4 | good | - | u@good.sender.example | - |
probed | ipv4 | good | - | u@drops.sender.example | - | 550 5.4.1
probed | ipv4 | good | - | u@broken.sender.example | - | 451 4.4.3
connected | ipv6 | good | - | u@stalls.sender.example | - |
connected | ipv6 | good | - | u@turns-away.sender.example | - |
connected | ipv4 | good | - | u@refuses.sender.example | - | 450 4.4.1
connected | ipv4 | good | - | u@drops.sender.example | - | 450 4.4.1
recipient | ipv6 | good | - | - | known@example.org |
recipient | ipv6 | good | - | - | nobody@example.org | 550 5.1.1
recipient | ipv6 | good | - | - | later@example.org | 451 4.4.0
recipient | ipv4 | good | - | <> | nobody@example.org | 550 5.1.1
mixed | ipv6 | good | good.client.example | - | - |
mixed | ipv6 | good | nowhere.client.example | - | - | 450 4.7.1
mixed | ipv6 | good | good.client.example | u@good.sender.example | u@closed.example.org | 550 5.7.1
mixed | ipv6 | missing | good.client.example | - | - | 450 4.7.25
mixed | ipv6 | broken | good.client.example | - | - |
mixed | ipv6 | unconfirmed | nowhere.client.example | - | - |
mixed | ipv4 | unconfirmed | nowhere.client.example | - | - |
mixed | ipv4 | missing | good.client.example | - | - | 450 4.7.25
mixed | ipv4 | good | [203.0.113.1] | - | - |
";

/// The default where a case has `-`.
pub(crate) const HELO: &str = "good.client.example";
pub(crate) const SENDER: &str = "someone@good.sender.example";
pub(crate) const RECIPIENT: &str = "someone@example.org";

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) rules: &'static str,
    pub(crate) family: &'static str,
    pub(crate) client: &'static str,
    pub(crate) helo: &'static str,
    /// Without brackets.
    pub(crate) sender: &'static str,
    pub(crate) recipient: &'static str,
    pub(crate) reply: &'static str,
}

pub(crate) fn cases() -> Vec<Case> {
    let lines = CASES.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let &[rules, family, client, helo, sender, recipient, reply] = cells.as_slice() else {
                panic!("not seven cells: {line}");
            };
            let or = |value, usual| if value == "-" { usual } else { value };
            Case {
                rules,
                family,
                client,
                helo: or(helo, HELO),
                sender: if sender == "<>" { "" } else { or(sender, SENDER) },
                recipient: or(recipient, RECIPIENT),
                reply: if reply.is_empty() { "250" } else { reply },
            }
        })
        .collect()
}
