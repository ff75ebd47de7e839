//! `gatepost check --dnsbl` with zones of lists in every state.

use std::fmt::Write as _;
use std::thread;

use serde_json::Value;

use super::recipients::zones;
use super::site::{self, SENDERS};
use super::{AT_ONCE, check, differs_from};
use crate::harness::tests;
use crate::support::world::{KNOT, knot};
use crate::support::{Authority, CertificateRequest, KeyType, Lab, Postfix, Validity};

tests![senders_are_looked_up_on_working_lists_only];

const SITE: &str = "listed.example";

const TEST4: &str = "2.0.0.127 A 127.0.0.2\n";
const TEST6: &str = "2.0.0.0.0.0.f.7.f.f.f.f.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 A 127.0.0.2\n";
const SENDER4: &str = "1.100.51.198";
const SENDER6: &str = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.8.b.d.0.1.0.0.2";
/// Every address of its /64.
const NETWORK: &str = "*.0.0.0.0.2.0.0.0.8.b.d.0.1.0.0.2";

/// A list's first label, its records, where `4`, `6` and `N` stand for the addresses above, and the findings that do not
/// pass.
type ListCase = (&'static str, &'static str, &'static [&'static str]);

const FAIL: &[&str] = &["fail sender_dnsbl"];
const USELESS: &[&str] = &["unknown dnsbl", "unknown dnsbl"];

const CASES: &[ListCase] = &[
    ("clean", "TEST", &[]),
    ("lists4", "TEST 4 A 127.0.0.4\n4 TXT \"Spam, see https://bl.example/198.51.100.1\"\n", FAIL),
    ("lists6", "TEST 6 A 127.0.0.4\n6 TXT \"Spam\"\n", FAIL),
    ("lists-network", "TEST N A 127.0.0.3\nN TXT \"the whole network\"\n", FAIL),
    (
        "lists-both",
        "TEST 4 A 127.0.0.2\n4 A 127.0.0.11\n6 A 127.0.0.2\n",
        &["fail sender_dnsbl", "fail sender_dnsbl"],
    ),
    ("hostile", "TEST 4 A 127.0.0.2\n4 TXT \"\\027[31mred \\226\\128\\174\"\n", FAIL),
    // Nothing follows from these.
    ("dead", "", USELESS),
    ("everything", "* A 127.0.0.2\n", USELESS),
    ("refuses", "* A 127.255.255.254\n", USELESS),
    ("parked", "* A 198.51.100.80\n", USELESS),
    ("broken", "", USELESS),
    ("only4", "TEST4 4 A 127.0.0.2\n", &["fail sender_dnsbl", "unknown dnsbl"]),
    ("only6", "TEST6 4 A 127.0.0.2\n", &["unknown dnsbl"]),
    ("refuses-later", "TEST 4 A 127.255.255.255\n", &["unknown sender_dnsbl"]),
];

fn zone_of(records: &str) -> String {
    let tests = format!("{TEST4}{TEST6}");
    let mut zone = String::new();
    for line in records.lines() {
        let line = match line.split_once(' ') {
            Some(("TEST", rest)) => format!("{tests}{rest}"),
            Some(("TEST4", rest)) => format!("{TEST4}{rest}"),
            Some(("TEST6", rest)) => format!("{TEST6}{rest}"),
            _ if line == "TEST" => tests.clone(),
            _ => line.to_owned(),
        };
        for line in line.lines() {
            let (owner, rest) = line.split_once(' ').unwrap();
            let owner = match owner {
                "4" => SENDER4,
                "6" => SENDER6,
                "N" => NETWORK,
                other => other,
            };
            writeln!(zone, "{owner} {rest}").unwrap();
        }
    }
    zone
}

fn arguments(lists: &[&str]) -> Vec<String> {
    let mut words: Vec<String> =
        [&*format!("good.{SITE}"), "--dns", KNOT, "--timeout=4s"].map(str::to_owned).into();
    words.extend(SENDERS.iter().flat_map(|sender| ["--from".to_owned(), (*sender).to_owned()]));
    words
        .extend(lists.iter().flat_map(|list| ["--dnsbl".to_owned(), format!("{list}.bl.example")]));
    words
}

fn mail_server(lab: &Lab) -> Postfix<'_> {
    let authority = Authority::new(lab.folder("ca"), &format!("*.{SITE}"));
    assert_eq!(authority.certificate(), site::trusted(lab));
    let issued = authority.issue(&CertificateRequest {
        file: "mx",
        names: &[&*format!("*.{SITE}")],
        key: KeyType::EcdsaP256,
        validity: Validity::Days(60),
    });
    let main_cf = format!(
        "myhostname = mx.{SITE}\nvirtual_mailbox_domains = static:all\n{}",
        site::tls(&issued.fullchain, &issued.key)
    );
    Postfix::start(lab, &lab.server, "mx", None, &main_cf)
}

fn senders_are_looked_up_on_working_lists_only() {
    let lab = Lab::new();
    let records = format!(
        "mx A 198.51.100.25\nmx AAAA 2001:db8:2::25\ngood MX 10 mx\ngood TXT \"v=spf1 a:out.{SITE} -all\"\n"
    );
    let mut zones = zones(SITE, &records);
    for (list, records, _) in CASES.iter().filter(|(list, ..)| *list != "broken") {
        zones.insert(format!("{list}.bl.example"), zone_of(records));
    }
    let _knot = knot(&lab, &zones, &["broken.bl.example".to_owned()]);
    let _mx = mail_server(&lab);
    let mut wrong = Vec::new();
    for cases in CASES.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let running: Vec<_> = cases
                .iter()
                .map(|(list, _, expected)| {
                    let lab = &lab;
                    let different = move || differs_from(lab, "good", arguments(&[list]), expected);
                    scope.spawn(move || different().map(|why| format!("{list}: {why}")))
                })
                .collect();
            wrong.extend(running.into_iter().filter_map(|one| one.join().unwrap()));
        });
    }
    // Several lists, one of which is dead.
    let several = ["clean", "lists6", "only4"];
    let expected = ["fail sender_dnsbl", "fail sender_dnsbl", "unknown dnsbl"];
    wrong.extend(differs_from(&lab, "good", arguments(&several), &expected));
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    shows_what_the_list_says(&lab);
}

fn shows_what_the_list_says(lab: &Lab) {
    for (list, check_name, expected) in [
        (
            "lists4",
            "sender_dnsbl",
            "listed at lists4.bl.example (127.0.0.4): Spam, see https://bl.example/198.51.100.1",
        ),
        (
            "lists6",
            "sender_dnsbl",
            "listed at lists6.bl.example (127.0.0.4) by itself, not with its network 2001:db8:2::/64: Spam",
        ),
        (
            "lists-network",
            "sender_dnsbl",
            "listed at lists-network.bl.example (127.0.0.3) with its whole network 2001:db8:2::/64: the whole network",
        ),
        ("refuses", "dnsbl", "IPv6: the list refuses the query (127.255.255.254)"),
        (
            "only4",
            "dnsbl",
            "IPv6: the test entry ::FFFF:7F00:2 is missing (RFC 5782 §5): the list is dead or has no IPv6 part",
        ),
        (
            "everything",
            "dnsbl",
            "IPv6: the list lists everything, also ::FFFF:7F00:1 (RFC 5782 §5)",
        ),
    ] {
        let mut words = arguments(&[list]);
        words.push("--format=json".to_owned());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let json: Value = serde_json::from_str(&check(lab, &words).printed).unwrap();
        let mut findings = json["findings"].as_array().unwrap().iter();
        let found = findings.find(|one| one["check"] == check_name && one["outcome"] != "pass");
        assert_eq!(found.unwrap()["seen"], expected);
    }
    let words = arguments(&["hostile"]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let text = check(lab, &words).printed;
    assert!(text.contains("red") && !text.contains(['\x1b', '\u{202e}']), "{text}");
}
