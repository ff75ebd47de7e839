//! Outbound canaries: the gateway sends pairs to a mailbox on the vantage's side, behind a filter that marks IPv6 mail or not, and
//! fetches the reports from the vantage.

use std::fs;
use std::thread;
use std::time::Duration;

use super::{CANARY, GATEPOST, with_mailbox_at};
use crate::harness::tests;
use crate::support::rspamd::{self, Filter, MILTER};
use crate::support::sites::dns_with;
use crate::support::{Config, DOMAIN, Gateway, Lab, Mode, Postfix, Process, until};

tests![
    a_filter_of_another_site_is_reported_and_ipv4_preferred,
    a_healthy_filter_of_another_site_changes_nothing,
];

const NAMESERVER: &str = "[2001:db8:53::53]:53";
const VANTAGE: &str = "[2001:db8:1::10]:9626";
/// The exchange of the other site is the lab's server.
const THEIR_ZONE: &str = "@ MX 10 mx\nmx A 198.51.100.25\nmx AAAA 2001:db8:2::25\n";
const OUTBOUND: &str = "direction=\"outbound\"";

struct Sites<'lab> {
    gateway: Gateway<'lab>,
    config: Config,
    _postfix: Postfix<'lab>,
    _processes: Vec<Process>,
}

fn start(lab: &Lab, filter: Filter) -> Sites<'_> {
    let rspamd = rspamd::start_filter(lab, &lab.server, "rspamd", filter);
    let main_cf = format!("smtpd_milters = inet:{MILTER}\nmilter_default_action = tempfail\n");
    let postfix = Postfix::start(lab, &lab.server, "postfix", None, &main_cf);
    with_mailbox_at(lab, &postfix);
    let key = lab.path("canary.key");
    fs::write(&key, "0123456789abcdef".repeat(4)).unwrap();
    let key = key.to_str().unwrap();
    let reports = lab.folder("reports");
    let reports = reports.to_str().unwrap();
    let words = [GATEPOST, "vantage", "--listen", VANTAGE, "--key", key, "--domain", "example.net"];
    let vantage = words.into_iter().chain([
        "--dns",
        NAMESERVER,
        "--hostname",
        "vantage.example.net",
        "--canary-reports",
        reports,
    ]);
    let vantage = lab.client.spawn(vantage);
    until("a vantage", || vantage.log().contains("probes ").then_some(()));
    let mailbox = postfix.config_directory().join("../mail/inbox");
    let receiver = lab.server.spawn([
        GATEPOST,
        "canary",
        "receive",
        "--key",
        key,
        "--to",
        CANARY,
        "--reports",
        reports,
        "--maildir",
        mailbox.to_str().unwrap(),
    ]);
    let map = lab.path("map");
    let config = Config::new(lab, Mode::Proxy)
        .set("lookup", &format!("dns = [{NAMESERVER:?}]"))
        .set("lookup", &format!("cache_file = {:?}", lab.path("facts.redb")))
        .set("vantage", &format!("address = {VANTAGE:?}"))
        .set("vantage", &format!("key_file = {key:?}"))
        .set("vantage", "domains = [\"example.net\"]")
        .set("outbound", &format!("map = \"unix:{}\"", map.display()))
        .set("canary", &format!("key_file = {key:?}"))
        .set("canary", "inbound_to = \"canary@example.net\"")
        .set("canary", &format!("outbound_to = {CANARY:?}"))
        .set("canary", "outbound_from = \"postmaster@example.net\"")
        .set("canary", "prefer_ipv4 = true")
        .set("canary", "interval = \"5s\"")
        .set("canary", "timeout = \"30s\"")
        .set("status", "hosts = [\"lab\"]");
    let gateway = Gateway::start(lab, &config);
    Sites { gateway, config, _postfix: postfix, _processes: vec![rspamd, vantage, receiver] }
}

/// The answers to Postfix's questions about the addresses of the other site's exchange.
fn answers(lab: &Lab) -> String {
    let question = |record: &str| {
        let content = format!("dns mx.{DOMAIN}. 60 IN {record}");
        format!("{}:{content},", content.len())
    };
    let both = question("A 198.51.100.25") + &question("AAAA 2001:db8:2::25");
    let map = lab.path("map");
    let command =
        format!("printf '%s' '{both}' | {GATEPOST} postfix map --socket {}", map.display());
    lab.gateway.run(["sh", "-c", &command])
}

fn a_filter_of_another_site_is_reported_and_ipv4_preferred() {
    let lab = Lab::new();
    let _dns = dns_with(&lab, &[(DOMAIN, THEIR_ZONE)]);
    let mut site = start(&lab, Filter::MarksIpv6);
    let gateway = &site.gateway;
    let (socket, host) = (site.config.socket().to_str().unwrap(), format!("mx.{DOMAIN}"));
    let report = |words: &[&str]| {
        let command = [GATEPOST, "outbound", "--socket", socket];
        lab.gateway.run(command.iter().chain(words))
    };
    assert!(!report(&[]).contains("canaries"), "nothing is known yet");
    assert!(!answers(&lab).contains("IGNORE"), "nothing is known yet");
    gateway.wait_for_metric("gatepost_canary_ipv6_parity", &[OUTBOUND], 0.0);
    let log = gateway.wait_for_log(", outbound: IPv6 mail is treated worse");
    assert!(log.contains("the message over IPv6 was marked as spam"), "{log}");
    let marked = ["family=\"ipv6\"", OUTBOUND, "outcome=\"marked_spam\""];
    assert!(gateway.metric("gatepost_canary_messages_total", &marked) >= 1.0);
    assert!(gateway.page().contains("Canaries, outbound: IPv6 mail is treated worse"));
    until("a preference for IPv4", || answers(&lab).contains("OK IGNORE").then_some(()));
    for words in [&[][..], &[DOMAIN], &[&host]] {
        // Its lines have at most 100 columns.
        let text = report(words).replace('\n', " ");
        assert!(text.contains(&format!("Mail to {host} uses IPv4 where there is any")), "{text}");
        assert!(text.contains("because of canaries") && text.contains("marked as spam"), "{text}");
    }
    assert!(!report(&["other.example"]).contains("because of canaries"));
    let json = report(&["--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let preference = &json["canary_preference"];
    assert_eq!(preference["domain"], DOMAIN, "{json:#}");
    assert_eq!(preference["hosts"][0], host, "{json:#}");
    assert!(preference["reason"].as_str().unwrap().contains("marked as spam"), "{json:#}");
    // Inbound mail is another matter.
    assert_eq!(gateway.metric("gatepost_canary_ipv6_parity", &["direction=\"inbound\""]), -1.0);
    // The preference outlives the process. The cache file is written once a second.
    thread::sleep(Duration::from_millis(2500));
    site.gateway.kill_and_start_again();
    until("the preference again", || answers(&lab).contains("OK IGNORE").then_some(()));
    assert!(!site.gateway.log().contains("IPv6 mail is treated worse"), "before another pair");
}

fn a_healthy_filter_of_another_site_changes_nothing() {
    let lab = Lab::new();
    let _dns = dns_with(&lab, &[(DOMAIN, THEIR_ZONE)]);
    let site = start(&lab, Filter::Healthy);
    let gateway = &site.gateway;
    let clean = |family: &str| {
        let labels = [family, OUTBOUND, "outcome=\"clean\""];
        gateway.metric("gatepost_canary_messages_total", &labels)
    };
    until("two pairs", || (clean("family=\"ipv6\"") >= 2.0).then_some(()));
    assert!(clean("family=\"ipv4\"") >= 2.0);
    let total = gateway.metric("gatepost_canary_messages_total", &[]);
    assert_eq!(total, clean("family=\"ipv4\"") + clean("family=\"ipv6\""));
    assert_eq!(gateway.metric("gatepost_canary_ipv6_parity", &[OUTBOUND]), 1.0);
    assert!(!answers(&lab).contains("IGNORE"));
}
