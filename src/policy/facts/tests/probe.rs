//! The return path beyond the DNS: which servers are probed, in which order, and the resulting fact.

use super::*;

const SENDER: &str = "u@a.example";

/// One exchange with an address in each family, `v6` and `v4`.
const TWO: &str = "MX a.example 10/m.example; AAAA m.example 2600::6; A m.example 198.41.0.4; ";

fn to(level: ReturnPathLevel, over: FamilyRequirement) -> impl Fn(&str, &Answers) -> Evaluation {
    let ours = Networks::new(["2600:25::/32".parse().unwrap()]);
    move |sender, known| {
        let check = ReturnPathCheck { sender, family: Family::Ipv6, over, level, ours: &ours };
        return_path(&check, known)
    }
}

#[test]
fn tcp_needs_one_accepted_connection() {
    let (yes6, yes4) = ("true m.example 2600::6", "true m.example 198.41.0.4");
    for (answers, expected) in [
        ("CONNECT 2600::6 yes", yes6),
        ("CONNECT 2600::6 yes; CONNECT 198.41.0.4 yes", yes6),
        ("CONNECT 2600::6 no no_response; CONNECT 198.41.0.4 yes", yes4),
        ("CONNECT 2600::6 unknown rate_limited; CONNECT 198.41.0.4 yes", yes4),
        (
            "CONNECT 2600::6 no no_response; CONNECT 198.41.0.4 no refused",
            "false no_response m.example 2600::6",
        ),
        (
            "CONNECT 2600::6 no no_response; CONNECT 198.41.0.4 unknown rate_limited",
            "unknown rate_limited",
        ),
        ("CONNECT 2600::6 unknown timeout; CONNECT 198.41.0.4 no refused", "unknown timeout"),
        ("CONNECT 2600::6 no no_response", "unknown no_resolver"),
        // Answers to other lookups.
        ("GREET 2600::6 yes; GREET 198.41.0.4 yes", "unknown no_resolver"),
        ("CONNECT 2600::6 nodata; CONNECT 198.41.0.4 no no_response", "unknown no_resolver"),
    ] {
        let answers = format!("{TWO}{answers}");
        table(&[(SENDER, &answers, expected)], to(ReturnPathLevel::Tcp, FamilyRequirement::Any));
    }
}

#[test]
fn the_dns_decides_first() {
    let both = "CONNECT 2600::6 no no_response; CONNECT 198.41.0.4 no no_response";
    for (answers, expected) in [
        (String::from("MX a.example nxdomain"), "false nxdomain"),
        (String::from("MX a.example 0/."), "false null_mx"),
        (String::from("MX a.example servfail"), "unknown servfail"),
        (
            String::from("MX a.example 10/m.example; AAAA m.example nodata; A m.example 10.0.0.1"),
            "false no_usable_address m.example 10.0.0.1",
        ),
        (
            String::from(
                "MX a.example 10/m.example; AAAA m.example 2600:25::1; A m.example nodata",
            ),
            "false no_usable_address m.example 2600:25::1",
        ),
        // A failed DNS lookup may hide another address.
        (TWO.replace("2600::6", "servfail") + both, "unknown servfail"),
        (
            TWO.replace("2600::6", "servfail") + "CONNECT 198.41.0.4 yes",
            "true m.example 198.41.0.4",
        ),
        // Implicit MX.
        (
            String::from(
                "MX a.example nodata; AAAA a.example nodata; A a.example 198.41.0.4; CONNECT 198.41.0.4 yes",
            ),
            "true a.example 198.41.0.4",
        ),
    ] {
        table(&[(SENDER, &answers, expected)], to(ReturnPathLevel::Tcp, FamilyRequirement::Any));
    }
    let rows = [
        ("", "", "true null_sender"),
        ("u", "", "false not_a_domain"),
        // A client must not aim our connections: whatever the answer would be, none is asked for.
        ("u@[198.41.0.4]", "CONNECT 198.41.0.4 yes", "unknown not_probed"),
        ("u@[198.41.0.4]", "CONNECT 198.41.0.4 no refused", "unknown not_probed"),
        ("u@[198.41.0.4]", "", "unknown not_probed"),
        ("u@[10.0.0.1]", "CONNECT 10.0.0.1 yes", "false no_usable_address 10.0.0.1"),
        ("u@[IPv6:2600:25::1]", "CONNECT 2600:25::1 yes", "false no_usable_address 2600:25::1"),
    ];
    table(&rows, to(ReturnPathLevel::Tcp, FamilyRequirement::Any));
}

#[test]
fn only_the_required_families_are_probed() {
    let answers = format!("{TWO}CONNECT 2600::6 no no_response; CONNECT 198.41.0.4 yes");
    let no = "false no_response m.example 2600::6";
    for (over, expected) in [
        (FamilyRequirement::Any, "true m.example 198.41.0.4"),
        (FamilyRequirement::Ipv4, "true m.example 198.41.0.4"),
        (FamilyRequirement::Ipv6, no),
        (FamilyRequirement::SameFamily, no),
    ] {
        table(&[(SENDER, &answers, expected)], to(ReturnPathLevel::Tcp, over));
    }
}

#[test]
fn smtp_needs_a_greeting_and_rcpt_the_mailbox() {
    let rows = [
        ("GREET 2600::6 yes", "true m.example 2600::6"),
        (
            "GREET 2600::6 no established_but_stalled; GREET 198.41.0.4 no rejected_before_rcpt",
            "false established_but_stalled m.example 2600::6",
        ),
        ("CONNECT 2600::6 yes; CONNECT 198.41.0.4 yes", "unknown no_resolver"),
    ];
    for (answers, expected) in rows {
        let answers = format!("{TWO}{answers}");
        table(&[(SENDER, &answers, expected)], to(ReturnPathLevel::Smtp, FamilyRequirement::Any));
    }
    // A rejection before RCPT proves nothing about the mailbox.
    let rows = [
        ("CALLOUT 2600::6 yes", "true m.example 2600::6"),
        (
            "CALLOUT 2600::6 no no_such_mailbox; CALLOUT 198.41.0.4 no no_such_mailbox",
            "false no_such_mailbox m.example 2600::6",
        ),
        (
            "CALLOUT 2600::6 no rejected_before_rcpt; CALLOUT 198.41.0.4 no no_such_mailbox",
            "unknown rejected_before_rcpt",
        ),
        (
            "CALLOUT 2600::6 no no_response; CALLOUT 198.41.0.4 no rejected_before_rcpt",
            "unknown no_response",
        ),
        ("CALLOUT 2600::6 unknown deferred; CALLOUT 198.41.0.4 no no_response", "unknown deferred"),
    ];
    for (answers, expected) in rows {
        let answers = format!("{TWO}{answers}");
        table(&[(SENDER, &answers, expected)], to(ReturnPathLevel::Rcpt, FamilyRequirement::Any));
    }
}

/// The addresses probed in each round.
fn rounds(answers: &str) -> Vec<Vec<IpAddr>> {
    let results = results(answers);
    let mut known = Answers::default();
    let mut rounds = Vec::new();
    while let Evaluation::NeedsLookups(needed) =
        to(ReturnPathLevel::Tcp, FamilyRequirement::Any)(SENDER, &known)
    {
        let probed = needed.iter().filter_map(|lookup| match lookup {
            Lookup::Connect(ip) => Some(*ip),
            _ => None,
        });
        rounds.push(probed.collect());
        for lookup in needed {
            let listed = results.iter().find(|(known, _)| *known == lookup).map(|(_, r)| r.clone());
            let answer = Answer::No(Reason::NoResponse, None);
            let no_response = LookupResult { answer, source: Source::Probe, at: None };
            known.insert(lookup, listed.unwrap_or(no_response));
        }
    }
    rounds.retain(|probed: &Vec<_>| !probed.is_empty());
    rounds
}

#[test]
fn few_addresses_are_probed_and_not_all_at_once() {
    let ips = |round: &[&str]| round.iter().map(|text| ip(text)).collect::<Vec<_>>();
    // Many addresses of one family do not keep the other from being probed; an address is probed once.
    let answers = "MX a.example 10/m.example 20/n.example; \
         AAAA m.example 2600::4 2600::3 2600::2 2600::1; A m.example 198.41.0.4; \
         AAAA n.example 2600::1 2600::9; A n.example 198.41.0.4 198.41.0.5";
    let expected = [
        ips(&["2600::1", "198.41.0.4"]),
        ips(&["2600::2"]),
        ips(&["2600::3"]),
        ips(&["2600::4"]),
        ips(&["2600::9"]),
    ];
    assert_eq!(rounds(answers), expected);
    assert_eq!(expected.concat().len(), MAX_PROBED);
    // One success is enough.
    let found = format!("{answers}; CONNECT 2600::2 yes");
    assert_eq!(rounds(&found), &expected[..2]);
    // In order of preference, not of names.
    let answers = "MX a.example 20/a.example 10/z.example; A z.example 198.41.0.9; \
         AAAA z.example nodata; A a.example 198.41.0.1; AAAA a.example nodata";
    assert_eq!(rounds(answers), [ips(&["198.41.0.9"]), ips(&["198.41.0.1"])]);
}

/// Answers to one probe.
fn any_probe() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["yes", "no no_response", "no refused", "unknown rate_limited"])
}

proptest! {
    #[test]
    fn the_order_of_probes_does_not_matter(
        addresses in prop::collection::vec((any_addresses(), any_addresses()), 1..4),
        probes in prop::collection::vec(any_probe(), 8),
        order in prop::collection::vec(any::<usize>(), 60),
    ) {
        let hosts: Vec<_> = (0..addresses.len()).map(|n| format!("10/h{n}.example")).collect();
        let mut text = format!("MX a.example {}", hosts.join(" "));
        for (n, (six, four)) in addresses.iter().enumerate() {
            let six = six.replace('X', &format!("2600::{n}")).replace("2001:db8::1", "2600::f");
            let four = four.replace('X', &format!("198.41.0.{n}")).replace("2001:db8::1", "10.0.0.1");
            text += &format!("; AAAA h{n}.example {six}; A h{n}.example {four}");
        }
        let targets = ["2600::f", "2600::0", "2600::1", "2600::2"];
        let targets = targets.into_iter().chain(["198.41.0.0", "198.41.0.1", "198.41.0.2"]);
        for (target, answer) in targets.zip(&probes) {
            text += &format!("; CONNECT {target} {answer}");
        }
        let results = results(&text);
        let fact = |known: &Answers| to(ReturnPathLevel::Tcp, FamilyRequirement::Any)(SENDER, known);
        let mut numbers = order.iter().cycle();
        let shuffled = settle(&results, fact, |count| numbers.next().unwrap() % count);
        let straight = settle(&results, fact, |_| 0);
        prop_assert_eq!(shuffled.state, straight.state, "{}", text);
        // Of several successes the first known is the fact.
        if straight.state != FactState::True {
            prop_assert_eq!(shuffled, straight);
        }
    }
}
