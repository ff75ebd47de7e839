//! `/probe`: domains as a real Prometheus sees them, with the scrape job, the alerts and the dashboard of `dashboards/`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::site;
use crate::dashboards::board::{FOLDER, boards};
use crate::dashboards::prometheus::Prometheus;
use crate::harness::tests;
use crate::support::world::{KNOT, knot};
use crate::support::{
    Authority, CertificateRequest, Config, KeyType, Lab, METRICS, Mode, Postfix, Process, Validity,
    until,
};

tests![
    prometheus_sees_what_fails_and_its_alert_fires,
    listed_domains_are_checked_once_for_all_scrapers,
    a_vantage_serves_its_domains
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const VANTAGE: &str = "[::1]:9627";

/// Two domains with servers: of `dead.example` the only exchange is silent over IPv6. Other hosts send their mail.
const ZONES: [(&str, &str); 3] = [
    (
        "good.example",
        "@ MX 10 mx\n@ TXT \"v=spf1 ip4:203.0.113.77 ip6:2001:db8:c::77 -all\"\n\
         _dmarc TXT \"v=DMARC1; p=reject; rua=mailto:dmarc@good.example\"\n\
         mx A 198.51.100.25\nmx AAAA 2001:db8:2::25\n",
    ),
    (
        "dead.example",
        "@ MX 10 mx\n@ TXT \"v=spf1 ip4:203.0.113.77 ip6:2001:db8:c::77 -all\"\n\
         _dmarc TXT \"v=DMARC1; p=reject; rua=mailto:dmarc@dead.example\"\n\
         mx A 198.51.100.26\nmx AAAA 2001:db8:2::26\n",
    ),
    ("example", "ns.client AAAA 2001:db8:53::53\n"),
];

/// Mail servers, their zones, and a count of the connections to that of `good.example`.
pub(crate) struct CheckedSite<'lab> {
    lab: &'lab Lab,
    _knot: Process,
    _mx: Postfix<'lab>,
}

impl<'lab> CheckedSite<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        for added in ["2001:db8:2::26/64 dev gateway nodad", "198.51.100.26/24 dev gateway"] {
            lab.server.configure(&format!("addr add {added}\n"));
        }
        let authority = Authority::new(lab.folder("ca"), "mx.good.example");
        assert_eq!(authority.certificate(), site::trusted(lab));
        let issued = authority.issue(&CertificateRequest {
            file: "mx",
            names: &["mx.good.example", "mx.dead.example"],
            key: KeyType::EcdsaP256,
            validity: Validity::Days(60),
        });
        let main_cf = format!(
            "myhostname = mx.good.example\ninet_interfaces = 198.51.100.25, 2001:db8:2::25, 198.51.100.26, 2001:db8:2::26\n\
             virtual_mailbox_domains = static:all\n{}",
            site::tls(&issued.fullchain, &issued.key)
        );
        let mx = Postfix::start(lab, &lab.server, "mx", None, &main_cf);
        lab.server.run([
            "nft",
            "table inet monitoring {
               counter connections { }
               chain input {
                 type filter hook input priority 0;
                 ip6 daddr 2001:db8:2::26 tcp dport 25 drop
                 ip daddr 198.51.100.25 tcp dport 25 tcp flags & (syn | ack) == syn counter name connections
               }
             }",
        ]);
        let zones = ZONES.map(|(name, records)| (name.to_owned(), records.to_owned()));
        let knot = knot(lab, &BTreeMap::from(zones), &[]);
        Self { lab, _knot: knot, _mx: mx }
    }

    /// A gateway that checks the domains, with further lines of `[metrics]`.
    pub(crate) fn gateway(&self, lines: &str) -> Process {
        let config = Config::new(self.lab, Mode::Proxy)
            .set("lookup", &format!("dns = [{KNOT:?}]"))
            .set("metrics", "probe_domains = [\"good.example\", \"dead.example\"]")
            .set("metrics", lines);
        let file = self.lab.path("checking.toml");
        fs::write(&file, config.toml()).unwrap();
        self.start(&["run", "--config", file.to_str().unwrap()], "ready: ")
    }

    /// Where the site's authority is trusted.
    fn start(&self, words: &[&str], ready: &str) -> Process {
        let trusted = format!("SSL_CERT_FILE={}", site::trusted(self.lab).display());
        let command = ["env", &trusted, GATEPOST].into_iter().chain(words.iter().copied());
        let mut process = self.lab.gateway.spawn(command);
        until(format_args!("{ready:?} in the log"), || {
            assert!(!process.has_ended(), "{}", process.log());
            process.log().contains(ready).then_some(())
        });
        process
    }

    /// Connections to the server of `good.example` over IPv4 so far.
    fn connections(&self) -> u64 {
        let counter = self.lab.server.run(["nft", "list counter inet monitoring connections"]);
        let (_, packets) = counter.split_once("packets ").unwrap();
        packets.split(' ').next().unwrap().parse().unwrap()
    }
}

/// Status and body.
fn get(lab: &Lab, at: &str, path: &str) -> (u16, String) {
    let at: SocketAddr = at.parse().unwrap();
    let mut stream = lab.gateway.connect(at).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of the only series that begins so.
fn value(body: &str, series: &str) -> f64 {
    let line = body.lines().find_map(|line| line.strip_prefix(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in {body}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The configuration of `dashboards/`, with the domains to check, at other intervals.
pub(crate) fn prometheus_with<'lab>(
    lab: &'lab Lab,
    targets: &[&str],
    interval: &str,
) -> Prometheus<'lab> {
    let source = Path::new(FOLDER).join("prometheus");
    let example = fs::read_to_string(source.join("prometheus.yml")).unwrap();
    let mut text = example;
    for (old, new) in [
        ("- targets: []", format!("- targets: {targets:?}")),
        ("localhost:9625", METRICS.to_owned()),
        ("scrape_interval: 15s", "scrape_interval: 1s".to_owned()),
        ("evaluation_interval: 15s", "evaluation_interval: 1s".to_owned()),
        ("scrape_interval: 2m", format!("scrape_interval: {interval}")),
        ("scrape_timeout: 35s", format!("scrape_timeout: {interval}")),
    ] {
        assert!(text.contains(old), "{old}");
        text = text.replace(old, &new);
    }
    let folder = lab.folder("prometheus");
    fs::copy(source.join("recording.yml"), folder.join("recording.yml")).unwrap();
    // The time of the alert about domains, which a test of the rules shows.
    let alerts = fs::read_to_string(source.join("alerts.yml")).unwrap();
    let (others, of_domains) = alerts.split_once("- name: gatepost checked domains").unwrap();
    assert_eq!(of_domains.matches("for: 15m").count(), 2);
    let of_domains = of_domains.replace("for: 15m", "for: 2s");
    let alerts = format!("{others}- name: gatepost checked domains{of_domains}");
    fs::write(folder.join("alerts.yml"), alerts).unwrap();
    Prometheus::start_with(lab, &folder, &text)
}

fn prometheus_sees_what_fails_and_its_alert_fires() {
    let lab = Lab::new();
    let site = CheckedSite::new(&lab);
    let gateway = site.gateway("probe_controls = [\"mx.good.example\"]\nprobe_cache_time = \"5s\"");
    let domains = ["good.example", "dead.example", "other.example"];
    let prometheus = prometheus_with(&lab, &domains, "12s");
    let job = "job=\"gatepost-check\"";
    prometheus.wait_for(&format!("up{{{job}, instance=\"good.example\"}} == 1"));
    prometheus.wait_for(&format!("up{{{job}, instance=\"dead.example\"}} == 1"));
    prometheus.wait_for(&format!("up{{{job}, instance=\"other.example\"}} == 0"));
    prometheus
        .wait_for("gatepost_check_ready{domain=\"good.example\", instance=\"good.example\"} == 1");
    prometheus.wait_for("gatepost_check_ready{domain=\"dead.example\"} == 0");

    let mut failing: Vec<String> = prometheus
        .labels("gatepost_check_finding{outcome=\"fail\"} == 1")
        .iter()
        .map(|labels| {
            let label = |name: &str| labels[name].as_str().unwrap_or("-").to_owned();
            ["domain", "check", "exchange", "address", "family"].map(label).join(" ")
        })
        .collect();
    failing.sort();
    assert_eq!(
        failing,
        [
            "dead.example smtp_connect mx.dead.example 2001:db8:2::26 ipv6",
            "dead.example smtp_families mx.dead.example - ipv6",
        ],
        "{}",
        gateway.log()
    );
    assert!(prometheus.labels("gatepost_check_finding{outcome=\"unknown\"} == 1").is_empty());
    // Each check has one outcome.
    let outcomes = "sum without (outcome) (gatepost_check_finding) != 1";
    assert!(prometheus.labels(outcomes).is_empty());

    let connected = |domain: &str| {
        let seconds = format!("gatepost_check_connect_seconds{{domain=\"{domain}\"}} > 0");
        let mut families: Vec<String> = prometheus
            .labels(&seconds)
            .iter()
            .map(|labels| labels["family"].as_str().unwrap().to_owned())
            .collect();
        families.sort();
        families
    };
    assert_eq!(connected("good.example"), ["ipv4", "ipv6"]);
    assert_eq!(connected("dead.example"), ["ipv4"]);
    for expr in [
        "gatepost_check_path_mtu_bytes{domain=\"good.example\", family=\"ipv6\"} == 1500",
        "gatepost_check_greeting_seconds{exchange=\"mx.good.example\", address=\"198.51.100.25\"} > 0",
        "gatepost_check_ehlo_seconds{exchange=\"mx.good.example\", address=\"2001:db8:2::25\"} > 0",
        "time() - gatepost_check_timestamp_seconds < 60",
        "gatepost_check_duration_seconds{domain=\"dead.example\"} > 1",
        "gatepost_check_certificate_not_after_timestamp_seconds{domain=\"good.example\"} - time() > 59 * 86400",
    ] {
        assert!(!prometheus.labels(expr).is_empty(), "{expr}");
    }

    // The unlisted domain cannot be checked; nothing is known of it.
    prometheus.wait_for(
        "count(ALERTS{alertname=\"GatepostDomainFails\", alertstate=\"firing\", domain=\"dead.example\", family=\"ipv6\"}) == 2",
    );
    prometheus.wait_for(
        "ALERTS{alertname=\"GatepostDomainUnknown\", alertstate=\"firing\", instance=\"other.example\"}",
    );
    let others = "ALERTS{alertname=~\"GatepostDomain.*\", instance=\"good.example\"}";
    assert!(prometheus.labels(others).is_empty());

    let mut shown = 0;
    let boards = boards();
    for (name, expr) in boards.iter().flat_map(|board| board.expressions()) {
        if !expr.contains("gatepost_check_") {
            continue;
        }
        shown += 1;
        let series = prometheus.over_time(&expr).unwrap_or_else(|error| panic!("{name}: {error}"));
        let values: Vec<f64> = series.into_iter().flat_map(|series| series.values).collect();
        assert!(values.iter().any(|value| *value > 0.0), "{name} shows nothing: {expr}");
        assert!(values.iter().all(|value| value.is_finite()), "{name}: {expr}");
    }
    assert!(shown >= 9, "{shown} expressions");
}

fn listed_domains_are_checked_once_for_all_scrapers() {
    let lab = Lab::new();
    let site = CheckedSite::new(&lab);
    let gateway = site.gateway("probe_cache_time = \"6s\"");
    for (path, status, sentence) in [
        ("/probe", 400, "`target` is missing"),
        ("/probe?target=no_domain@good.example", 400, "not a domain"),
        ("/probe?target=other.example", 403, "add it to `probe_domains` in [metrics]"),
        ("/probes", 404, "paths: /, /metrics, /probe, /healthz, /readyz"),
    ] {
        let (found, body) = get(&lab, METRICS, path);
        assert!(found == status && body.contains(sentence), "{path}: {found} {body}");
    }
    assert_eq!(site.connections(), 0);

    let time = "gatepost_check_timestamp_seconds{domain=\"good.example\"}";
    let scrape = || {
        let (status, body) = get(&lab, METRICS, "/probe?target=Good.Example");
        assert_eq!(status, 200, "{body}\n{}", gateway.log());
        assert_eq!(value(&body, "gatepost_check_ready{domain=\"good.example\"}"), 1.0, "{body}");
        value(&body, time)
    };
    let together = || {
        thread::scope(|scope| {
            let scrapers: Vec<_> = (0..3).map(|_| scope.spawn(scrape)).collect();
            scrapers.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        })
    };
    let first = together();
    let of_one_check = site.connections();
    assert!(of_one_check > 0 && first.iter().all(|time| *time == first[0]), "{first:?}");
    // From the cache.
    assert_eq!(scrape(), first[0]);
    assert_eq!(site.connections(), of_one_check);
    thread::sleep(Duration::from_secs(6));
    let second = together();
    assert!(second[0] > first[0] && second.iter().all(|time| *time == second[0]), "{second:?}");
    assert_eq!(site.connections(), 2 * of_one_check);
    // The gateway's own metrics have none of this.
    let (_, metrics) = get(&lab, METRICS, "/metrics");
    assert!(metrics.contains("gatepost_ready") && !metrics.contains("gatepost_check_"));
}

fn a_vantage_serves_its_domains() {
    let lab = Lab::new();
    let site = CheckedSite::new(&lab);
    let key = lab.path("vantage.key");
    fs::write(&key, "0123456789abcdef".repeat(4)).unwrap();
    let words = [
        "vantage",
        "--listen=[::1]:9626",
        "--key",
        key.to_str().unwrap(),
        "--domain=dead.example",
        "--dns",
        KNOT,
        "--hostname=vantage.client.example",
        "--probe-listen",
        VANTAGE,
        "--control=mx.good.example",
    ];
    let _vantage = site.start(&words, "for Prometheus, at /probe");
    let (status, body) = get(&lab, VANTAGE, "/probe?target=dead.example");
    assert_eq!(status, 200, "{body}");
    assert_eq!(value(&body, "gatepost_check_ready{domain=\"dead.example\"}"), 0.0, "{body}");
    let (status, body) = get(&lab, VANTAGE, "/probe?target=good.example");
    assert_eq!(
        (status, body.as_str()),
        (403, "this domain may not be checked here; add it to the options --domain\n")
    );
    assert_eq!(get(&lab, VANTAGE, "/metrics").1, "not found; paths: /probe\n");
}
