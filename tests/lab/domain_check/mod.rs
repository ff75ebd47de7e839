//! `gatepost check`: domains with one fault each, with real zones, Postfix and packet filters.

mod cases;
mod dane;
pub(crate) mod dnsbl;
pub(crate) mod dnssec;
pub(crate) mod log_filter;
pub(crate) mod monitoring;
pub(crate) mod mta_sts;
pub(crate) mod own_network;
mod page;
pub(crate) mod postfix;
pub(crate) mod recipients;
mod signed_zones;
mod site;
mod special_addresses;

use std::thread;

use crate::harness::tests;
use crate::support::world::KNOT;
use crate::support::{Host, Lab, until};
use cases::{CASES, Case, HERE};
use serde_json::Value;
use site::{NOBODY, SENDERS, SITE, Site};

tests![each_domain_has_its_faults_and_no_others];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// The number of concurrent cases, which wait most of the time.
const AT_ONCE: usize = 12;

/// What a check printed, and its exit status.
struct Checked {
    printed: String,
    complained: String,
    status: i32,
}

/// Runs the command where the site's authority is trusted.
fn check(lab: &Lab, words: &[&str]) -> Checked {
    check_on(lab, &lab.gateway, words)
}

/// The same on another host.
fn check_on(lab: &Lab, host: &Host, words: &[&str]) -> Checked {
    // A check takes at most three times its timeout.
    let trusted = format!("SSL_CERT_FILE={}", site::trusted(lab).display());
    let output =
        host.output(["env", &trusted, "timeout", "60", GATEPOST, "check"].iter().chain(words));
    Checked {
        printed: String::from_utf8(output.stdout).unwrap(),
        complained: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status.code().unwrap(),
    }
}

/// The command line of a case.
fn arguments(case: &Case) -> Vec<String> {
    let domain = match case.name {
        "xn--bcher-kva" => format!("Bücher.{SITE}"),
        name => format!("{name}.{SITE}"),
    };
    let mut words = vec![domain, "--dns".to_owned(), KNOT.to_owned()];
    if !case.options.contains("--timeout") {
        words.push("--timeout=4s".to_owned());
    }
    if case.options == HERE {
        return words;
    }
    words.extend(case.options.split_whitespace().map(str::to_owned));
    if !case.options.contains("--from") {
        words.extend(SENDERS.iter().flat_map(|sender| ["--from".to_owned(), (*sender).to_owned()]));
    }
    words
}

/// The findings that do not pass, such as `fail mx_ipv6`, sorted.
fn not_passed(json: &Value) -> Vec<String> {
    let findings = json["findings"].as_array().unwrap().iter();
    let found = findings.map(|one| {
        format!("{} {}", one["outcome"].as_str().unwrap(), one["check"].as_str().unwrap())
    });
    let mut found: Vec<String> = found.filter(|found| !found.starts_with("pass ")).collect();
    found.sort();
    found
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

/// The differences between a case and its result.
fn differs(lab: &Lab, case: &Case) -> Option<String> {
    differs_from(lab, case.name, arguments(case), case.found)
}

/// The differences between what a command line finds and `expected`.
fn differs_from(
    lab: &Lab,
    name: &str,
    mut words: Vec<String>,
    expected: &[&str],
) -> Option<String> {
    words.push("--format=json".to_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let checked = check(lab, &words);
    let wrong =
        |why: &str| Some(format!("{name}: {why}\n{}{}", checked.printed, checked.complained));
    let Ok(json) = serde_json::from_str::<Value>(&checked.printed) else { return wrong("no JSON") };
    if json["domain"].as_str().unwrap().split('.').next() != Some(name) {
        return wrong("another domain");
    }
    let found = not_passed(&json);
    if found != expected {
        return wrong(&format!("expected {expected:?}, found {found:?}"));
    }
    let to_do = |one: &Value| {
        one["outcome"] == "pass" || one["advice"].as_str().is_some_and(|advice| !advice.is_empty())
    };
    if !json["findings"].as_array().unwrap().iter().all(to_do) {
        return wrong("nothing to do");
    }
    (checked.status != status(&found)).then(|| format!("{name}: status {}", checked.status))
}

fn each_domain_has_its_faults_and_no_others() {
    let lab = Lab::new();
    let _site = Site::new(&lab);
    assert!(CASES.len() >= 65, "{} cases", CASES.len());
    let mut wrong = Vec::new();
    for cases in CASES.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let running: Vec<_> =
                cases.iter().map(|case| scope.spawn(|| differs(&lab, case))).collect();
            wrong.extend(running.into_iter().filter_map(|one| one.join().unwrap()));
        });
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));

    special_addresses::have_their_names(&lab);
    prints_text(&lab);
    counts_what_is_wished(&lab);
    page::matches_the_output(&lab);
    reports_a_silent_dns_server(&lab);
    takes_this_hosts_addresses(&lab);
    rejects_invalid_domains(&lab);
    checks_a_domain_without_a_parent(&lab);
}

/// The text without durations and trailing spaces, which vary.
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
                matches!(unit.split(['\n', ':', ',', ')']).next(), Some("ms" | "s" | "µs"))
            });
        steady += if is_time { "N" } else { word };
        steady.push(' ');
    }
    steady.replace("N µs", "N ms").replace("N s", "N ms").trim_end().to_owned() + "\n"
}

/// The text output for a good domain and for faulty ones, at most a hundred columns wide but for shell commands.
fn prints_text(lab: &Lab) {
    let mut text = String::new();
    for name in ["good", "parked", "silent6", "hostile", "voids", "ignored"] {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        let words = arguments(case);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let checked = check(lab, &words);
        for line in checked.printed.lines().filter(|line| !line.trim_start().starts_with("$ ")) {
            assert!(line.chars().count() <= 100, "{line}");
        }
        assert!(!checked.printed.contains('\x1b'), "{}", checked.printed);
        text += &format!("{}\n", steady(&checked.printed));
    }
    insta::assert_snapshot!("text_output", text);
}

/// The exit status for what is to count.
fn counts_what_is_wished(lab: &Lab) {
    let status = |domain: &str, words: &[&str]| {
        let domain = format!("{domain}.{SITE}");
        let always = ["--dns", KNOT, "--timeout=4s", "--from", SENDERS[0], "--from", SENDERS[1]];
        check(lab, &[&[domain.as_str()], &always[..], words].concat()).status
    };
    assert_eq!(status("no-all", &[]), 3);
    assert_eq!(status("no-all", &["--fail-on=unknown"]), 0);
    assert_eq!(status("broken", &["--fail-on=unknown"]), 4);
    assert_eq!(status("broken", &["--fail-on=fail"]), 0);
    assert_eq!(status("plus-all", &["--fail-on=fail"]), 1);
    assert_eq!(status("plus-all", &["--ignore=spf_all"]), 0);
    // It could not run.
    assert_eq!(status("good", &["--postfix", "--postfix-config=/nonexistent"]), 2);
    let misspelt = check(lab, &["good.ready.example", "--ignore=mx_ip6"]);
    assert_eq!(misspelt.status, 2);
    assert!(misspelt.complained.contains("did you mean mx_ipv6?"), "{}", misspelt.complained);
}

/// With a DNS server that does not answer, all findings are unknown.
fn reports_a_silent_dns_server(lab: &Lab) {
    let domain = format!("good.{SITE}");
    let words = [&domain, "--dns", NOBODY, "--timeout=1s", "--from", SENDERS[0], "--format=json"];
    let checked = check(lab, &words);
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
    // The kernel flags the last one itself, as the mail server has that address.
    let detect = "echo 1 > /proc/sys/net/ipv6/conf/server/accept_dad";
    lab.gateway.run(["sh", "-c", detect]);
    lab.gateway.configure(
        "addr add 2001:db8:2::5/64 dev server nodad\n\
         addr add 2001:db8:2::6/64 dev server nodad preferred_lft 0\n\
         addr add 2001:db8:2::25/64 dev server\n",
    );
    until("a duplicate address", || {
        let addresses = lab.gateway.run(["ip", "-6", "addr", "show", "dev", "server"]);
        addresses.contains("2001:db8:2::25/64 scope global dadfailed").then_some(())
    });
    let checked = check(lab, &[&domain, "--dns", KNOT, "--format=json"]);
    let json: Value = serde_json::from_str(&checked.printed).unwrap();
    assert_eq!(json["senders_from"], "interfaces");
    let senders: Vec<&str> =
        json["senders"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    for own in ["2001:db8:1::1", "192.0.2.1", "2001:db8:2::1", "198.51.100.1", "2001:db8:2::5"] {
        assert!(senders.contains(&own), "{senders:?}");
    }
    for unsuitable in ["2001:db8:2::6", "2001:db8:2::25"] {
        assert!(!senders.contains(&unsuitable), "{senders:?}");
    }
    assert!(
        senders.iter().all(|one| !one.starts_with("fe80") && !one.starts_with("127")),
        "{senders:?}"
    );
    for added in [5, 6, 25] {
        lab.gateway.configure(&format!("addr del 2001:db8:2::{added}/64 dev server\n"));
    }
}

fn rejects_invalid_domains(lab: &Lab) {
    for wrong in ["user@ready.example", "2001:db8::1", "192.0.2.1", "a..b", "ready.example/"] {
        let checked = check(lab, &[wrong]);
        assert_eq!(checked.status, 2, "{wrong}");
        assert!(checked.complained.contains("write a domain such as"), "{}", checked.complained);
    }
}

fn checks_a_domain_without_a_parent(lab: &Lab) {
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
    let checked = check(lab, &words);
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
