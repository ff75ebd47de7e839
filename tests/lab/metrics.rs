//! The number of series stays the same, whatever clients send.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, METRICS, Mode, Postfix};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

tests![a_flood_of_odd_input_adds_no_series,];

/// The maximum of a configuration.
const RULES: usize = 64;
/// Of each family.
const SESSIONS: usize = 150;

/// No command of a client creates a series, in either format.
fn a_flood_of_odd_input_adds_no_series() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy).for_crowds().policies(&rules());
    let gateway = Gateway::start(&lab, &config);
    let before = series(&lab);
    let mut runner = TestRunner::deterministic();
    for family in Family::ALL {
        for _ in 0..SESSIONS {
            let commands = odd_dialogue().new_tree(&mut runner).unwrap().current();
            let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
            // Half of them wait for the greeting. The gateway may close before it has received everything.
            if commands.len().is_multiple_of(2) {
                smtp.reply().unwrap();
            }
            for line in commands {
                let _ = smtp.raw(&line);
            }
            let _ = smtp.raw(b"\r\n.\r\nQUIT\r\n");
            smtp.rest();
        }
        let label = family.label();
        gateway.wait_for_metric("gatepost_sessions_total", &[&label], SESSIONS as f64);
    }
    let after = series(&lab);
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
    assert!(before.len() < 2000 && before.len() == after.len(), "{} series", before.len());
    assert!(gateway.metric("gatepost_anomalies_total", &[]) > 0.0, "nothing was odd");

    let check = format!("curl -sS --fail -g http://{METRICS}/metrics | promtool check metrics");
    assert_eq!(lab.gateway.run(["sh", "-c", &check]), "");
    let parse = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse; \
                 print(sum(len(family.samples) for family in parse(sys.stdin.read())))";
    let ask = "curl -sS --fail -g -H 'Accept: application/openmetrics-text'";
    let check = format!("{ask} http://{METRICS}/metrics | /usr/bin/python3 -c {parse:?}");
    assert_eq!(lab.gateway.run(["sh", "-c", &check]).trim(), after.len().to_string());
}

/// Names and labels of all series.
fn series(lab: &Lab) -> BTreeSet<String> {
    let page = format!("http://{METRICS}/metrics");
    let page = lab.gateway.run(["curl", "-sS", "--fail", "-g", &page]);
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').expect("series and value").0.to_owned()).collect()
}

/// Rules with the oddest valid names.
fn rules() -> String {
    (0..RULES).fold(String::new(), |mut rules, n| {
        let name = format!("{n} \\\"{{}},=%\\\\ <odd>");
        writeln!(rules, "[[policy]]\nname = \"{name}\"\nwhen = {{ family = \"ipv6\" }}").unwrap();
        writeln!(rules, "require = [\"helo_resolves\"]\notherwise = \"tag\"\nmode = \"shadow\"\n")
            .unwrap();
        rules
    })
}

/// Lines of a client, SMTP commands and garbage.
fn odd_dialogue() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let ended = |line: String| [line.as_bytes(), b"\r\n"].concat();
    let line = prop_oneof![
        "(EHLO|HELO|LHLO) \\PC{0,40}".prop_map(ended),
        "(MAIL FROM|RCPT TO):<[a-z\"\\\\@.\\[\\]:]{0,80}>( [A-Z]{1,10}=\\PC{0,20})?"
            .prop_map(ended),
        "(XCLIENT|XFORWARD|PROXY|AUTH|BDAT|STARTTL|VRFY|ETRN|GET|[A-Z]{1,12}) \\PC{0,60}"
            .prop_map(ended),
        Just(b"DATA\r\n".to_vec()),
        Just(b"a\n.\n\r.\r\nb\0\xff\r\n".to_vec()),
        Just(b"RSET\n".to_vec()),
        vec(any::<u8>(), 0..200),
        (600..3000_usize).prop_map(|length| [vec![b'x'; length], b"\r\n".to_vec()].concat()),
    ];
    vec(line, 1..12)
}
