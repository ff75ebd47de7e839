//! `gatepost check` where this host's network hides a server, on the server's own host, and behind a closed door.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use super::site::{self, SENDERS};
use super::{Checked, check_on, not_passed};
use crate::harness::tests;
use crate::support::world::{KNOT, knot};
use crate::support::{
    Authority, CertificateRequest, Config, Gateway, Host, KeyType, Lab, Mode, Postfix, Process,
    Validity, until,
};

tests![
    silence_is_judged_by_what_leaves_this_network,
    an_exchange_asks_a_vantage_about_itself,
    a_closed_door_is_named
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const DOMAIN: &str = "own.example";
/// Its server, and another that is known to answer.
const ZONE: &str = "\
@ MX 10 mx
@ TXT \"v=spf1 ip6:2001:db8:2::1 ip4:198.51.100.1 -all\"
_dmarc TXT \"v=DMARC1; p=quarantine; rua=mailto:dmarc@own.example\"
mx A 198.51.100.25
mx AAAA 2001:db8:2::25
control A 198.51.100.26
control AAAA 2001:db8:2::26
out A 198.51.100.1
out AAAA 2001:db8:2::1
";

fn zones() -> std::collections::BTreeMap<String, String> {
    let reverse6 = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR out.own.example.\n";
    [
        (DOMAIN, ZONE),
        ("example", "ns.client AAAA 2001:db8:53::53\n"),
        ("100.51.198.in-addr.arpa", "1 PTR out.own.example.\n"),
        ("8.b.d.0.1.0.0.2.ip6.arpa", reverse6),
    ]
    .map(|(name, records)| (name.to_owned(), records.to_owned()))
    .into()
}

fn mail_server(lab: &Lab) -> Postfix<'_> {
    for added in ["2001:db8:2::26/64 dev gateway nodad", "198.51.100.26/24 dev gateway"] {
        lab.server.configure(&format!("addr add {added}\n"));
    }
    let authority = Authority::new(lab.folder("ca"), "*.own.example");
    assert_eq!(authority.certificate(), site::trusted(lab));
    let issued = authority.issue(&CertificateRequest {
        file: "mx",
        names: &["*.own.example"],
        key: KeyType::EcdsaP256,
        validity: Validity::Days(60),
    });
    let main_cf = format!(
        "myhostname = mx.own.example\ninet_interfaces = 198.51.100.25, 2001:db8:2::25, 198.51.100.26, 2001:db8:2::26\nvirtual_mailbox_domains = static:all\n{}",
        site::tls(&issued.fullchain, &issued.key)
    );
    Postfix::start(lab, &lab.server, "mx", None, &main_cf)
}

/// What the check finds on `host`, with `options`.
fn found(lab: &Lab, host: &Host, options: &[&str]) -> (Vec<String>, Value) {
    let from = ["--from", SENDERS[0], "--from", SENDERS[1]];
    let mut words = vec![DOMAIN, "--dns", KNOT, "--timeout=2s", "--format=json"];
    words.extend(from.iter().chain(options));
    let Checked { printed, complained, .. } = check_on(lab, host, &words);
    let json: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{complained}"));
    (not_passed(&json), json)
}

fn sentence(json: &Value, check: &str) -> String {
    let mut findings = json["findings"].as_array().unwrap().iter();
    let one = findings.find(|one| one["check"] == check && one["outcome"] != "pass").unwrap();
    format!("{} {}", one["seen"].as_str().unwrap(), one["advice"].as_str().unwrap())
}

/// Rules of this host's network, or of the server's, the options, and the findings.
type EgressCase = (&'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const BOTH_FAIL: &[&str] = &["fail smtp_connect", "fail smtp_families"];
const CONTROL: &[&str] = &["--control", "control.own.example"];

const CASES: &[EgressCase] = &[
    ("", "", &[], &[]),
    ("", "", CONTROL, &[]),
    // This network drops port 25 of one family, or of both.
    ("meta nfproto ipv6 tcp dport 25 drop", "", &[], &["unknown smtp_connect"]),
    ("meta nfproto ipv6 tcp dport 25 drop", "", CONTROL, &["unknown smtp_connect"]),
    ("meta nfproto ipv4 tcp dport 25 drop", "", CONTROL, &["unknown smtp_connect"]),
    ("tcp dport 25 drop", "", &[], &["unknown smtp_connect", "unknown smtp_connect"]),
    ("tcp dport 25 drop", "", CONTROL, &["unknown smtp_connect", "unknown smtp_connect"]),
    // It refuses.
    (
        "meta nfproto ipv6 tcp dport 25 reject with tcp reset",
        "",
        CONTROL,
        &["unknown smtp_connect"],
    ),
    ("meta nfproto ipv6 tcp dport 25 reject with tcp reset", "", &[], BOTH_FAIL),
    // The server's side drops.
    ("", "ip6 daddr 2001:db8:2::25 tcp dport 25 drop", CONTROL, BOTH_FAIL),
    ("", "ip6 daddr 2001:db8:2::25 tcp dport 25 drop", &["--control", "2001:db8:2::26"], BOTH_FAIL),
    // A control of the other family says nothing.
    (
        "",
        "ip6 daddr 2001:db8:2::25 tcp dport 25 drop",
        &["--control", "198.51.100.26"],
        &["unknown smtp_connect"],
    ),
    ("", "ip6 daddr 2001:db8:2::25 tcp dport 25 drop", &[], &["unknown smtp_connect"]),
    ("", "ip6 daddr 2001:db8:2::25 tcp dport 25 reject with tcp reset", CONTROL, BOTH_FAIL),
    // It drops large packets of one family.
    (
        "",
        "ip6 daddr 2001:db8:2::25 tcp dport 25 meta length > 600 drop",
        CONTROL,
        &["fail path_mtu"],
    ),
];

fn silence_is_judged_by_what_leaves_this_network() {
    let lab = Lab::new();
    let _knot = knot(&lab, &zones(), &[]);
    let _server = mail_server(&lab);
    let mut wrong = Vec::new();
    for (here, there, options, expected) in CASES {
        for (host, hook, rule) in [(&lab.gateway, "output", here), (&lab.server, "input", there)] {
            host.run(["nft", "add table inet egress; delete table inet egress"]);
            host.run([
                "nft",
                &format!("table inet egress {{ chain c {{ type filter hook {hook} priority 0; {rule}; }}; }}"),
            ]);
        }
        let (findings, json) = found(&lab, &lab.gateway, options);
        if findings != *expected {
            wrong.push(format!("{here}|{there}|{options:?}: {findings:?}"));
        }
        let blocks = !here.is_empty() && findings.contains(&"unknown smtp_connect".to_owned());
        if blocks && !options.is_empty() {
            let text = sentence(&json, "smtp_connect");
            assert!(text.contains("this host's network blocks port 25 over IPv"), "{text}");
        }
        let text = json.to_string();
        assert!(!blocks || !text.contains("emove the AAAA"), "{text}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn an_exchange_asks_a_vantage_about_itself() {
    let lab = Lab::new();
    let _knot = knot(&lab, &zones(), &[]);
    let _server = mail_server(&lab);
    let (findings, json) = found(&lab, &lab.server, &[]);
    assert_eq!(findings, ["unknown smtp_reach", "unknown smtp_reach"]);
    assert!(sentence(&json, "smtp_reach").contains("--vantage"), "{json}");

    let key = lab.path("vantage.key");
    fs::write(&key, format!("{}\n", "5a".repeat(32))).unwrap();
    let key = key.to_str().unwrap();
    let listen = "[2001:db8:1::10]:9626";
    let vantage = vantage(&lab, listen, key, DOMAIN);
    let ask = ["--vantage", listen, "--vantage-key", key];
    assert_eq!(found(&lab, &lab.server, &ask).0, [""; 0]);

    // What the host itself cannot see.
    lab.server.run([
        "nft",
        "table inet outside { chain c { type filter hook input priority 0; iifname != \"lo\" meta nfproto ipv6 tcp dport 25 drop; }; }",
    ]);
    let (findings, json) = found(&lab, &lab.server, &ask);
    assert_eq!(findings, ["fail smtp_reach"]);
    let text = sentence(&json, "smtp_reach");
    assert!(text.contains("(no response), only from inside this host"), "{text}");
    // Here the outside is this host's network, and the vantage's word counts.
    let (findings, _) = found(&lab, &lab.gateway, &ask);
    assert_eq!(findings, ["fail smtp_reach", "unknown smtp_connect"]);
    drop(vantage);
    let (findings, json) = found(&lab, &lab.server, &ask);
    assert_eq!(findings, ["unknown smtp_reach", "unknown smtp_reach"]);
    assert!(sentence(&json, "smtp_reach").contains("does not accept connections"), "{json}");
    // A vantage that may not probe the domain.
    let _other = self::vantage(&lab, listen, key, "other.example");
    let (findings, json) = found(&lab, &lab.server, &ask);
    assert_eq!(findings, ["unknown smtp_reach", "unknown smtp_reach"]);
    assert!(sentence(&json, "smtp_reach").contains("refuses the request"), "{json}");
}

fn vantage(lab: &Lab, listen: &str, key: &str, domain: &str) -> Process {
    let vantage = lab.client.spawn([
        GATEPOST,
        "vantage",
        "--listen",
        listen,
        "--key",
        key,
        "--domain",
        domain,
        "--dns",
        KNOT,
        "--hostname",
        "vantage.example.net",
        "--timeout",
        "2s",
    ]);
    let at: SocketAddr = listen.parse().unwrap();
    lab.client.wait_for_listener(at);
    until("a vantage that probes", || vantage.log().contains("probes ").then_some(()));
    vantage
}

fn a_closed_door_is_named() {
    let lab = Lab::new();
    let _knot = knot(&lab, &zones(), &[]);
    let _server = mail_server(&lab);
    let config = Config::new(&lab, Mode::Proxy)
        .set("door.ipv6", "min_hold = \"1s\"")
        .set("site", "addresses = [\"2001:db8:2::/64\", \"198.51.100.0/24\"]");
    let gateway = Gateway::start(&lab, &config);
    let socket = config.socket().to_str().unwrap();
    lab.gateway.run([GATEPOST, "door", "ipv6", "close", "--socket", socket]);
    let file = gateway.file().to_str().unwrap();
    // The door's host is the only one that knows why nobody answers.
    lab.gateway.run([
        "nft",
        "table inet closed { chain c { type filter hook output priority 0; ip6 daddr 2001:db8:2::25 tcp dport 25 reject with tcp reset; }; }",
    ]);
    let (findings, json) = found(&lab, &lab.gateway, &["--config", file]);
    assert_eq!(findings, ["fail smtp_connect"]);
    let text = sentence(&json, "smtp_connect");
    assert!(text.starts_with("gatepost's door is closed for IPv6: "), "{text}");
    assert!(text.contains("gatepost door ipv6 open"), "{text}");
    assert!(!text.contains("AAAA"), "{text}");
    // A domain elsewhere is not behind it.
    let (findings, _) = found(&lab, &lab.gateway, &[]);
    assert_eq!(findings, ["fail smtp_connect", "fail smtp_families"]);
}
