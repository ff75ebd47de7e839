//! `gatepost check`: domains with a fault each, against real zones, Postfix and filters, in namespaces.

mod cases;
mod page;
pub(crate) mod postfix;
mod site;

use std::thread;

use crate::harness::tests;
use crate::support::world::KNOT;
use crate::support::{Host, Lab};
use cases::{CASES, Case};
use serde_json::Value;
use site::{NOBODY, SENDERS, SITE, Site};

tests![each_domain_has_its_faults_and_no_others];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// Cases at once: they wait more than they work.
const AT_ONCE: usize = 12;

/// What a check printed, and its exit status.
struct Checked {
    printed: String,
    complained: String,
    status: i32,
}

fn check(host: &Host, words: &[&str]) -> Checked {
    // No check takes longer than three times its time-out.
    let output = host.output(["timeout", "60", GATEPOST, "check"].iter().chain(words));
    Checked {
        printed: String::from_utf8(output.stdout).unwrap(),
        complained: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status.code().unwrap(),
    }
}

/// The words of a case, asked for as it says.
fn asked(case: &Case) -> Vec<String> {
    let domain = match case.name {
        "xn--bcher-kva" => format!("Bücher.{SITE}"),
        name => format!("{name}.{SITE}"),
    };
    let mut words = vec![domain, "--dns".to_owned(), KNOT.to_owned(), "--timeout=4s".to_owned()];
    words.extend(case.asked.split_whitespace().map(str::to_owned));
    if !case.asked.contains("--from") {
        words.extend(SENDERS.iter().flat_map(|sender| ["--from".to_owned(), (*sender).to_owned()]));
    }
    words
}

/// `fail mx_ipv6`, sorted.
fn not_passed(json: &Value) -> Vec<String> {
    let findings = json["findings"].as_array().unwrap().iter();
    let told = findings.map(|one| {
        format!("{} {}", one["outcome"].as_str().unwrap(), one["check"].as_str().unwrap())
    });
    let mut told: Vec<String> = told.filter(|told| !told.starts_with("pass ")).collect();
    told.sort();
    told
}

fn status(found: &[String]) -> i32 {
    let has = |outcome: &str| found.iter().any(|one| one.starts_with(outcome));
    match () {
        () if has("fail") => 1,
        () if has("unknown") => 4,
        () if has("warn") => 3,
        () => 0,
    }
}

/// What is wrong with how a case went.
fn differs(lab: &Lab, case: &Case) -> Option<String> {
    let mut words = asked(case);
    words.push("--format=json".to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let checked = check(&lab.gateway, &words);
    let wrong = |why: &str| {
        Some(format!("{}: {why}\n{}{}", case.name, checked.printed, checked.complained))
    };
    let Ok(json) = serde_json::from_str::<Value>(&checked.printed) else { return wrong("no JSON") };
    if json["domain"].as_str().unwrap().split('.').next() != Some(case.name) {
        return wrong("another domain");
    }
    let found = not_passed(&json);
    if found != case.found {
        return wrong(&format!("expected {:?}, found {found:?}", case.found));
    }
    let to_do = |one: &Value| {
        one["outcome"] == "pass" || one["advice"].as_str().is_some_and(|advice| !advice.is_empty())
    };
    if !json["findings"].as_array().unwrap().iter().all(to_do) {
        return wrong("nothing to do");
    }
    (checked.status != status(&found)).then(|| format!("{}: status {}", case.name, checked.status))
}

fn each_domain_has_its_faults_and_no_others() {
    let lab = Lab::new();
    let _site = Site::new(&lab);
    assert!(CASES.len() >= 25, "{} cases", CASES.len());
    let mut wrong = Vec::new();
    for cases in CASES.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let running: Vec<_> =
                cases.iter().map(|case| scope.spawn(|| differs(&lab, case))).collect();
            wrong.extend(running.into_iter().filter_map(|one| one.join().unwrap()));
        });
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));

    reads_well(&lab);
    page::is_what_is_printed(&lab);
    says_what_it_could_not_reach(&lab);
    takes_this_hosts_addresses(&lab);
    refuses_what_is_no_domain(&lab);
    inherits_nothing_where_nothing_is(&lab);
}

/// Times and line ends depend on the day.
fn steady(text: &str) -> String {
    let mut whole = String::new();
    for line in text.lines() {
        let goes_on = line.strip_prefix("           ").filter(|rest| !rest.starts_with(['→', '$']));
        match goes_on {
            Some(rest) => whole = whole.trim_end().to_owned() + " " + rest + "\n",
            None => whole = whole + line + "\n",
        }
    }
    let mut steady = String::new();
    let words: Vec<&str> = whole.split(' ').collect();
    for (at, word) in words.iter().enumerate() {
        let unit = words.get(at + 1).map(|unit| unit.trim_end_matches([',', ':', ')', '\n']));
        let is_number = word.parse::<f64>().is_ok();
        let is_time = is_number
            && unit.is_some_and(|unit| {
                matches!(unit.split(['\n', ':', ',', ')']).next(), Some("ms" | "s"))
            });
        steady += if is_time { "N" } else { word };
        steady.push(' ');
    }
    steady.replace("less than N ms", "N ms").replace("N s", "N ms").trim_end().to_owned() + "\n"
}

/// A good one and bad ones for people, no wider than a hundred columns but for what is for a shell.
fn reads_well(lab: &Lab) {
    let mut told = String::new();
    for name in ["good", "silent6", "hostile", "voids"] {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        let words = asked(case);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let checked = check(&lab.gateway, &words);
        for line in checked.printed.lines().filter(|line| !line.trim_start().starts_with("$ ")) {
            assert!(line.chars().count() <= 100, "{line}");
        }
        assert!(!checked.printed.contains('\x1b'), "{}", checked.printed);
        told += &format!("{}\n", steady(&checked.printed));
    }
    insta::assert_snapshot!("people_read", told);
}

/// A DNS server that is silent: all of it is unknown, and nothing fails.
fn says_what_it_could_not_reach(lab: &Lab) {
    let domain = format!("good.{SITE}");
    let words = [&domain, "--dns", NOBODY, "--timeout=1s", "--from", SENDERS[0], "--format=json"];
    let checked = check(&lab.gateway, &words);
    let json = serde_json::from_str(&checked.printed).unwrap();
    let found = not_passed(&json);
    assert_eq!(
        found,
        ["unknown dmarc_record", "unknown mx_records", "unknown sender_ptr", "unknown spf_record"]
    );
    assert_eq!(checked.status, 4);
    assert_eq!(json["ready"], Value::Null);
}

fn takes_this_hosts_addresses(lab: &Lab) {
    let domain = format!("good.{SITE}");
    let checked = check(&lab.gateway, &[&domain, "--dns", KNOT, "--format=json"]);
    let json: Value = serde_json::from_str(&checked.printed).unwrap();
    assert_eq!(json["senders_from"], "interfaces");
    let senders: Vec<&str> =
        json["senders"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    for own in ["2001:db8:1::1", "192.0.2.1", "2001:db8:2::1", "198.51.100.1"] {
        assert!(senders.contains(&own), "{senders:?}");
    }
    assert!(
        senders.iter().all(|one| !one.starts_with("fe80") && !one.starts_with("127")),
        "{senders:?}"
    );
}

fn refuses_what_is_no_domain(lab: &Lab) {
    for wrong in ["user@ready.example", "2001:db8::1", "192.0.2.1", "a..b", "ready.example/"] {
        let checked = check(&lab.gateway, &[wrong]);
        assert_eq!(checked.status, 2, "{wrong}");
        assert!(checked.complained.contains("write a domain such as"), "{}", checked.complained);
    }
}

fn inherits_nothing_where_nothing_is(lab: &Lab) {
    let words = [
        "alone.example",
        "--dns",
        KNOT,
        "--from",
        SENDERS[0],
        "--from",
        SENDERS[1],
        "--format=json",
    ];
    let checked = check(&lab.gateway, &words);
    let json: Value = serde_json::from_str(&checked.printed).unwrap();
    assert_eq!(not_passed(&json), ["warn dmarc_record"]);
    let servers = json["servers"].as_array().unwrap();
    let families: Vec<&str> = servers.iter().map(|one| one["family"].as_str().unwrap()).collect();
    assert_eq!(families, ["ipv6", "ipv4"], "{json}");
    for server in servers {
        for number in ["connect_s", "greeting_s", "ehlo_s"] {
            assert!(server[number].as_f64().is_some_and(|seconds| seconds > 0.0), "{server}");
        }
        assert_eq!((&server["starttls"], &server["path_mtu"]), (&true.into(), &1500.into()));
    }
}
