//! The gateway is killed and started again, or reads its configuration again: results, pairs that wait and the limit of a day
//! stay.

use std::fs;
use std::thread;
use std::time::Duration;

use super::CANARY;
use super::gateway::{INBOUND, Loop, OUR_ZONE, Place, start_with};
use crate::harness::tests;
use crate::support::rspamd::Filter;
use crate::support::sites::dns_with;
use crate::support::{DOMAIN, Gateway, Lab, until};

tests![
    a_result_and_the_limit_of_a_day_survive_kill_9,
    a_pair_that_waits_at_a_restart_goes_on_waiting,
    a_reload_applies_the_section,
];

/// One pair, 5 s after the start.
const ONE_PAIR: [&str; 2] = ["interval = \"5s\"", "per_day = 1"];
const PARITY: &str = "gatepost_canary_ipv6_parity";
const SENTENCE: &str = "the message over IPv6 was marked as spam, the one over IPv4 arrived without a mark; \
    marked by rspamd (X-Spam: Yes), behind the gateway";

/// The ids of the pairs that the vantage sent.
fn sent(site: &Loop<'_>) -> Vec<String> {
    let log = site.vantage.log();
    let ids = log.lines().filter_map(|line| line.split_once("sent canaries ")?.1.split(' ').next());
    ids.map(str::to_owned).collect()
}

/// The page is as it was up to a second ago.
fn on_page(gateway: &Gateway<'_>, text: &str) {
    until(text, || gateway.page().contains(text).then_some(()));
}

fn a_result_and_the_limit_of_a_day_survive_kill_9() {
    let lab = Lab::new();
    let _dns = dns_with(&lab, &[(DOMAIN, OUR_ZONE)]);
    let mut site = start_with(&lab, Filter::MarksIpv6, Place::Behind, &ONE_PAIR);
    site.gateway.wait_for_metric(PARITY, &[INBOUND], 0.0);
    on_page(&site.gateway, SENTENCE);
    // The cache file is written once a second.
    thread::sleep(Duration::from_millis(2500));
    for _ in 0..3 {
        site.gateway.kill_and_start_again();
        assert_eq!(site.gateway.metric(PARITY, &[INBOUND]), 0.0);
        on_page(&site.gateway, SENTENCE);
        let log = site.gateway.wait_for_log("door ipv6: closed");
        assert!(log.contains("was marked as spam"), "{log}");
        assert!(!log.contains("canaries cannot be read"), "{log}");
        // A pair would be sent 5 s after the start.
        thread::sleep(Duration::from_secs(7));
        assert_eq!(sent(&site).len(), 1, "{}", site.vantage.log());
    }
    // Nothing else kept it from sending.
    site.gateway.kill();
    fs::remove_file(lab.path("facts.redb")).unwrap();
    site.gateway.start_again();
    assert_eq!(site.gateway.metric(PARITY, &[INBOUND]), -1.0);
    until("another pair", || (sent(&site).len() == 2).then_some(()));
    // It counts from before it was sent.
    site.gateway.kill_and_start_again();
    thread::sleep(Duration::from_secs(7));
    assert_eq!(sent(&site).len(), 2, "{}", site.vantage.log());
}

fn a_pair_that_waits_at_a_restart_goes_on_waiting() {
    let lab = Lab::new();
    let _dns = dns_with(&lab, &[(DOMAIN, OUR_ZONE)]);
    let mut site = start_with(&lab, Filter::MarksIpv6, Place::Behind, &ONE_PAIR);
    site.receiver.kill();
    let pair = until("a pair", || sent(&site).pop());
    // The cache file is written once a second.
    thread::sleep(Duration::from_millis(2500));
    let waits = "Reports about the first pair are due.";
    on_page(&site.gateway, waits);
    site.gateway.kill_and_start_again();
    on_page(&site.gateway, waits);
    assert_eq!(site.gateway.metric(PARITY, &[INBOUND]), -1.0);
    site.receive_again(&lab);
    let result = format!(
        "canaries {pair}, inbound: IPv6 mail is treated worse: the message over IPv6 was marked"
    );
    site.gateway.wait_for_log(&result);
    site.gateway.wait_for_metric(PARITY, &[INBOUND], 0.0);
    // What passed before the restart shows where the filter stands.
    on_page(&site.gateway, SENTENCE);
    assert_eq!(sent(&site).len(), 1);
}

fn a_reload_applies_the_section() {
    let lab = Lab::new();
    let _dns = dns_with(&lab, &[(DOMAIN, OUR_ZONE)]);
    let site = start_with(&lab, Filter::MarksIpv6, Place::Behind, &[]);
    let gateway = &site.gateway;
    let reload = |toml: &str| {
        let reloads = || gateway.log().matches("configuration reloaded").count();
        let before = reloads();
        gateway.reload(toml);
        until("a reload", || (reloads() > before).then_some(()));
    };
    let scheduled = site.config.clone().set("canary", "interval = \"5s\"");
    reload(&scheduled.toml());
    gateway.wait_for_metric(PARITY, &[INBOUND], 0.0);
    on_page(gateway, SENTENCE);

    // A key that cannot be read: the old configuration stays in force as a whole.
    let key = lab.path("canary.key");
    let missing = lab.path("missing.key");
    let (key, missing) = (key.to_str().unwrap(), missing.to_str().unwrap());
    let toml = scheduled.toml();
    let (before, canary) = toml.split_once("[canary]").unwrap();
    gateway.reload(&format!("{before}[canary]{}", canary.replacen(key, missing, 1)));
    gateway.wait_for_log(
        "not reloaded, the old one stays in force: canary.key_file: cannot read the key",
    );
    let pairs = sent(&site).len();
    until("another pair", || (sent(&site).len() > pairs).then_some(()));

    // The results are about another mailbox.
    reload(&toml.replace(CANARY, "other@example.org"));
    assert_eq!(gateway.metric(PARITY, &[INBOUND]), -1.0);
    on_page(gateway, "None yet.");

    reload(&scheduled.clone().without("canary").toml());
    until("a page without canaries", || (!gateway.page().contains("Canaries")).then_some(()));
    let pairs = sent(&site).len();
    thread::sleep(Duration::from_secs(7));
    assert_eq!(sent(&site).len(), pairs);
    let log = gateway.log();
    assert!(!log.contains("restart gatepost"), "{log}");
}
