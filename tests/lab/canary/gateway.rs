//! The whole loop: a vantage sends pairs on the gateway's schedule, the mailbox reports them, and the gateway shows by metric,
//! status page, sign and door what a filter behind it does with IPv6 mail.

use std::fs;

use super::{CANARY, GATEPOST, with_mailbox_at};
use crate::harness::tests;
use crate::support::rspamd::{self, Filter, MILTER};
use crate::support::sites::dns_with;
use crate::support::{Config, DOMAIN, Gateway, Lab, Mode, Postfix, Process, port, until};

tests![
    a_filter_before_the_gateway_is_reported,
    a_filter_behind_the_gateway_is_reported_within_one_schedule_and_closes_the_door,
    a_healthy_filter_behind_the_gateway_is_treated_as_such,
];

const NAMESERVER: &str = "[2001:db8:53::53]:53";
const VANTAGE: &str = "[2001:db8:1::10]:9626";
/// The exchange of our domain is the gateway.
pub(super) const OUR_ZONE: &str = "@ MX 10 mx\nmx A 192.0.2.1\nmx AAAA 2001:db8:1::1\n";
pub(super) const INBOUND: &str = "direction=\"inbound\"";

pub(super) struct Loop<'lab> {
    pub(super) gateway: Gateway<'lab>,
    _postfixes: (Postfix<'lab>, Option<Postfix<'lab>>),
    _filter: Process,
    pub(super) vantage: Process,
    /// `gatepost canary receive` beside the mailbox.
    pub(super) receiver: Process,
    receive: Vec<String>,
    pub(super) config: Config,
}

impl Loop<'_> {
    /// Starts the receiver again, which has ended.
    pub(super) fn receive_again(&mut self, lab: &Lab) {
        self.receiver = lab.server.spawn(&self.receive);
    }
}

/// Where the filter stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// An appliance is the mail exchange, and passes mail on to the gateway.
    Before,
    Behind,
}

/// The gateway's listener for an appliance.
const INSIDE: &str = "127.0.0.1:2526";

/// Starts everything; a pair is sent every 5 s.
fn start(lab: &Lab, filter: Filter, place: Place) -> Loop<'_> {
    start_with(lab, filter, place, &["interval = \"5s\"", "per_day = 1000"])
}

/// Starts everything, with these lines in `[canary]`.
pub(super) fn start_with<'lab>(
    lab: &'lab Lab,
    filter: Filter,
    place: Place,
    schedule: &[&str],
) -> Loop<'lab> {
    let host = if place == Place::Before { &lab.gateway } else { &lab.server };
    let rspamd = rspamd::start_filter(lab, host, "rspamd", filter);
    let milter = format!("smtpd_milters = inet:{MILTER}\nmilter_default_action = tempfail\n");
    let main_cf = if place == Place::Before { "" } else { &milter };
    let postfix = Postfix::start(lab, &lab.server, "postfix", None, main_cf);
    let appliance = (place == Place::Before).then(|| {
        let relays = format!(
            "{milter}virtual_mailbox_domains =\nrelay_domains = {DOMAIN}\n\
             transport_maps = inline:{{{DOMAIN}=smtp:[127.0.0.1]:2526}}\nqueue_run_delay = 2s\n"
        );
        Postfix::start(lab, &lab.gateway, "appliance", None, &relays)
    });
    with_mailbox_at(lab, &postfix);
    let key = lab.path("canary.key");
    fs::write(&key, "0123456789abcdef".repeat(4)).unwrap();
    let key = key.to_str().unwrap();
    let vantage = lab.client.spawn([
        GATEPOST,
        "vantage",
        "--listen",
        VANTAGE,
        "--key",
        key,
        "--domain",
        "example.org",
        "--dns",
        NAMESERVER,
        "--hostname",
        "vantage.example.net",
        "--canary-from",
        "check@example.net",
    ]);
    until("a vantage", || vantage.log().contains("probes ").then_some(()));
    let config = Config::new(lab, Mode::Proxy)
        .upstream_port(lab, port::PROXY_PROTOCOL)
        .set("upstream", "identity = \"proxy-v2\"")
        .set("lookup", &format!("dns = [{NAMESERVER:?}]"))
        .set("vantage", &format!("address = {VANTAGE:?}"))
        .set("vantage", &format!("key_file = {key:?}"))
        .set("vantage", "domains = [\"example.org\"]")
        .set("canary", &format!("key_file = {key:?}"))
        .set("canary", &format!("inbound_to = {CANARY:?}"))
        .set("canary", "timeout = \"30s\"")
        .set("lookup", &format!("cache_file = {:?}", lab.path("facts.redb")))
        .set("status", "hosts = [\"lab\"]")
        .set("door", "refuse = \"smtp\"")
        .set("door.ipv6", "spam_parity = \"close\"")
        .set("door.ipv6", "grace = \"1s\"")
        .set("door.ipv6", "min_hold = \"1s\"");
    let config = schedule.iter().fold(config, |config, line| config.set("canary", line));
    let config = match place {
        Place::Before => config.listen(&[INSIDE.parse().unwrap()]),
        Place::Behind => config,
    };
    let mailbox = postfix.config_directory().join("../mail/inbox");
    let receive = [
        GATEPOST,
        "canary",
        "receive",
        "--key",
        key,
        "--to",
        CANARY,
        "--socket",
        config.socket().to_str().unwrap(),
        "--maildir",
        mailbox.to_str().unwrap(),
    ];
    let receive = receive.map(str::to_owned).to_vec();
    let receiver = lab.server.spawn(&receive);
    let gateway = Gateway::start(lab, &config);
    let _postfixes = (postfix, appliance);
    Loop { gateway, _postfixes, _filter: rspamd, vantage, receiver, receive, config }
}

/// The gateway sees all mail over IPv4 then; the canaries show what the appliance did with it.
fn a_filter_before_the_gateway_is_reported() {
    let lab = Lab::new();
    let _dns = dns_with(&lab, &[(DOMAIN, OUR_ZONE)]);
    let site = start(&lab, Filter::MarksIpv6, Place::Before);
    let gateway = &site.gateway;
    gateway.wait_for_log("IPv6 mail is treated worse: the message over IPv6 was marked as spam");
    gateway.wait_for_metric("gatepost_canary_ipv6_parity", &[INBOUND], 0.0);
    assert!(
        gateway.page().contains("marked by rspamd (X-Spam: Yes), before the gateway"),
        "{}",
        gateway.page()
    );
    assert_eq!(gateway.metric("gatepost_sessions_total", &["family=\"ipv6\""]), 0.0);
}

fn a_filter_behind_the_gateway_is_reported_within_one_schedule_and_closes_the_door() {
    let lab = Lab::new();
    let _dns = dns_with(&lab, &[(DOMAIN, OUR_ZONE)]);
    let site = start(&lab, Filter::MarksIpv6, Place::Behind);
    let gateway = &site.gateway;
    gateway.wait_for_log("IPv6 mail is treated worse: the message over IPv6 was marked as spam");
    gateway.wait_for_metric("gatepost_canary_ipv6_parity", &[INBOUND], 0.0);
    let marked = ["family=\"ipv6\"", INBOUND, "outcome=\"marked_spam\""];
    assert!(gateway.metric("gatepost_canary_messages_total", &marked) >= 1.0);
    let clean = ["family=\"ipv4\"", INBOUND, "outcome=\"clean\""];
    assert!(gateway.metric("gatepost_canary_messages_total", &clean) >= 1.0);
    let page = gateway.page();
    let sentence = "the message over IPv6 was marked as spam, the one over IPv4 arrived without a mark; \
        marked by rspamd (X-Spam: Yes), behind the gateway";
    assert!(page.contains(sentence), "{page}");
    gateway.wait_for_log("door ipv6: closed");
    let socket = site.config.socket().to_str().unwrap();
    let door = lab.gateway.run([GATEPOST, "door", "--socket", socket]);
    assert!(door.contains("CLOSED") && door.contains("was marked as spam"), "{door}");
    // The vantage passes the closed door, so that the filter's repair will be seen.
    let before = gateway.metric("gatepost_canary_messages_total", &marked);
    until("a canary through the closed door", || {
        (gateway.metric("gatepost_canary_messages_total", &marked) > before).then_some(())
    });
}

fn a_healthy_filter_behind_the_gateway_is_treated_as_such() {
    let lab = Lab::new();
    let _dns = dns_with(&lab, &[(DOMAIN, OUR_ZONE)]);
    let site = start(&lab, Filter::Healthy, Place::Behind);
    let gateway = &site.gateway;
    let clean = |family: &str| {
        let labels = [family, INBOUND, "outcome=\"clean\""];
        gateway.metric("gatepost_canary_messages_total", &labels)
    };
    until("three pairs", || (clean("family=\"ipv6\"") >= 3.0).then_some(()));
    assert!(clean("family=\"ipv4\"") >= 3.0);
    assert_eq!(gateway.metric("gatepost_canary_ipv6_parity", &[INBOUND]), 1.0);
    let total = gateway.metric("gatepost_canary_messages_total", &[]);
    assert_eq!(total, clean("family=\"ipv4\"") + clean("family=\"ipv6\""));
    let log = gateway.log();
    assert!(!log.contains("treated worse") && !log.contains("door ipv6: clos"), "{log}");
    assert!(
        gateway.page().contains("Both messages were treated alike: each arrived without a mark")
    );
}
