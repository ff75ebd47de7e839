//! The cast of the demo: who sends what, from where, and what the table will claim of it.
//!
//! Layer 5. Every sender is data: a script ([`Step`]s) and a [`Claim`]. The texts obey RFC 5321 except where a sender is
//! there to break it, and RFC 2606 for the names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::claims::{Arrives, Claim};
use super::dialogue::{Expected, Step};
use super::zone::{DOMAIN, HALF_DOMAIN};
use crate::addr::Family;
use crate::engine::{Anomaly, Outcome, Refusal};

/// The access rule of the demo's gateway, and the host that it lists.
pub(super) const LISTED_RULE: &str = "demo: listed network";
pub(super) const LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

const SIX: &str = "six.sender.test";
/// The IPv4 senders, each at its own loopback address. (IPv6 has one loopback address only: all of them are `::1`.)
const FOURS: [(&str, Ipv4Addr); 7] = [
    ("plain.sender.test", Ipv4Addr::new(127, 0, 0, 10)),
    ("group.sender.test", Ipv4Addr::new(127, 0, 0, 11)),
    ("smuggler.sender.test", Ipv4Addr::new(127, 0, 0, 12)),
    ("listed.sender.test", LISTED),
    ("dual.sender.test", Ipv4Addr::new(127, 0, 0, 13)),
    ("early.sender.test", Ipv4Addr::new(127, 0, 0, 14)),
    ("trust.sender.test", Ipv4Addr::new(127, 0, 0, 15)),
];

/// Over which families a sender can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    Only(Family),
    Dual,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// For the table.
    pub name: &'static str,
    pub did: &'static str,
    pub stack: Stack,
    /// Its own IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Whom it sends to.
    pub domain: &'static str,
    /// Stands in all of its messages and in nobody else's.
    pub token: String,
    pub steps: Vec<Step>,
    pub claim: Claim,
}

impl Sender {
    /// Its own address towards `destination`; `None`: it does not speak that family.
    pub(super) fn own_address(&self, destination: IpAddr) -> Option<IpAddr> {
        let family = Family::of(destination);
        let speaks = matches!(self.stack, Stack::Dual) || self.stack == Stack::Only(family);
        speaks.then_some(match family {
            Family::Ipv4 => IpAddr::V4(self.ipv4),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        })
    }

    fn needs_ipv6(&self) -> bool {
        self.stack != Stack::Only(Family::Ipv4)
    }
}

/// The names and addresses of all senders, for the DNS.
pub(super) fn hosts(ipv6: bool) -> Vec<(&'static str, IpAddr)> {
    let fours = FOURS.map(|(name, ip)| (name, IpAddr::V4(ip)));
    let six = ipv6.then_some((SIX, IpAddr::V6(Ipv6Addr::LOCALHOST)));
    six.into_iter().chain(fours).collect()
}

/// Every sender, in the order of the table; without IPv6 only those that need none. `run` keeps tokens apart.
pub(super) fn cast(ipv6: bool, run: u64) -> Vec<Sender> {
    let all = [
        plain(Family::Ipv6, run),
        plain(Family::Ipv4, run),
        group(run),
        binary(run),
        smuggler(Family::Ipv6, "smuggles with LF.LF", b"\n.\n", run),
        smuggler(Family::Ipv4, "smuggles with CRLF.LF", b"\r\n.\n", run),
        listed(run),
        dual(run),
        web(run),
        early(run),
        trust(run),
    ];
    all.into_iter().filter(|s| ipv6 || !s.needs_ipv6()).collect()
}

/// One message, one command at a time.
pub(super) fn plain(family: Family, run: u64) -> Sender {
    let mut sender = Sender::new("plain", family, 0, "one message with DATA", run);
    let content = sender.content("Gr\u{fc}\u{df}e.\r\n.A line that begins with a dot.\r\n");
    sender.hello();
    sender.ask("MAIL", "MAIL FROM:<ann@sender.test> BODY=8BITMIME\r\n", 250, &["2.1.0"]);
    sender.ask("RCPT", "RCPT TO:<info@demo.test>\r\n", 250, &["2.1.5"]);
    sender.data(&content, 250, &["2.0.0"]);
    sender.quit();
    sender.claim.arrives = Arrives::Exactly(content);
    sender
}

/// PIPELINING: all that may go together goes together.
fn group(run: u64) -> Sender {
    let mut sender = Sender::new("pipelining", Family::Ipv4, 1, "3 recipients, 1 unknown", run);
    let content = sender.content("To three of you.\r\n");
    sender.hello();
    sender.send(
        b"MAIL FROM:<ann@sender.test>\r\nRCPT TO:<info@demo.test>\r\n\
          RCPT TO:<nobody@demo.test>\r\nRCPT TO:<sales@demo.test>\r\nDATA\r\n",
    );
    sender.reply("MAIL", 250, &["2.1.0"]);
    sender.reply("RCPT", 250, &["2.1.5"]);
    sender.reply("RCPT of an unknown recipient", 550, &["5.1.1"]);
    sender.reply("RCPT", 250, &["2.1.5"]);
    sender.reply("DATA", 354, &[]);
    sender.send(&[stuffed(&content), b".\r\nQUIT\r\n".to_vec()].concat());
    sender.reply("the message", 250, &["2.0.0"]);
    sender.reply("QUIT", 221, &[]);
    sender.claim.rcpt_to =
        vec![("info@demo.test", 250), ("nobody@demo.test", 550), ("sales@demo.test", 250)];
    sender.claim.arrives = Arrives::Exactly(content);
    sender
}

/// BDAT: octets that DATA could not carry, among them what would end a message there.
fn binary(run: u64) -> Sender {
    let mut sender = Sender::new("binary", Family::Ipv6, 0, "BDAT, two chunks, all octets", run);
    let mut content = sender.content("\r\n.\r\n\n.\n");
    let first = content.len();
    content.extend(0..=u8::MAX);
    sender.hello();
    let (head, tail) = content.split_at(first);
    sender.send(
        &[
            b"MAIL FROM:<ann@sender.test> BODY=BINARYMIME\r\nRCPT TO:<info@demo.test>\r\n".to_vec(),
            format!("BDAT {}\r\n", head.len()).into_bytes(),
            head.to_vec(),
            format!("BDAT {} LAST\r\n", tail.len()).into_bytes(),
            tail.to_vec(),
        ]
        .concat(),
    );
    sender.reply("MAIL", 250, &["2.1.0"]);
    sender.reply("RCPT", 250, &["2.1.5"]);
    sender.reply("BDAT", 250, &["2.0.0"]);
    sender.reply("BDAT LAST", 250, &["2.0.0"]);
    sender.quit();
    sender.claim.arrives = Arrives::Exactly(content);
    sender
}

/// SMTP smuggling: inside the message stands an end of data that only a lax MTA sees, and behind it a second message.
fn smuggler(family: Family, did: &'static str, end: &[u8], run: u64) -> Sender {
    let mut sender = Sender::new("smuggler", family, 2, did, run);
    let mut content = sender.content("The first.");
    content.extend_from_slice(end);
    content.extend_from_slice(
        b"MAIL FROM:<chief@demo.test>\r\nRCPT TO:<payroll@demo.test>\r\nDATA\r\n",
    );
    content.extend(sender.content("The second, forged.\r\n"));
    sender.hello();
    sender.ask("MAIL", "MAIL FROM:<ann@sender.test>\r\n", 250, &["2.1.0"]);
    sender.ask("RCPT", "RCPT TO:<info@demo.test>\r\n", 250, &["2.1.5"]);
    sender.ask("DATA", "DATA\r\n", 354, &[]);
    sender.send(&[content, b".\r\n".to_vec()].concat());
    sender.reply("the message", 250, &["2.0.0"]);
    sender.quit();
    let pieces = ["The first.", "MAIL FROM:<chief@demo.test>\r\n", "The second, forged."];
    sender.claim.arrives = Arrives::Holding(pieces.map(|p| p.as_bytes().to_vec()).into());
    sender.claim.anomalies = &[Anomaly::BareLf, Anomaly::Smuggling];
    sender
}

/// A host of a network that an access rule refuses.
fn listed(run: u64) -> Sender {
    let mut sender = Sender::new("listed host", Family::Ipv4, 3, "one message with DATA", run);
    sender.hello();
    sender.ask("MAIL", "MAIL FROM:<ann@sender.test>\r\n", 250, &["2.1.0"]);
    sender.ask("RCPT", "RCPT TO:<info@demo.test>\r\n", 550, &["5.7.1", LISTED_RULE]);
    sender.quit();
    sender.claim.rcpt_to = vec![("info@demo.test", 550)];
    sender.claim.rule = Some(LISTED_RULE);
    sender.claim.refusal = Some(Refusal::AccessReject);
    sender
}

/// A dual-stack host that sends to a site whose AAAA record leads nowhere.
fn dual(run: u64) -> Sender {
    let mut sender =
        Sender::new("dual stack", Family::Ipv4, 4, "IPv6 is shut, goes on to IPv4", run);
    sender.stack = Stack::Dual;
    sender.domain = HALF_DOMAIN;
    let content = sender.content("By the other way.\r\n");
    sender.hello();
    sender.ask("MAIL", "MAIL FROM:<ann@sender.test>\r\n", 250, &["2.1.0"]);
    sender.ask("RCPT", "RCPT TO:<info@half.test>\r\n", 250, &["2.1.5"]);
    sender.data(&content, 250, &["2.0.0"]);
    sender.quit();
    sender.claim.in_vain = 1;
    sender.claim.rcpt_to = vec![("info@half.test", 250)];
    sender.claim.arrives = Arrives::Exactly(content);
    sender
}

/// A web client that found an open port.
fn web(run: u64) -> Sender {
    let mut sender = Sender::new("web client", Family::Ipv6, 0, "GET / HTTP/1.1", run);
    sender.send(b"GET / HTTP/1.1\r\nHost: mx.demo.test\r\nAccept: */*\r\n\r\n");
    sender.steps.push(Step::ReplyPastGreeting(Expected { to: "GET", code: 554, says: &["5.5.1"] }));
    sender.steps.push(Step::Closed);
    sender.claim.helo = None;
    sender.claim.rcpt_to = Vec::new();
    sender.claim.outcome = Outcome::Protocol;
    sender.claim.anomalies = &[Anomaly::JunkHttp];
    sender.claim.refusal = Some(Refusal::Junk);
    sender
}

/// A client that cannot wait for the greeting, as much bulk-sending malware.
fn early(run: u64) -> Sender {
    let mut sender = Sender::new("early talker", Family::Ipv4, 5, "EHLO before the greeting", run);
    let hello = sender.ehlo();
    sender.send(hello.as_bytes());
    sender.reply("connecting", 220, &[]);
    sender.reply("EHLO", 250, &[]);
    sender.ask("MAIL", "MAIL FROM:<ann@sender.test>\r\n", 250, &["2.1.0"]);
    sender.ask("RCPT", "RCPT TO:<info@demo.test>\r\n", 550, &["5.5.1"]);
    sender.quit();
    sender.claim.rcpt_to = vec![("info@demo.test", 550)];
    sender.claim.anomalies = &[Anomaly::Pregreet];
    sender.claim.refusal = Some(Refusal::Pregreet);
    sender
}

/// An outsider who claims to be somebody else.
fn trust(run: u64) -> Sender {
    let mut sender = Sender::new("outsider", Family::Ipv4, 6, "XCLIENT, then sends as itself", run);
    let content = sender.content("As myself, then.\r\n");
    sender.hello();
    let xclient = "XCLIENT NAME=mx.demo.test ADDR=192.0.2.25\r\n";
    sender.ask("XCLIENT", xclient, 550, &["5.7.0"]);
    sender.ask("MAIL", "MAIL FROM:<ann@sender.test>\r\n", 250, &["2.1.0"]);
    sender.ask("RCPT", "RCPT TO:<info@demo.test>\r\n", 250, &["2.1.5"]);
    sender.data(&content, 250, &["2.0.0"]);
    sender.quit();
    sender.claim.arrives = Arrives::Exactly(content);
    sender.claim.anomalies = &[Anomaly::Xclient];
    sender.claim.refusal = Some(Refusal::Xclient);
    sender
}

impl Sender {
    /// A sender whose script is still to be written; `four` is its place in [`FOURS`].
    fn new(name: &'static str, family: Family, four: usize, did: &'static str, run: u64) -> Self {
        let (host, ipv4) = FOURS.get(four).copied().unwrap_or(("plain.sender.test", LISTED));
        let helo = match family {
            Family::Ipv4 => host,
            Family::Ipv6 => SIX,
        };
        let slug = name.replace(' ', "-");
        Self {
            name,
            did,
            stack: Stack::Only(family),
            ipv4,
            domain: DOMAIN,
            token: format!("<{slug}.{family}.{run}@sender.test>"),
            steps: Vec::new(),
            claim: Claim {
                family,
                in_vain: 0,
                helo: Some(helo),
                mail_from: "ann@sender.test",
                rcpt_to: vec![("info@demo.test", 250)],
                arrives: Arrives::Nothing,
                outcome: Outcome::Quit,
                rule: None,
                anomalies: &[],
                refusal: None,
            },
        }
    }

    /// A message with our token, and `body`.
    fn content(&self, body: &str) -> Vec<u8> {
        let token = &self.token;
        format!(
            "From: Ann <ann@sender.test>\r\nTo: <info@demo.test>\r\nSubject: demo\r\n\
             Message-ID: {token}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn ehlo(&self) -> String {
        format!("EHLO {}\r\n", self.claim.helo.unwrap_or(SIX))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.steps.push(Step::Send(bytes.to_vec()));
    }

    fn reply(&mut self, to: &'static str, code: u16, says: &'static [&'static str]) {
        self.steps.push(Step::Reply(Expected { to, code, says }));
    }

    fn ask(&mut self, to: &'static str, command: &str, code: u16, says: &'static [&'static str]) {
        self.send(command.as_bytes());
        self.reply(to, code, says);
    }

    /// The greeting, and an EHLO that must offer what some script of the cast uses.
    fn hello(&mut self) {
        self.reply("connecting", 220, &[]);
        let hello = self.ehlo();
        self.ask(
            "EHLO",
            &hello,
            250,
            &["PIPELINING", "8BITMIME", "CHUNKING", "BINARYMIME", "ENHANCEDSTATUSCODES"],
        );
    }

    fn data(&mut self, content: &[u8], code: u16, says: &'static [&'static str]) {
        self.ask("DATA", "DATA\r\n", 354, &[]);
        self.send(&[stuffed(content), b".\r\n".to_vec()].concat());
        self.reply("the message", code, says);
    }

    fn quit(&mut self) {
        self.ask("QUIT", "QUIT\r\n", 221, &[]);
        self.steps.push(Step::Closed);
    }
}

/// `content`, whose lines all end in CRLF, with a dot before each line that begins with one (RFC 5321 §4.5.2).
fn stuffed(content: &[u8]) -> Vec<u8> {
    let lines = content.split_inclusive(|&b| b == b'\n');
    let stuffed = lines.flat_map(|line| {
        let dot: &[u8] = if line.starts_with(b".") { b"." } else { b"" };
        [dot, line].concat()
    });
    stuffed.collect()
}
