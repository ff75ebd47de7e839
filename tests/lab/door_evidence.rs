//! The evidence that doors act on: one client network closes none, encrypted sessions and the vantage outrank stalls, and mail
//! that stops arriving is reported. Also the share of probes that one network has.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::tests;
use crate::support::sites::{ZONES, dns_with};
use crate::support::{
    Authority, Config, Family, Gateway, Lab, Mode, Postfix, Process, Smtp, cannot_run, port, until,
};
use serde_json::Value;

tests![
    one_network_cannot_close_ipv6,
    a_vantage_whose_large_segments_pass_outranks_stalls_and_a_dead_one_closes_nothing,
    encrypted_sessions_are_proof_and_their_stalls_close_the_door,
    an_mta_that_is_dead_over_ipv6_is_found_in_transparent_mode,
    mail_that_stops_arriving_is_a_sign,
    one_network_cannot_use_up_the_probes,
    watched_sessions_under_tls_are_proof,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// The exchange of our domain is the gateway.
const OUR_ZONE: &str = "@ MX 10 mx\nmx A 192.0.2.1\nmx AAAA 2001:db8:1::1\n";
const NAMESERVER: &str = "[2001:db8:53::53]:53";
const VANTAGE: &str = "[2001:db8:1::10]:9626";

/// A door with short times: three networks must agree.
fn config(lab: &Lab, mode: Mode) -> Config {
    let mut config = Config::new(lab, mode)
        .for_crowds()
        .set("timeouts", "data = \"1s\"")
        .set("timeouts", "passthrough_idle = \"2s\"");
    for line in [
        "stall_threshold = 3",
        "stall_duration = \"1s\"",
        "grace = \"0s\"",
        "min_hold = \"1s\"",
        "retry = \"3s\"",
    ] {
        config = config.set("door.ipv6", line);
    }
    config
}

/// A family's part of `gatepost door --format json`.
pub(crate) fn report(lab: &Lab, config: &Config, family: &str) -> Value {
    let socket = config.socket().to_str().unwrap();
    let output = lab.gateway.run([GATEPOST, "door", "--format", "json", "--socket", socket]);
    let all: Value = serde_json::from_str(&output).unwrap();
    let of_it = |state: &&Value| state["family"] == family;
    all.as_array().unwrap().iter().find(of_it).unwrap().clone()
}

fn state(lab: &Lab, config: &Config) -> String {
    report(lab, config, "ipv6")["status"]["state"].as_str().unwrap().to_owned()
}

/// An address of the client in the /48 with this number.
fn client(lab: &Lab, network: u16, host: u16) -> IpAddr {
    let ip: IpAddr = format!("2001:db8:{:x}::{host:x}", 0xf00 + network).parse().unwrap();
    // It may be there already.
    lab.client.configure(&format!("addr replace {ip}/128 dev gateway nodad preferred_lft 0\n"));
    lab.gateway.configure(&format!("route replace {ip}/128 dev client\n"));
    ip
}

/// Begins a message and sends no more of it.
fn abort_data(lab: &Lab, from: IpAddr, to: SocketAddr) -> Smtp {
    let mut session = lab.client.smtp_from(from, to);
    session.begin("a@example.net", "stalled@example.org");
    session.dialogue("C: DATA\n S: 354");
    session.raw(b"Subject: only as much as fits a small packet\r\n").unwrap();
    session
}

fn deliver(mut session: Smtp, body: &[u8]) {
    session.begin("a@example.net", "delivered@example.org");
    assert_eq!(session.data(body).code, 250);
    session.dialogue("C: QUIT\n S: 221");
}

/// For some seconds nothing closes the door.
fn stays_open(lab: &Lab, config: &Config, seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        let report = report(lab, config, "ipv6");
        assert_eq!(report["status"]["admits"], true, "{report}");
        thread::sleep(Duration::from_millis(200));
    }
}

fn one_network_cannot_close_ipv6() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let config = config(&lab, Mode::Proxy);
    let gateway = Gateway::start(&lab, &config);
    let [v6, v4] = Family::ALL.map(|family| lab.entrance(Mode::Proxy, family));
    let attack = |network| {
        let sessions: Vec<_> =
            (1..=8).map(|host| abort_data(&lab, client(&lab, network, host), v6)).collect();
        sessions.into_iter().for_each(|mut session| drop(session.expect_last_reply("421 4.4.2")));
    };
    attack(1);
    thread::sleep(Duration::from_secs(1));
    attack(1);
    // IPv4 delivers, and small IPv6 mail disproves no black hole.
    deliver(lab.client.smtp(v4), b"Subject: v4\r\n\r\n");
    deliver(lab.client.smtp(v6), b"Subject: small\r\n\r\n");
    stays_open(&lab, &config, 4);
    attack(2);
    stays_open(&lab, &config, 2);
    attack(3);
    deliver(lab.client.smtp(v4), b"Subject: v4\r\n\r\n");
    gateway.wait_for_log("door ipv6: closed, was closing: ");
    let log = gateway.log();
    assert!(log.contains(" from 3 networks in "), "{log}");
}

fn with_a_vantage(lab: &Lab, config: Config, domain: &str) -> (Config, Process) {
    let key = lab.path("vantage.key");
    fs::write(&key, format!("{}\n", "5a".repeat(32))).unwrap();
    let mut words = vec![GATEPOST, "vantage", "--listen", VANTAGE, "--key", key.to_str().unwrap()];
    words.extend(["--domain", domain, "--dns", NAMESERVER, "--hostname", "vantage.example.net"]);
    words.extend(["--timeout", "2s", "--requests-per-minute", "600"]);
    let vantage = lab.client.spawn(words);
    until("a vantage that probes", || vantage.log().contains("probes ").then_some(()));
    let config = config
        .set("door", "probe_interval = \"1s\"")
        .set("vantage", &format!("address = {VANTAGE:?}"))
        .set("vantage", &format!("key_file = {key:?}"))
        .set("vantage", &format!("domains = [{domain:?}]"))
        .set("lookup", &format!("dns = [{NAMESERVER:?}]"));
    (config, vantage)
}

fn a_vantage_whose_large_segments_pass_outranks_stalls_and_a_dead_one_closes_nothing() {
    let lab = Lab::new();
    let [(our_zone, _), others @ ..] = ZONES;
    let _dns = dns_with(&lab, &[&[(our_zone, OUR_ZONE)][..], &others].concat());
    let _postfix = Postfix::receiver(&lab);
    let (config, mut vantage) = with_a_vantage(
        &lab,
        config(&lab, Mode::Proxy).set("door.ipv6", "proof_max_age = \"1m\""),
        our_zone,
    );
    let gateway = Gateway::start(&lab, &config);
    let [v6, v4] = Family::ALL.map(|family| lab.entrance(Mode::Proxy, family));
    until("a proof", || (state(&lab, &config) == "open").then_some(()));
    gateway.wait_for_metric("gatepost_vantage_up", &[], 1.0);
    until("a line for the request", || {
        vantage.log().contains("2001:db8:1::1 reached, large segment passed").then_some(())
    });
    for _ in 0..2 {
        let sessions: Vec<_> =
            (1..=5).map(|network| abort_data(&lab, client(&lab, network, 1), v6)).collect();
        sessions.into_iter().for_each(|mut session| drop(session.expect_last_reply("421 4.4.2")));
    }
    deliver(lab.client.smtp(v4), b"Subject: v4\r\n\r\n");
    stays_open(&lab, &config, 3);

    // Its probes disproved the stalls, so that they do not count once it is gone.
    vantage.kill();
    gateway.wait_for_metric("gatepost_vantage_up", &[], 0.0);
    gateway.wait_for_log("vantage probes fail: the vantage at ");
    // Longer than the age of every proof; with a vantage the default is when_unproven = "close".
    thread::sleep(Duration::from_secs(65));
    let report = report(&lab, &config, "ipv6");
    assert_eq!(report["status"]["reason"], "unproven", "{report}");
    assert_eq!(report["status"]["state"], "open", "{report}");
    assert_eq!(report["vantage"]["up"], false, "{report}");
    let socket = config.socket().to_str().unwrap();
    let printed = lab.gateway.run([GATEPOST, "door", "--socket", socket]);
    assert!(printed.contains("vantage   DOWN for "), "{printed}");
}

fn encrypted_sessions_are_proof_and_their_stalls_close_the_door() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), "mx.example.org");
    let _postfix = Postfix::start(&lab, &lab.server, "receiver", Some(&authority), "");
    let config = config(&lab, Mode::Proxy);
    let gateway = Gateway::start(&lab, &config);
    let [v6, v4] = Family::ALL.map(|family| lab.entrance(Mode::Proxy, family));
    let swaks = |to: SocketAddr| {
        let sent = lab.client.swaks(to, "tls@example.org", &["--tls"]);
        assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
    };
    swaks(v6);
    until("a proof", || (state(&lab, &config) == "open").then_some(()));
    let proof = report(&lab, &config, "ipv6")["status"]["proof"].clone();
    assert_eq!(proof["by"], "session", "{proof}");

    // A black hole behind STARTTLS: the ClientHello does not arrive. First of one network, then of three.
    let stall = |network: u16| {
        let mut session = lab.client.smtp_from(client(&lab, network, 1), v6);
        session.dialogue("S: 220\n C: EHLO client.example.net\n S: 250\n C: STARTTLS\n S: 220");
        session
    };
    for networks in [vec![1, 1, 1], vec![2], vec![3]] {
        stays_open(&lab, &config, 1);
        let held: Vec<_> = networks.into_iter().map(stall).collect();
        thread::sleep(Duration::from_secs(3));
        drop(held);
    }
    assert!(!gateway.log().contains("closing"), "IPv4 has delivered nothing yet");
    swaks(v4);
    gateway.wait_for_log("door ipv6: closed, was closing: ");
}

/// Without `[upstream] addresses`, and with the clients' own addresses as source.
fn an_mta_that_is_dead_over_ipv6_is_found_in_transparent_mode() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    // Also where nothing listens.
    let config = config(&lab, Mode::Tproxy)
        .without("intercept")
        .set("intercept", "destinations = [\"2001:db8:2::/64\", \"198.51.100.0/24\"]")
        .set("intercept", &format!("interfaces = [{:?}]", lab.client_link()));
    let gateway = Gateway::start(&lab, &config);
    let [v6, v4] = Family::ALL.map(|family| lab.entrance(Mode::Tproxy, family));
    deliver(lab.client.smtp(v6), b"Subject: v6\r\n\r\n");
    // One network connects where nothing listens.
    let unused: SocketAddr = "[2001:db8:2::99]:25".parse().unwrap();
    lab.server.configure("addr add 2001:db8:2::99/64 dev gateway nodad\n");
    lab.server.run([
        "nft",
        "table inet unused { chain in { type filter hook input priority 0; \
         ip6 daddr 2001:db8:2::99 tcp dport 25 reject with tcp reset\n }\n }",
    ]);
    for host in 1..=10 {
        let mut session = lab.client.smtp_from(client(&lab, 1, host), unused);
        session.expect_last_reply("421 4.3.2");
    }
    stays_open(&lab, &config, 6);
    lab.server.run([
        "nft",
        "table inet dead { chain in { type filter hook input priority 0; \
         meta nfproto ipv6 tcp dport 25 reject with tcp reset\n }\n }",
    ]);
    // One failed session is enough, because the gateway connects to the MTA itself.
    let mut session = lab.client.smtp_from(client(&lab, 1, 1), v6);
    session.expect_last_reply("421 4.3.2");
    gateway.wait_for_log("door ipv6: closed, was closing: no upstream accepts its sessions");
    deliver(lab.client.smtp(v4), b"Subject: v4\r\n\r\n");
    lab.server.run(["nft", "delete table inet dead"]);
    gateway.wait_for_log("door ipv6: opening, was closed: an upstream may accept mail again");
}

/// Client addresses come from PROXY headers: many networks of both families.
fn mail_that_stops_arriving_is_a_sign() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let peer = lab.client_ip(Family::Ipv4);
    let config = config(&lab, Mode::Proxy)
        .set("door", "refuse = \"smtp\"")
        .set("proxy_protocol", &format!("trusted = [\"{peer}/32\"]"));
    let gateway = Gateway::start(&lab, &config);
    let entrance = lab.entrance(Mode::Proxy, Family::Ipv4);
    let mail = |family: Family, n: u32| {
        let header = match family {
            Family::Ipv6 => {
                format!("PROXY TCP6 2001:db8:{:x}::1 2001:db8:1::1 40000 25\r\n", 0xa00 + n % 40)
            }
            Family::Ipv4 => format!("PROXY TCP4 203.0.{}.7 192.0.2.1 40000 25\r\n", 114 + n % 40),
        };
        let mut session = lab.client.smtp(entrance);
        session.raw(header.as_bytes()).unwrap();
        deliver(session, b"Subject: ordinary\r\n\r\n");
    };
    for n in 0..60 {
        mail(Family::Ipv4, n);
        mail(Family::Ipv6, n);
    }
    gateway.wait_for_metric("gatepost_mail_missing", &["family=\"ipv6\""], 0.0);
    let began = Instant::now();
    let mut n = 0;
    while gateway.metric("gatepost_mail_missing", &["family=\"ipv6\""]) == 0.0 {
        mail(Family::Ipv4, n);
        n += 1;
        thread::sleep(Duration::from_millis(200));
        assert!(began.elapsed() < Duration::from_secs(240), "no sign after {n} messages");
    }
    eprintln!("a sign after {} s and {n} messages over IPv4", began.elapsed().as_secs());
    gateway.wait_for_log("door ipv6: no mail arrived over IPv6 for ");
    let report = report(&lab, &config, "ipv6");
    assert_eq!(report["status"]["admits"], true, "{report}");
    assert!(report["silence"]["other_sessions"].as_u64().unwrap() > 10, "{report}");
    let page = lab.gateway.run(["curl", "-s", "http://[::1]:9625/"]);
    assert!(page.contains("No mail arrived over IPv6 for "), "{page}");
    mail(Family::Ipv6, 1);
    gateway.wait_for_log("door ipv6: mail arrives again");
}

const REACHABLE: &str = r#"
[[policy]]
name = "reachable"
require = [{ fact = "return_path", level = "tcp" }]
"#;

fn one_network_cannot_use_up_the_probes() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    // Each name has an exchange of its own, on the client's host, where nothing listens: the probe is refused at once.
    let mut records = String::new();
    for n in 1..=200 {
        records += &format!("s{n} MX 10 s{n}\ns{n} AAAA 2001:db8:e::{n:x}\n");
    }
    lab.client.configure("addr add 2001:db8:e::ffff/64 dev gateway nodad\n");
    for n in 1..=200 {
        lab.client.configure(&format!("addr add 2001:db8:e::{n:x}/128 dev gateway nodad\n"));
    }
    lab.gateway.configure("route add 2001:db8:e::/64 dev client\n");
    let _dns = dns_with(&lab, &[("flood.example", records.as_str()), ZONES[1]]);
    let config = Config::new(&lab, Mode::Proxy)
        .for_crowds()
        .set("lookup", &format!("dns = [{NAMESERVER:?}]"))
        .set("lookup", "probes_per_second = 16")
        .set("log", "format = \"json\"")
        .policies(REACHABLE);
    let gateway = Gateway::start(&lab, &config);
    let v6 = lab.entrance(Mode::Proxy, Family::Ipv6);
    let rcpt = |from: IpAddr, n: u32| {
        let mut session = lab.client.smtp_from(from, v6);
        session.dialogue(&format!(
            "S: 220\n C: EHLO client.example.net\n S: 250\n C: MAIL FROM:<a@s{n}.flood.example>\n S: 250"
        ));
        let reply = session.ask("RCPT TO:<user@example.org>");
        session.dialogue("C: QUIT\n S: 221");
        format!("{} {}", reply.code, reply.lines.join(" / "))
    };
    let began = Instant::now();
    let mut limited = 0;
    for n in 1..=100 {
        let reply = rcpt(client(&lab, 1, u16::try_from(n).unwrap()), n);
        limited += u32::from(reply.starts_with("451 4.4.1"));
    }
    let took = began.elapsed();
    if took > Duration::from_secs(20) {
        cannot_run(format_args!("this machine is too slow for the flood: {took:?}"));
    }
    assert!(limited > 30, "{limited} of 100 are over the share, in {took:?}");
    // Another network is answered: its sender's server refuses, which is known.
    for n in 101..=102 {
        let reply = rcpt(client(&lab, 2, 1), n);
        assert!(reply.starts_with("450 4.4.1"), "{reply}");
    }
    assert!(gateway.log().contains("return_path.rate_limited"));
}

/// Mail that passes by the gateway under TLS, seen on the wire only: a session that completed is proof, one that ended
/// at STARTTLS is none.
fn watched_sessions_under_tls_are_proof() {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), "mx.example.org");
    let _postfix = Postfix::start(&lab, &lab.server, "receiver", Some(&authority), "");
    let config = config(&lab, Mode::Proxy)
        .set("watch", "source = \"auto\"")
        .set("site", "addresses = [\"2001:db8:2::/64\", \"198.51.100.0/24\"]");
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log("watching client and server by ");
    let server = lab.server_socket(Family::Ipv6, port::SMTP);
    let by = || report(&lab, &config, "ipv6")["status"]["proof"].clone();
    let mut broken_off = lab.client.smtp(server);
    broken_off.dialogue("S: 220\n C: EHLO client.example.net\n S: 250\n C: STARTTLS\n S: 220");
    drop(broken_off);
    gateway.wait_for_metric(
        "gatepost_tcp_connections_total",
        &["family=\"ipv6\"", "direction=\"in\""],
        1.0,
    );
    thread::sleep(Duration::from_secs(2));
    assert_eq!(by(), Value::Null);
    let sent = lab.client.swaks(server, "tls@example.org", &["--tls"]);
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stdout));
    let proof = until("a proof", || Some(by()).filter(|proof| !proof.is_null()));
    assert_eq!(proof["by"], "session", "{proof}");
    assert!(
        gateway
            .metric("gatepost_receive_path_last_under_tls_timestamp_seconds", &["family=\"ipv6\""])
            > 0.0
    );
    assert_eq!(
        gateway
            .metric("gatepost_receive_path_last_accepted_timestamp_seconds", &["family=\"ipv6\""]),
        0.0
    );
}
