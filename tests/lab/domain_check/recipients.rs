//! `gatepost check` and what servers say to MAIL FROM:<> and RCPT TO:<postmaster@DOMAIN>, by family.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::thread;

use hickory_proto::rr::Name;
use serde_json::Value;

use super::site::{self, SENDERS, address};
use super::{AT_ONCE, check, differs_from};
use crate::harness::tests;
use crate::support::world::{KNOT, knot};
use crate::support::{
    Authority, CertificateRequest, Family, IssuedCertificate, KeyType, Lab, Postfix, Process,
    Validity,
};

tests![mail_to_postmaster_is_judged_by_family];

const SITE: &str = "asked.example";

/// The servers and the last number of their addresses.
const SERVERS: [(&str, u8); 8] = [
    ("mx", 25),
    // Neither mailboxes nor, for some domains, any mail.
    ("poor", 71),
    // Rejects IPv6 in place of the greeting.
    ("shut", 72),
    // Servers without STARTTLS.
    ("no-bounces", 73),
    ("hangs-up", 74),
    ("defers", 75),
    ("waits", 76),
    ("rejects", 77),
];

/// What every client reads that the lab's Postfix has on its list.
const BLOCKED: &str = "554 5.7.1 Service unavailable; blocked using zen.spamhaus.org";

/// A domain by its first label, its MX records, and the findings that do not pass.
type RecipientCase = (&'static str, &'static [&'static str], &'static [&'static str]);

const BOTH: &[&str] = &["unknown smtp_postmaster", "unknown smtp_postmaster"];
const BOTH_FAIL: &[&str] = &["fail smtp_postmaster", "fail smtp_postmaster"];
/// In one family only.
const FAMILIES: &[&str] = &["fail smtp_families", "fail smtp_postmaster"];

const CASES: &[RecipientCase] = &[
    ("good", &["mx"], &[]),
    // A server without the mailbox, or without the domain.
    ("unlisted", &["poor"], BOTH_FAIL),
    ("unlisted6", &["half-poor"], FAMILIES),
    ("unlisted4", &["half-poor4"], FAMILIES),
    ("unserved", &["poor"], BOTH_FAIL),
    ("unserved6", &["half-poor"], FAMILIES),
    ("second", &["mx", "poor"], BOTH_FAIL),
    ("closed", &["mx"], BOTH_FAIL),
    // It comes later.
    ("greylisted", &["mx"], BOTH),
    ("greylisted6", &["mx"], &["unknown smtp_postmaster"]),
    // The caller is rejected.
    ("blocked", &["mx"], BOTH),
    ("blocked6", &["mx"], &["unknown smtp_postmaster"]),
    ("no-ptr", &["mx"], BOTH),
    ("helo", &["mx"], BOTH),
    ("shut6", &["shut"], &["unknown smtp_greeting"]),
    // The sender is.
    ("nobounce", &["mx"], &["fail smtp_null_sender", "fail smtp_null_sender"]),
    ("nobounce4", &["mx"], &["fail smtp_families", "fail smtp_null_sender"]),
    (
        "nobounce-at-mail",
        &["no-bounces"],
        &[
            "fail smtp_null_sender",
            "fail smtp_null_sender",
            "unknown path_mtu",
            "warn smtp_starttls",
            "warn smtp_starttls",
        ],
    ),
    // Without TLS.
    ("hangs-up", &["hangs-up"], PLAIN),
    ("defers", &["defers"], PLAIN),
    ("waits", &["waits"], PLAIN),
    (
        "rejects",
        &["rejects"],
        &[
            "fail smtp_postmaster",
            "fail smtp_postmaster",
            "unknown path_mtu",
            "warn smtp_starttls",
            "warn smtp_starttls",
        ],
    ),
    // Nobody is asked.
    ("null-mx", &["."], &["warn mx_records"]),
];

const PLAIN: &[&str] = &[
    "unknown path_mtu",
    "unknown smtp_postmaster",
    "unknown smtp_postmaster",
    "warn smtp_starttls",
    "warn smtp_starttls",
];

/// Restrictions of one domain each, by its first label.
const RESTRICTIONS: [(&str, &str); 9] = [
    ("closed", "reject"),
    ("greylisted", "check_client_access static:{450 4.2.0 Greylisted, come again}"),
    (
        "greylisted6",
        "check_client_access cidr:{{2001:db8:2::/64 450 4.2.0 Greylisted, come again}}",
    ),
    ("blocked", "check_client_access static:{BLOCKED}"),
    ("blocked6", "check_client_access cidr:{{2001:db8:2::/64 BLOCKED}}"),
    ("no-ptr", "reject_unknown_reverse_client_hostname"),
    ("helo", "check_helo_access static:REJECT"),
    ("nobounce", "check_sender_access static:REJECT"),
    ("nobounce4", "check_client_access cidr:{{198.51.100.0/24 nobounce}}"),
];

fn restrictions() -> String {
    let class = |label: &str| label.replace('-', "_");
    let classes: Vec<String> = RESTRICTIONS.iter().map(|(label, _)| class(label)).collect();
    let mut settings = format!("smtpd_restriction_classes = {}\n", classes.join(", "));
    let mut domains = String::new();
    for (label, restriction) in RESTRICTIONS {
        writeln!(settings, "{} = {}", class(label), restriction.replace("BLOCKED", BLOCKED))
            .unwrap();
        write!(domains, " {{ {label}.{SITE} = {} }}", class(label)).unwrap();
    }
    writeln!(
        settings,
        "smtpd_recipient_restrictions = check_recipient_access inline:{{{domains} }}"
    )
    .unwrap();
    settings
}

struct Servers<'lab> {
    _postfixes: [Postfix<'lab>; 2],
    mx: Postfix<'lab>,
    _sinks: Vec<Process>,
}

impl<'lab> Servers<'lab> {
    fn start(lab: &'lab Lab) -> Self {
        for (_, n) in SERVERS.iter().filter(|(_, n)| *n != 25) {
            for (family, options) in [(Family::Ipv4, "/24"), (Family::Ipv6, "/64 nodad")] {
                let (address, options) = options.split_once(' ').map_or_else(
                    || (format!("{}{options}", address(*n, family)), ""),
                    |(length, flag)| (format!("{}{length}", address(*n, family)), flag),
                );
                lab.server.configure(&format!("addr add {address} dev gateway {options}\n"));
            }
        }
        let authority = Authority::new(lab.folder("ca"), &format!("*.{SITE}"));
        assert_eq!(authority.certificate(), site::trusted(lab));
        let issued = authority.issue(&CertificateRequest {
            file: "mx",
            names: &[&*format!("*.{SITE}")],
            key: KeyType::EcdsaP256,
            validity: Validity::Days(60),
        });
        let domains = "virtual_mailbox_domains = static:all\n";
        // Outside of TLS no mail is accepted.
        let own = restrictions() + domains + "unknown_client_reject_code = 550\n";
        let mx = postfix(lab, "mx", &issued, "encrypt", &own);
        let own = "smtpd_recipient_restrictions = \n\
                   virtual_mailbox_domains = regexp:{{!/^unserved/ OK}}\n\
                   virtual_mailbox_maps = inline:{ { info@asked.example = inbox/ } }\n";
        let poor = postfix(lab, "poor", &issued, "may", own);
        let own = format!(
            "{domains}smtpd_delay_reject = no\n\
             smtpd_client_restrictions = check_client_access cidr:{{{{2001:db8:2::/64 {BLOCKED}}}}}\n"
        );
        let shut = postfix(lab, "shut", &issued, "may", &own);
        let mut sinks = Vec::new();
        for (name, options) in [
            ("no-bounces", "-f MAIL"),
            ("hangs-up", "-q RCPT"),
            ("defers", "-r RCPT"),
            ("waits", "-W RCPT:9"),
            ("rejects", "-f RCPT"),
        ] {
            let host = format!("{name}.{SITE}");
            sinks.extend(
                Family::ALL.map(|family| site::sink_with(lab, of(name, family), &host, options)),
            );
        }
        Self { _postfixes: [poor, shut], mx, _sinks: sinks }
    }
}

fn postfix<'lab>(
    lab: &'lab Lab,
    name: &str,
    issued: &IssuedCertificate,
    level: &str,
    own: &str,
) -> Postfix<'lab> {
    let tls = site::tls(&issued.fullchain, &issued.key).replace("may", level);
    let main_cf = format!(
        "myhostname = {name}.{SITE}\ninet_interfaces = {}, {}\n{tls}{own}",
        of(name, Family::Ipv4),
        of(name, Family::Ipv6)
    );
    Postfix::start(lab, &lab.server, name, None, &main_cf)
}

fn of(name: &str, family: Family) -> IpAddr {
    let (_, n) = SERVERS.iter().find(|(known, _)| *known == name).unwrap();
    address(*n, family)
}

pub(super) fn zones(site: &str, records: &str) -> BTreeMap<String, String> {
    let mut zones = BTreeMap::from([
        ("example".to_owned(), "ns.client AAAA 2001:db8:53::53\n".to_owned()),
        (
            site.to_owned(),
            format!(
                "_dmarc TXT \"v=DMARC1; p=quarantine; rua=mailto:dmarc@{site}\"\n\
                 out A 198.51.100.1\nout AAAA 2001:db8:2::1\n{records}"
            ),
        ),
    ]);
    for (zone, sender) in
        [("8.b.d.0.1.0.0.2.ip6.arpa", SENDERS[0]), ("100.51.198.in-addr.arpa", SENDERS[1])]
    {
        let owner = Name::from(sender.parse::<IpAddr>().unwrap());
        zones.insert(zone.to_owned(), format!("{owner} PTR out.{site}.\n"));
    }
    zones
}

fn records() -> String {
    let mut records = String::new();
    for (name, n) in SERVERS {
        let (v4, v6) = (address(n, Family::Ipv4), address(n, Family::Ipv6));
        writeln!(records, "{name} A {v4}\n{name} AAAA {v6}").unwrap();
    }
    let halves = [("half-poor", "mx", "poor"), ("half-poor4", "poor", "mx")];
    for (name, v4, v6) in halves {
        let (v4, v6) = (of(v4, Family::Ipv4), of(v6, Family::Ipv6));
        writeln!(records, "{name} A {v4}\n{name} AAAA {v6}").unwrap();
    }
    for (name, exchanges, _) in CASES {
        for (at, exchange) in exchanges.iter().enumerate() {
            let preference = if *exchange == "." { 0 } else { 10 * (at + 1) };
            writeln!(records, "{name} MX {preference} {exchange}").unwrap();
        }
        writeln!(records, "{name} TXT \"v=spf1 a:out.{SITE} -all\"").unwrap();
    }
    records
}

fn arguments(name: &str) -> Vec<String> {
    let mut words: Vec<String> =
        [&*format!("{name}.{SITE}"), "--dns", KNOT, "--timeout=4s"].map(str::to_owned).into();
    words.extend(SENDERS.iter().flat_map(|sender| ["--from".to_owned(), (*sender).to_owned()]));
    words
}

fn mail_to_postmaster_is_judged_by_family() {
    let lab = Lab::new();
    let _knot = knot(&lab, &zones(SITE, &records()), &[]);
    let servers = Servers::start(&lab);
    let mut wrong = Vec::new();
    for cases in CASES.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let running: Vec<_> = cases
                .iter()
                .map(|(name, _, expected)| {
                    let lab = &lab;
                    scope.spawn(move || differs_from(lab, name, arguments(name), expected))
                })
                .collect();
            wrong.extend(running.into_iter().filter_map(|one| one.join().unwrap()));
        });
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    shows_the_rejected_address(&lab);
    each_dialogue_is_short(&servers.mx.log());
}

/// The sentences of a case's findings.
fn seen(lab: &Lab, name: &str, check_name: &str) -> Vec<String> {
    let mut words = arguments(name);
    words.push("--format=json".to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let json: Value = serde_json::from_str(&check(lab, &words).printed).unwrap();
    let findings = json["findings"].as_array().unwrap().iter();
    let of_check = findings.filter(|one| one["check"] == check_name && one["outcome"] != "pass");
    of_check.map(|one| one["seen"].as_str().unwrap().to_owned()).collect()
}

fn shows_the_rejected_address(lab: &Lab) {
    let seen_by = |name, check_name| seen(lab, name, check_name).join("\n");
    let both = seen_by("blocked", "smtp_postmaster");
    for sender in SENDERS {
        assert!(both.contains(&format!("rejects this host, called from {sender}: 554")), "{both}");
    }
    let one = seen_by("blocked6", "smtp_postmaster");
    assert!(one.contains("called from 2001:db8:2::1: 554 5.7.1"), "{one}");
    assert!(one.ends_with(", while it accepts mail of this host over IPv4"), "{one}");
    let greeting = seen_by("shut6", "smtp_greeting");
    assert!(greeting.contains("rejects this host, called from 2001:db8:2::1: 554"), "{greeting}");
    let families = seen_by("unlisted6", "smtp_families");
    assert_eq!(families, "accepts mail to postmaster over IPv4 but not over IPv6");
    let families = seen_by("nobounce4", "smtp_families");
    assert_eq!(families, "accepts mail to postmaster over IPv6 but not over IPv4");
}

/// Each connection ended with QUIT, and none had more commands than these.
fn each_dialogue_is_short(log: &str) {
    let ends: Vec<&str> = log.lines().filter(|line| line.contains("disconnect from")).collect();
    assert!(ends.len() > 20, "{log}");
    for line in ends {
        let (_, commands) = line.split_once("ehlo=").unwrap();
        let accepted = "2 starttls=1 mail=1 rcpt=1 rset=1 quit=1 commands=7";
        let rejected = "2 starttls=1 mail=1 rcpt=0/1 rset=1 quit=1 commands=6/7";
        assert!(commands == accepted || commands == rejected, "{line}");
    }
    for complaint in ["lost connection", "improper", "timeout", "NOQUEUE: filter", "warning:"] {
        let line = log.lines().find(|line| line.contains(complaint));
        assert_eq!(line, None);
    }
}
