//! A thousand messages to destinations that are broken over IPv6 in every way: Postfix beside gatepost, and Postfix alone.
//!
//! Prints a table; the counts are checked, the times are not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::dsn_filter::table;
use crate::harness::tests;
use crate::mail_log::TIMEOUTS;
use crate::mail_log::destinations::{self, DESTINATIONS};
use crate::mail_log::server::Seen;
use crate::support::{Config, Gateway, Lab, Mode, Postfix, port, sites, until};

tests![OnRequest: a_thousand_messages];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Healthy over IPv4, unless they have only IPv6.
const NAMES: [&str; 12] = [
    "healthy",
    "only-ipv6",
    "dropping",
    "refusing",
    "unreachable",
    "three",
    "stalls-greeting",
    "greeting-421",
    "google",
    "microsoft",
    "yahoo",
    "tls-fails",
];
/// Those with a working IPv6.
const HEALTHY: usize = 2;
const ROUNDS: usize = 84;
/// About ten messages a second. A time-out takes two.
const PACE: Duration = Duration::from_millis(90);
/// Domains that share the exchange host of `dropping`, one message each.
const SHARED: usize = 20;

/// How Postfix chooses a family.
struct Variant {
    name: &'static str,
    main_cf: &'static str,
    has_gatepost: bool,
}

const VARIANTS: [Variant; 4] = [
    Variant { name: "any + gatepost", main_cf: "smtp_mx_session_limit = 5", has_gatepost: true },
    Variant { name: "any", main_cf: "", has_gatepost: false },
    Variant { name: "ipv6", main_cf: "smtp_address_preference = ipv6", has_gatepost: false },
    Variant { name: "ipv4 only", main_cf: "inet_protocols = ipv4", has_gatepost: false },
];

/// What became of the messages.
#[derive(Debug, Default)]
struct Result {
    sent: usize,
    bounced: usize,
    deferred: usize,
    twice: usize,
    /// Of messages to broken destinations, in seconds, sorted.
    delays: Vec<f64>,
    /// Of messages to `healthy`, over IPv6.
    ipv6: usize,
    /// Connections over IPv6 that timed out.
    timeouts: usize,
}

fn a_thousand_messages() {
    eprintln!(
        "variant         sent bounced deferred twice  p50 s  p95 s  IPv6 at healthy  time-outs"
    );
    let mut p95 = BTreeMap::new();
    for variant in &VARIANTS {
        let result = run(variant);
        let at = |share: usize| result.delays[(result.delays.len() - 1) * share / 100];
        eprintln!(
            "{:<15} {:>4} {:>7} {:>8} {:>5} {:>6.2} {:>6.2}  {:>15} {:>10}",
            variant.name,
            result.sent,
            result.bounced,
            result.deferred,
            result.twice,
            at(50),
            at(95),
            format!("{} of {}", result.ipv6, ROUNDS),
            result.timeouts,
        );
        p95.insert(variant.name, at(95));
        if variant.has_gatepost {
            let all = NAMES.len() * ROUNDS + SHARED;
            assert_eq!((result.sent, result.bounced, result.twice), (all, 0, 0));
            assert!(result.ipv6 > 0, "a healthy destination gets no mail over IPv6");
        }
    }
    let ratio = p95["any + gatepost"] / p95["ipv4 only"];
    eprintln!("95th percentile beside gatepost / over IPv4 only: {ratio:.2}");
}

fn run(variant: &Variant) -> Result {
    let lab = Lab::new();
    let zone = destinations::zone();
    let shared: String = (0..SHARED).map(|n| format!("shared{n} MX 10 mx.dropping\n")).collect();
    let zone = format!("{zone}{shared}");
    let _knot = sites::dns_with(&lab, &[("dest.example", &zone), ("sender.example", "")]);
    destinations::start(&lab, &Seen::default());
    let main_cf = format!(
        "myhostname = mta.sender.example
virtual_mailbox_domains =
disable_dns_lookups = no
smtp_host_lookup = dns
smtp_tls_security_level = may
smtp_connection_cache_on_demand = no
transport_maps = inline:{{ {{ sender.example = discard: }} }}
{TIMEOUTS}{}",
        variant.main_cf
    );
    let postfix = Postfix::start(&lab, &lab.client, "sender", None, &main_cf);
    let _gateway = variant.has_gatepost.then(|| beside(&lab, &postfix));
    let domains = NAMES.map(|name| {
        let known = DESTINATIONS.iter().find(|one| one.name == name);
        known.unwrap().domain()
    });
    let mut submitted = 0;
    for round in 0..ROUNDS {
        for domain in &domains {
            submit(&lab, &format!("bob{round}@{domain}"));
            thread::sleep(PACE);
        }
        submitted += domains.len();
        if round == 0 {
            // Whoever learns anything learns it from these.
            wait(&postfix, submitted, variant.has_gatepost);
        }
    }
    for n in 0..SHARED {
        submit(&lab, &format!("bob@shared{n}.dest.example"));
    }
    wait(&postfix, submitted + SHARED, variant.has_gatepost);
    evaluate(&postfix.log())
}

/// Sets Postfix up as the documents say, and starts a gateway that reads its log.
fn beside<'lab>(lab: &'lab Lab, postfix: &Postfix<'_>) -> Gateway<'lab> {
    let directory = postfix.config_directory();
    let config = Config::new(lab, Mode::Proxy)
        .without("listen")
        .without("upstream")
        .set("lookup", &format!("dns = [\"{}\"]", sites::NAMESERVER))
        .set("outbound", &format!("map = \"unix:{}\"", lab.path("outbound.sock").display()))
        .set("outbound", &format!("mail_log = {:?}", postfix.log_file()))
        .set("outbound", &format!("config_directory = {directory:?}"));
    let gateway = Gateway::start(lab, &config);
    let (file, directory) = (gateway.file().to_str().unwrap(), directory.to_str().unwrap());
    let commands = lab.client.run([
        GATEPOST,
        "postfix",
        "install",
        "--dry-run",
        "-c",
        file,
        "--postfix-config",
        directory,
    ]);
    lab.client.run(["sh", "-e", "-c", &commands]);
    let filter =
        format!("smtp_delivery_status_filter = regexp:{}", table(lab.folder("filter")).display());
    lab.client.run(["postconf", "-c", directory, "-e", &filter]);
    lab.client.run(["postfix", "-c", directory, "reload"]);
    gateway
}

fn submit(lab: &Lab, recipient: &str) {
    let mut smtp = lab.client.smtp(SocketAddr::new([127, 0, 0, 1].into(), port::DIRECT));
    smtp.greeting();
    smtp.ask("EHLO desk.sender.example");
    smtp.ask("MAIL FROM:<alice@sender.example>");
    assert_eq!(smtp.ask(&format!("RCPT TO:<{recipient}>")).code, 250, "{recipient}");
    assert_eq!(smtp.data(&sites::message(1000)).code, 250);
    smtp.ask("QUIT");
}

/// Waits until each of the messages was tried, or sent.
fn wait(postfix: &Postfix<'_>, messages: usize, sent: bool) {
    until(format_args!("the results of {messages} messages"), || {
        let results = results(&postfix.log());
        let done = results.values().filter(|all| !sent || all.contains(&"sent".to_owned()));
        (done.count() >= messages).then_some(())
    });
}

/// `status=` of the lines of smtp(8), by queue id, without bounces.
fn results(log: &str) -> BTreeMap<String, Vec<String>> {
    let mut results: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("/smtp[")) {
        let (Some(id), Some(status)) = (queue_id(line), word(line, " status=")) else { continue };
        results.entry(id.to_owned()).or_default().push(status.to_owned());
    }
    results
}

fn queue_id(line: &str) -> Option<&str> {
    line.split("]: ").nth(1)?.split(':').next()
}

fn word<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    let rest = &line[line.find(before)? + before.len()..];
    rest.split([' ', ',']).next()
}

fn evaluate(log: &str) -> Result {
    let mut result = Result::default();
    for statuses in results(log).values() {
        let count = |wanted: &str| statuses.iter().filter(|status| *status == wanted).count();
        result.sent += usize::from(count("sent") > 0);
        result.twice += usize::from(count("sent") > 1);
        result.bounced += usize::from(count("bounced") > 0);
        result.deferred += usize::from(count("sent") + count("bounced") == 0);
    }
    for line in log.lines().filter(|line| line.contains("/smtp[")) {
        result.timeouts +=
            usize::from(line.contains("Connection timed out") && line.contains("2001:"));
        if word(line, " status=") != Some("sent") {
            continue;
        }
        let domain = line.split_once('@').map_or("", |(_, rest)| rest);
        if domain.starts_with("healthy.") {
            result.ipv6 += usize::from(line.contains("[2001:"));
        }
        if !NAMES[..HEALTHY].iter().any(|name| domain.starts_with(&format!("{name}."))) {
            result.delays.push(word(line, ", delay=").unwrap().parse().unwrap());
        }
    }
    result.delays.sort_by(f64::total_cmp);
    result
}
