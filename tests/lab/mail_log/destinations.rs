//! Destinations of every kind. Each has a domain `NAME.dest.example` with one exchange host, and addresses of its own.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use gatepost::outbound::OutboundOutcome;

use super::server::{Act, Script, Seen, Stage, serve};
use crate::support::{Lab, port};

/// What is at an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum At {
    Server(Script),
    /// SYNs are dropped.
    Dropping,
    /// SYNs are answered by RST.
    Refusing,
    /// SYNs are answered by ICMP.
    Unreachable,
}

pub(crate) struct Destination {
    pub(crate) name: &'static str,
    ipv6: &'static [At],
    ipv4: &'static [At],
    /// Local parts of the message's recipients.
    pub(crate) recipients: &'static [&'static str],
    /// `smtp_tls_policy_maps` has `encrypt` for it.
    pub(crate) needs_tls: bool,
}

const HEALTHY: At = At::Server(Script { act: None, has_broken_tls: false, otherwise: Rejected });

const fn at(stage: Stage, act: Act, otherwise: OutboundOutcome) -> At {
    At::Server(Script { act: Some((stage, act)), has_broken_tls: false, otherwise })
}

const fn tls(act: Option<(Stage, Act)>, otherwise: OutboundOutcome) -> At {
    At::Server(Script { act, has_broken_tls: true, otherwise })
}

const fn to(name: &'static str, ipv6: &'static [At], ipv4: &'static [At]) -> Destination {
    Destination { name, ipv6, ipv4, recipients: &["bob"], needs_tls: false }
}

/// IPv6 fails in one way, IPv4 is healthy.
const fn but(name: &'static str, ipv6: &'static [At]) -> Destination {
    to(name, ipv6, &[HEALTHY])
}

use OutboundOutcome::{
    Deferred, GreetingRefused, Lost, PolicyRefused, Rejected, Stalled, TlsFailed,
};

pub(crate) const DESTINATIONS: &[Destination] = &[
    but("healthy", &[HEALTHY]),
    but("dropping", &[At::Dropping]),
    but("refusing", &[At::Refusing]),
    but("unreachable", &[At::Unreachable]),
    but("three", &[At::Dropping, At::Refusing, at(Stage::Greeting, Act::Stall, Stalled)]),
    to("only-ipv6", &[HEALTHY], &[]),
    to("only-ipv6-dropping", &[At::Dropping], &[]),
    to("only-ipv4-refusing", &[], &[At::Refusing]),
    but("stalls-greeting", &[at(Stage::Greeting, Act::Stall, Stalled)]),
    but("stalls-ehlo", &[at(Stage::Ehlo, Act::Stall, Stalled)]),
    but("stalls-mail", &[at(Stage::Mail, Act::Stall, Stalled)]),
    but("stalls-rcpt", &[at(Stage::Rcpt, Act::Stall, Stalled)]),
    but("stalls-data", &[at(Stage::Data, Act::Stall, Stalled)]),
    but("stalls-end", &[at(Stage::EndOfData, Act::Stall, Stalled)]),
    but("stalls-starttls", &[tls(Some((Stage::StartTls, Act::Stall)), Stalled)]),
    but("closes-greeting", &[at(Stage::Greeting, Act::Close, Lost)]),
    but("closes-mail", &[at(Stage::Mail, Act::Close, Lost)]),
    but("closes-rcpt", &[at(Stage::Rcpt, Act::Close, Lost)]),
    but("closes-end", &[at(Stage::EndOfData, Act::Close, Lost)]),
    but("closes-starttls", &[tls(Some((Stage::StartTls, Act::Close)), TlsFailed)]),
    but("greeting-421", &[at(Stage::Greeting, Act::Reply("421 4.3.2 Try later"), GreetingRefused)]),
    but(
        "greeting-554",
        &[at(
            Stage::Greeting,
            Act::Reply("554 5.7.1 [TSS09] Not from your address"),
            PolicyRefused,
        )],
    ),
    // The texts of Google, Microsoft and Yahoo.
    but(
        "google",
        &[at(
            Stage::EndOfData,
            Act::Reply(
                "550-5.7.1 [2001:db8:1::10] Our system has detected that this message does\n\
                 550-5.7.1 not meet IPv6 sending guidelines regarding PTR records and\n\
                 550-5.7.1 authentication. For more information, go to\n\
                 550 5.7.1  https://support.google.com/mail/?p=IPv6AuthError a1-20020a170 - gsmtp",
            ),
            PolicyRefused,
        )],
    ),
    but(
        "microsoft",
        &[at(
            Stage::Rcpt,
            Act::Reply(
                "550 5.7.25 Service unavailable, sending IPv6 address [2001:db8:1::10] must have reverse DNS record. (in \
                 reply to end of DATA command) [AM1.prod.example]",
            ),
            PolicyRefused,
        )],
    ),
    but(
        "yahoo",
        &[at(
            Stage::Mail,
            Act::Reply(
                "553 5.7.1 [BL21] Connections will not be accepted from 2001:db8:1::10; see https://a.example",
            ),
            PolicyRefused,
        )],
    ),
    but(
        "later-ptr",
        &[at(Stage::Rcpt, Act::Reply("450 4.7.25 Client has no PTR record"), PolicyRefused)],
    ),
    but(
        "greylisting",
        &[at(Stage::Rcpt, Act::Reply("450 4.2.0 <bob@dest.example>: Greylisted"), Deferred)],
    ),
    but("defers-message", &[at(Stage::EndOfData, Act::Reply("451 4.3.0 Try later"), Deferred)]),
    but("spam", &[at(Stage::EndOfData, Act::Reply("554 5.6.0 This message is spam"), Rejected)]),
    // Without TLS the same server is healthy.
    but("tls-fails", &[tls(None, Deferred)]),
    Destination { needs_tls: true, ..to("tls-fails-encrypt", &[tls(None, TlsFailed)], &[]) },
    Destination {
        needs_tls: true,
        ..to("no-tls-encrypt", &[at(Stage::StartTls, Act::Close, TlsFailed)], &[])
    },
    Destination {
        needs_tls: true,
        ..to(
            "tls-refused-encrypt",
            &[tls(Some((Stage::StartTls, Act::Reply("454 4.7.0 No TLS now"))), TlsFailed)],
            &[],
        )
    },
    Destination { recipients: &["unknown"], ..but("unknown", &[HEALTHY]) },
    Destination {
        recipients: &["unknown", "full", "bob", "\"a>, relay=none\""],
        ..to("several", &[HEALTHY], &[])
    },
    Destination { recipients: &["unknown", "unknown2"], ..but("all-unknown", &[HEALTHY]) },
    Destination {
        recipients: &["unknown", "bob"],
        ..to("unknown-then-stalls", &[at(Stage::EndOfData, Act::Stall, Stalled)], &[])
    },
];

impl Destination {
    pub(crate) fn domain(&self) -> String {
        format!("{}.dest.example", self.name)
    }

    /// Its addresses and what is there; `number` is its place in the list.
    pub(crate) fn addresses(&self, number: usize) -> impl Iterator<Item = (IpAddr, At)> {
        let host = u16::try_from(100 + number).unwrap();
        let ipv6 = self.ipv6.iter().zip(1..).map(move |(at, n)| {
            (IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, host, n)), *at)
        });
        let ipv4 = self.ipv4.iter().map(move |at| {
            let last = u8::try_from(host).unwrap();
            (IpAddr::from(Ipv4Addr::new(198, 51, 100, last)), *at)
        });
        ipv6.chain(ipv4)
    }
}

/// The zone `dest.example`.
pub(crate) fn zone() -> String {
    let mut zone = String::new();
    for (number, destination) in DESTINATIONS.iter().enumerate() {
        let name = destination.name;
        writeln!(zone, "{name} MX 10 mx.{name}").unwrap();
        for (ip, _) in destination.addresses(number) {
            let kind = if ip.is_ipv6() { "AAAA" } else { "A" };
            writeln!(zone, "mx.{name} {kind} {ip}").unwrap();
        }
    }
    zone
}

/// Starts all destinations on the lab's server.
pub(crate) fn start(lab: &Lab, seen: &Seen) {
    let (mut addresses, mut rules) = (String::new(), String::new());
    for (number, destination) in DESTINATIONS.iter().enumerate() {
        for (ip, at) in destination.addresses(number) {
            let (length, options, family) =
                if ip.is_ipv6() { (64, " nodad", "ip6") } else { (24, "", "ip") };
            writeln!(addresses, "addr add {ip}/{length} dev gateway{options}").unwrap();
            let rule = match at {
                At::Dropping => "drop",
                At::Unreachable => "reject with icmpx no-route",
                At::Refusing | At::Server(_) => continue,
            };
            writeln!(rules, "{family} daddr {ip} tcp dport 25 {rule}").unwrap();
        }
    }
    lab.server.configure(&addresses);
    let chain = format!("chain input {{ type filter hook input priority 0; {rules} }}");
    let table = format!("table inet destinations {{\n{chain}\n}}");
    lab.server.run(["nft", &table]);
    for (number, destination) in DESTINATIONS.iter().enumerate() {
        for (ip, at) in destination.addresses(number) {
            if let At::Server(script) = at {
                serve(&lab.server, SocketAddr::new(ip, port::SMTP), script, seen);
            }
        }
    }
}

/// The outcomes of connections that no server saw: one for each such address.
pub(crate) fn unseen() -> Vec<(IpAddr, OutboundOutcome)> {
    let all = DESTINATIONS.iter().enumerate().flat_map(|(n, destination)| destination.addresses(n));
    all.filter_map(|(ip, at)| match at {
        At::Server(_) => None,
        At::Dropping => Some((ip, OutboundOutcome::TimedOut)),
        At::Refusing => Some((ip, OutboundOutcome::Refused)),
        At::Unreachable => Some((ip, OutboundOutcome::Unreachable)),
    })
    .collect()
}
