//! The return path beyond the DNS: whom it asks, in which order, and what their answers make of it.

use super::*;

const SENDER: &str = "u@a.example";

/// One exchange with an address in each family, `v6` and `v4`.
const TWO: &str = "MX a.example 10/m.example; AAAA m.example 2600::6; A m.example 198.41.0.4; ";

fn to(level: ReturnPathLevel, over: FamilyRequirement) -> impl Fn(&str, &Answers) -> Evaluation {
    let ours = Networks::new(["2600:25::/32".parse().unwrap()]);
    move |sender, known| {
        let ask = ReturnPathCheck { sender, family: Family::Ipv6, over, level, ours: &ours };
        return_path(&ask, known)
    }
}

#[test]
fn a_connection_that_is_answered_is_enough_for_tcp() {
    let (yes6, yes4) = ("true m.example 2600::6", "true m.example 198.41.0.4");
    for (said, expected) in [
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
        // Answers to other questions.
        ("GREET 2600::6 yes; GREET 198.41.0.4 yes", "unknown no_resolver"),
        ("CONNECT 2600::6 nodata; CONNECT 198.41.0.4 no no_response", "unknown no_resolver"),
    ] {
        let said = format!("{TWO}{said}");
        table(&[(SENDER, &said, expected)], to(ReturnPathLevel::Tcp, FamilyRequirement::Any));
    }
}

#[test]
fn what_the_dns_says_comes_first() {
    let both = "CONNECT 2600::6 no no_response; CONNECT 198.41.0.4 no no_response";
    for (said, expected) in [
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
        // There may be another address behind what the DNS does not tell.
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
        table(&[(SENDER, &said, expected)], to(ReturnPathLevel::Tcp, FamilyRequirement::Any));
    }
    let rows = [
        ("", "", "true null_sender"),
        ("u", "", "false not_a_domain"),
        ("u@[198.41.0.4]", "CONNECT 198.41.0.4 yes", "true 198.41.0.4"),
        ("u@[198.41.0.4]", "CONNECT 198.41.0.4 no refused", "false refused 198.41.0.4"),
        ("u@[198.41.0.4]", "", "unknown no_resolver"),
        ("u@[10.0.0.1]", "CONNECT 10.0.0.1 yes", "false no_usable_address 10.0.0.1"),
        ("u@[IPv6:2600:25::1]", "CONNECT 2600:25::1 yes", "false no_usable_address 2600:25::1"),
    ];
    table(&rows, to(ReturnPathLevel::Tcp, FamilyRequirement::Any));
}

#[test]
fn only_the_families_asked_for_are_tried() {
    let said = format!("{TWO}CONNECT 2600::6 no no_response; CONNECT 198.41.0.4 yes");
    let no = "false no_response m.example 2600::6";
    for (over, expected) in [
        (FamilyRequirement::Any, "true m.example 198.41.0.4"),
        (FamilyRequirement::Ipv4, "true m.example 198.41.0.4"),
        (FamilyRequirement::Ipv6, no),
        (FamilyRequirement::SameFamily, no),
    ] {
        table(&[(SENDER, &said, expected)], to(ReturnPathLevel::Tcp, over));
    }
}

#[test]
fn smtp_wants_a_greeting_and_rcpt_the_mailbox() {
    let rows = [
        ("GREET 2600::6 yes", "true m.example 2600::6"),
        (
            "GREET 2600::6 no established_but_stalled; GREET 198.41.0.4 no rejected_before_rcpt",
            "false established_but_stalled m.example 2600::6",
        ),
        ("CONNECT 2600::6 yes; CONNECT 198.41.0.4 yes", "unknown no_resolver"),
    ];
    for (said, expected) in rows {
        let said = format!("{TWO}{said}");
        table(&[(SENDER, &said, expected)], to(ReturnPathLevel::Smtp, FamilyRequirement::Any));
    }
    // Whoever turns us away before RCPT says nothing of the mailbox.
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
    for (said, expected) in rows {
        let said = format!("{TWO}{said}");
        table(&[(SENDER, &said, expected)], to(ReturnPathLevel::Rcpt, FamilyRequirement::Any));
    }
}

/// Every round's questions beyond the DNS, where `said` answers.
fn rounds(said: &str) -> Vec<Vec<IpAddr>> {
    let world = world(said);
    let mut known = Answers::default();
    let mut rounds = Vec::new();
    while let Evaluation::NeedsLookups(needed) =
        to(ReturnPathLevel::Tcp, FamilyRequirement::Any)(SENDER, &known)
    {
        let asked = needed.iter().filter_map(|lookup| match lookup {
            Lookup::Connect(ip) => Some(*ip),
            _ => None,
        });
        rounds.push(asked.collect());
        for lookup in needed {
            let answered = world.iter().find(|(known, _)| *known == lookup).map(|(_, a)| a.clone());
            let answer = Answer::No(Reason::NoResponse, None);
            let silent = LookupResult { answer, source: Source::Probe, at: None };
            known.insert(lookup, answered.unwrap_or(silent));
        }
    }
    rounds.retain(|asked: &Vec<_>| !asked.is_empty());
    rounds
}

#[test]
fn few_are_asked_and_not_all_at_once() {
    let ips = |round: &[&str]| round.iter().map(|text| ip(text)).collect::<Vec<_>>();
    // Many addresses of one family do not keep the other from being tried; the same address is tried once.
    let said = "MX a.example 10/m.example 20/n.example; \
         AAAA m.example 2600::4 2600::3 2600::2 2600::1; A m.example 198.41.0.4; \
         AAAA n.example 2600::1 2600::9; A n.example 198.41.0.4 198.41.0.5";
    let expected = [
        ips(&["2600::1", "198.41.0.4"]),
        ips(&["2600::2"]),
        ips(&["2600::3"]),
        ips(&["2600::4"]),
        ips(&["2600::9"]),
    ];
    assert_eq!(rounds(said), expected);
    assert_eq!(expected.concat().len(), MAX_PROBED);
    // One that answers ends it.
    let found = format!("{said}; CONNECT 2600::2 yes");
    assert_eq!(rounds(&found), &expected[..2]);
    // The preferred first, whatever their names.
    let said = "MX a.example 20/a.example 10/z.example; A z.example 198.41.0.9; \
         AAAA z.example nodata; A a.example 198.41.0.1; AAAA a.example nodata";
    assert_eq!(rounds(said), [ips(&["198.41.0.9"]), ips(&["198.41.0.1"])]);
}

/// The answers to one probe.
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
        let places = ["2600::f", "2600::0", "2600::1", "2600::2"];
        let places = places.into_iter().chain(["198.41.0.0", "198.41.0.1", "198.41.0.2"]);
        for (place, said) in places.zip(&probes) {
            text += &format!("; CONNECT {place} {said}");
        }
        let world = world(&text);
        let fact = |known: &Answers| to(ReturnPathLevel::Tcp, FamilyRequirement::Any)(SENDER, known);
        let mut numbers = order.iter().cycle();
        let shuffled = settle(&world, fact, |count| numbers.next().unwrap() % count);
        let straight = settle(&world, fact, |_| 0);
        prop_assert_eq!(shuffled.state, straight.state, "{}", text);
        // Of several that answer, the one that is heard first is enough.
        if straight.state != FactState::True {
            prop_assert_eq!(shuffled, straight);
        }
    }
}
