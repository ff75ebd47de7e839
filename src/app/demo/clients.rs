//! The demo's clients: their addresses, their steps, and the expected results.
//!
//! Layer 5. Every client is data: [`DemoStep`]s and an [`Expectation`]. The dialogues follow RFC 5321 except where a client
//! exists to break it; the names follow RFC 2606.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::dialogue::{DemoStep, Expected};
use super::expectation::{Delivered, Expectation};
use super::zone::{DOMAIN, HALF_DOMAIN};
use crate::addr::Family;

/// The access rule of the demo's gateway, and the host that it rejects.
pub(super) const LISTED_RULE: &str = "demo: listed network";
pub(super) const LISTED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);

const SIX: &str = "six.sender.test";
/// The IPv4 clients, each at its own loopback address. IPv6 has only one loopback address, `::1`.
const FOURS: [(&str, Ipv4Addr); 7] = [
    ("plain.sender.test", Ipv4Addr::new(127, 0, 0, 10)),
    ("group.sender.test", Ipv4Addr::new(127, 0, 0, 11)),
    ("smuggler.sender.test", Ipv4Addr::new(127, 0, 0, 12)),
    ("listed.sender.test", LISTED),
    ("dual.sender.test", Ipv4Addr::new(127, 0, 0, 13)),
    ("early.sender.test", Ipv4Addr::new(127, 0, 0, 14)),
    ("trust.sender.test", Ipv4Addr::new(127, 0, 0, 15)),
];

/// The families that a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    Only(Family),
    Dual,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DemoClient {
    /// Columns CLIENT and ACTION.
    pub name: &'static str,
    pub action: &'static str,
    pub stack: Stack,
    pub ipv4: Ipv4Addr,
    /// The recipients' domain.
    pub domain: &'static str,
    /// Occurs in all messages of this client and in no others.
    pub token: String,
    pub steps: Vec<DemoStep>,
    pub expected: Expectation,
    helo: &'static str,
}

impl DemoClient {
    /// Its own address towards `destination`; `None` if it does not use that family.
    pub(super) fn local_address(&self, destination: IpAddr) -> Option<IpAddr> {
        let family = Family::of(destination);
        let has_family = matches!(self.stack, Stack::Dual) || self.stack == Stack::Only(family);
        has_family.then_some(match family {
            Family::Ipv4 => IpAddr::V4(self.ipv4),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
        })
    }

    fn needs_ipv6(&self) -> bool {
        self.stack != Stack::Only(Family::Ipv4)
    }
}

/// The names and addresses of all clients, for the DNS.
pub(super) fn hosts(ipv6: bool) -> Vec<(&'static str, IpAddr)> {
    let fours = FOURS.map(|(name, ip)| (name, IpAddr::V4(ip)));
    let six = ipv6.then_some((SIX, IpAddr::V6(Ipv6Addr::LOCALHOST)));
    six.into_iter().chain(fours).collect()
}

/// Every client, in the order of the table; without IPv6 only those that do not need it. Tokens of different `run`s differ.
pub(super) fn all(ipv6: bool, run: u64) -> Vec<DemoClient> {
    let all = [
        plain(Family::Ipv6, run),
        plain(Family::Ipv4, run),
        group(run),
        binary(run),
        smuggler(Family::Ipv6, "SMTP smuggling LF.LF in TLS", b"\n.\n", true, run),
        smuggler(Family::Ipv4, "SMTP smuggling with CRLF.LF", b"\r\n.\n", false, run),
        listed(run),
        dual(run),
        web(run),
        early(run),
        trust(run),
    ];
    all.into_iter().filter(|client| ipv6 || !client.needs_ipv6()).collect()
}

/// One message, one command at a time.
pub(super) fn plain(family: Family, run: u64) -> DemoClient {
    let mut client = DemoClient::new("plain", family, 0, "one message inside TLS", run);
    let content = client.content("Gr\u{fc}\u{df}e.\r\n.A line that begins with a dot.\r\n");
    client.hello_with_tls();
    client.command("MAIL", "MAIL FROM:<ann@sender.test> BODY=8BITMIME\r\n", 250, &["2.1.0"]);
    client.command("RCPT", "RCPT TO:<info@demo.test>\r\n", 250, &["2.1.5"]);
    client.data(&content, 250, &["2.0.0"]);
    client.quit();
    client.expected.delivered = Delivered::Exactly(content);
    client
}

/// PIPELINING (RFC 2920) with the largest groups it allows.
fn group(run: u64) -> DemoClient {
    let mut client =
        DemoClient::new("pipelining", Family::Ipv4, 1, "TLS, 3 recipients, 1 unknown", run);
    let content = client.content("To three of you.\r\n");
    client.hello_with_tls();
    client.send(
        b"MAIL FROM:<ann@sender.test>\r\nRCPT TO:<info@demo.test>\r\n\
          RCPT TO:<nobody@demo.test>\r\nRCPT TO:<sales@demo.test>\r\nDATA\r\n",
    );
    client.reply("MAIL", 250, &["2.1.0"]);
    client.reply("RCPT", 250, &["2.1.5"]);
    client.reply("RCPT of an unknown recipient", 550, &["5.1.1"]);
    client.reply("RCPT", 250, &["2.1.5"]);
    client.reply("DATA", 354, &[]);
    client.send(&[stuffed(&content), b".\r\nQUIT\r\n".to_vec()].concat());
    client.reply("the message", 250, &["2.0.0"]);
    client.reply("QUIT", 221, &[]);
    client.expected.rcpt_to = vec!["info@demo.test", "sales@demo.test"];
    client.expected.reason = "550 5.1.1 by the MTA";
    client.expected.delivered = Delivered::Exactly(content);
    client
}

/// BDAT: bytes that DATA cannot carry, among them end-of-data sequences.
fn binary(run: u64) -> DemoClient {
    let mut client = DemoClient::new("binary", Family::Ipv6, 0, "TLS, BDAT with every byte", run);
    let mut content = client.content("\r\n.\r\n\n.\n");
    let first = content.len();
    content.extend(0..=u8::MAX);
    client.hello_with_tls();
    let (head, tail) = content.split_at(first);
    client.send(
        &[
            b"MAIL FROM:<ann@sender.test> BODY=BINARYMIME\r\nRCPT TO:<info@demo.test>\r\n".to_vec(),
            format!("BDAT {}\r\n", head.len()).into_bytes(),
            head.to_vec(),
            format!("BDAT {} LAST\r\n", tail.len()).into_bytes(),
            tail.to_vec(),
        ]
        .concat(),
    );
    client.reply("MAIL", 250, &["2.1.0"]);
    client.reply("RCPT", 250, &["2.1.5"]);
    client.reply("BDAT", 250, &["2.0.0"]);
    client.reply("BDAT LAST", 250, &["2.0.0"]);
    client.quit();
    client.expected.delivered = Delivered::Exactly(content);
    client
}

/// SMTP smuggling: the message contains an end of data that only a lax MTA accepts, followed by a second message.
fn smuggler(
    family: Family,
    action: &'static str,
    end: &[u8],
    inside_tls: bool,
    run: u64,
) -> DemoClient {
    let mut client = DemoClient::new("smuggler", family, 2, action, run);
    let mut content = client.content("The first.");
    content.extend_from_slice(end);
    content.extend_from_slice(
        b"MAIL FROM:<chief@demo.test>\r\nRCPT TO:<payroll@demo.test>\r\nDATA\r\n",
    );
    content.extend(client.content("The second, forged.\r\n"));
    match inside_tls {
        true => client.hello_with_tls(),
        false => client.hello(),
    }
    client.command("MAIL", "MAIL FROM:<ann@sender.test>\r\n", 250, &["2.1.0"]);
    client.command("RCPT", "RCPT TO:<info@demo.test>\r\n", 250, &["2.1.5"]);
    client.command("DATA", "DATA\r\n", 354, &[]);
    client.send(&[content, b".\r\n".to_vec()].concat());
    client.reply("the message", 250, &["2.0.0"]);
    client.quit();
    let parts = ["The first.", "MAIL FROM:<chief@demo.test>\r\n", "The second, forged."];
    client.expected.delivered = Delivered::Containing(parts.map(|p| p.as_bytes().to_vec()).into());
    client.expected.reason = "noted: bare lf, smuggling";
    client
}

/// A host of a network that an access rule rejects.
fn listed(run: u64) -> DemoClient {
    let mut client = DemoClient::new("listed host", Family::Ipv4, 3, "one message with DATA", run);
    client.hello();
    client.command("MAIL", "MAIL FROM:<ann@sender.test>\r\n", 250, &["2.1.0"]);
    client.command("RCPT", "RCPT TO:<info@demo.test>\r\n", 550, &["5.7.1", LISTED_RULE]);
    client.quit();
    client.expected.reply = "550 5.7.1";
    client.expected.reason = LISTED_RULE;
    client
}

/// A dual-stack host that sends to a site without a listener at its AAAA address.
fn dual(run: u64) -> DemoClient {
    let mut client =
        DemoClient::new("dual stack", Family::Ipv4, 4, "IPv6 refused, IPv4 fallback", run);
    client.stack = Stack::Dual;
    client.domain = HALF_DOMAIN;
    let content = client.content("Over IPv4, then.\r\n");
    client.hello_with_tls();
    client.command("MAIL", "MAIL FROM:<ann@sender.test>\r\n", 250, &["2.1.0"]);
    client.command("RCPT", "RCPT TO:<info@half.test>\r\n", 250, &["2.1.5"]);
    client.data(&content, 250, &["2.0.0"]);
    client.quit();
    client.expected.unreachable = 1;
    client.expected.rcpt_to = vec!["info@half.test"];
    client.expected.delivered = Delivered::Exactly(content);
    client
}

/// An HTTP client that found an open port.
fn web(run: u64) -> DemoClient {
    let mut client = DemoClient::new("web client", Family::Ipv6, 0, "GET / HTTP/1.1", run);
    client.send(b"GET / HTTP/1.1\r\nHost: mx.demo.test\r\nAccept: */*\r\n\r\n");
    client.steps.push(DemoStep::ReplyAfterGreeting(Expected {
        to: "GET",
        code: 554,
        contains: &["5.5.1"],
    }));
    client.steps.push(DemoStep::Closed);
    client.expected.reply = "554 5.5.1";
    client.expected.reason = "junk";
    client
}

/// A client that does not wait for the greeting, like much bulk-sending malware.
fn early(run: u64) -> DemoClient {
    let mut client =
        DemoClient::new("early talker", Family::Ipv4, 5, "EHLO before the greeting", run);
    let hello = client.ehlo();
    client.send(hello.as_bytes());
    client.reply("connecting", 220, &[]);
    client.reply("EHLO", 250, &[]);
    client.command("MAIL", "MAIL FROM:<ann@sender.test>\r\n", 250, &["2.1.0"]);
    client.command("RCPT", "RCPT TO:<info@demo.test>\r\n", 550, &["5.5.1"]);
    client.quit();
    client.expected.reply = "550 5.5.1";
    client.expected.reason = "pregreet";
    client
}

/// An untrusted client that forges its address.
fn trust(run: u64) -> DemoClient {
    let mut client =
        DemoClient::new("outsider", Family::Ipv4, 6, "XCLIENT, then sends as itself", run);
    let content = client.content("As myself, then.\r\n");
    client.hello();
    let xclient = "XCLIENT NAME=mx.demo.test ADDR=192.0.2.25\r\n";
    client.command("XCLIENT", xclient, 550, &["5.7.0"]);
    client.command("MAIL", "MAIL FROM:<ann@sender.test>\r\n", 250, &["2.1.0"]);
    client.command("RCPT", "RCPT TO:<info@demo.test>\r\n", 250, &["2.1.5"]);
    client.data(&content, 250, &["2.0.0"]);
    client.quit();
    client.expected.delivered = Delivered::Exactly(content);
    client.expected.reason = "550 5.7.0 xclient";
    client
}

impl DemoClient {
    /// A client without steps; `four` is its index in [`FOURS`].
    fn new(
        name: &'static str,
        family: Family,
        four: usize,
        action: &'static str,
        run: u64,
    ) -> Self {
        let (host, ipv4) = FOURS.get(four).copied().unwrap_or(("plain.sender.test", LISTED));
        let slug = name.replace(' ', "-");
        Self {
            name,
            action,
            stack: Stack::Only(family),
            ipv4,
            domain: DOMAIN,
            token: format!("<{slug}.{family}.{run}@sender.test>"),
            steps: Vec::new(),
            expected: Expectation {
                family,
                unreachable: 0,
                tls: false,
                reply: "250 2.0.0",
                reason: "-",
                mail_from: "ann@sender.test",
                rcpt_to: vec!["info@demo.test"],
                delivered: Delivered::Nothing,
            },
            helo: match family {
                Family::Ipv4 => host,
                Family::Ipv6 => SIX,
            },
        }
    }

    /// A message with the client's token and `body`.
    fn content(&self, body: &str) -> Vec<u8> {
        let token = &self.token;
        format!(
            "From: Ann <ann@sender.test>\r\nTo: <info@demo.test>\r\nSubject: demo\r\n\
             Message-ID: {token}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    fn ehlo(&self) -> String {
        format!("EHLO {}\r\n", self.helo)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.steps.push(DemoStep::Send(bytes.to_vec()));
    }

    fn reply(&mut self, to: &'static str, code: u16, contains: &'static [&'static str]) {
        self.steps.push(DemoStep::Reply(Expected { to, code, contains }));
    }

    fn command(
        &mut self,
        to: &'static str,
        command: &str,
        code: u16,
        contains: &'static [&'static str],
    ) {
        self.send(command.as_bytes());
        self.reply(to, code, contains);
    }

    /// As [`Self::hello`], and STARTTLS as most senders use it.
    fn hello_with_tls(&mut self) {
        self.hello();
        self.steps.push(DemoStep::TlsIfOffered { ehlo: self.ehlo().into_bytes() });
        self.expected.tls = true;
    }

    /// The greeting, and an EHLO reply with every extension that some client uses.
    fn hello(&mut self) {
        self.reply("connecting", 220, &[]);
        let hello = self.ehlo();
        self.command(
            "EHLO",
            &hello,
            250,
            &["PIPELINING", "8BITMIME", "CHUNKING", "BINARYMIME", "ENHANCEDSTATUSCODES"],
        );
    }

    fn data(&mut self, content: &[u8], code: u16, contains: &'static [&'static str]) {
        self.command("DATA", "DATA\r\n", 354, &[]);
        self.send(&[stuffed(content), b".\r\n".to_vec()].concat());
        self.reply("the message", code, contains);
    }

    fn quit(&mut self) {
        self.command("QUIT", "QUIT\r\n", 221, &[]);
        self.steps.push(DemoStep::Closed);
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
