//! A path that drops IPv6, one that rejects it, and one that stalls on large packets: the door of our own receive path and
//! the facts about a sender's return path distinguish them.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::harness::tests;
use crate::support::sites::{Sender, ZONES, dns_with, receiver};
use crate::support::world::{ASKED, LARGE, World, receiver_ip, sender_ip};
use crate::support::{
    Config, Family, Gateway, Lab, Mode, Postfix, Process, cannot_run, port, until,
};
use serde_json::Value;

tests![
    the_door_names_the_fault_of_the_path,
    facts_name_the_fault_of_the_path_and_traffic_replaces_probes,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const SHORT: usize = 600;
/// The exchange of our domain is the gateway.
const OUR_ZONE: &str = "@ MX 10 mx\nmx A 192.0.2.1\nmx AAAA 2001:db8:1::1\n";
const NAMESERVER: &str = "[2001:db8:53::53]:53";
/// The address where the vantage listens, and its source address over IPv6, which is exempt without an entry in `[door]`.
const VANTAGE: &str = "[2001:db8:1::10]:9626";
/// The sender's address, which is not exempt.
const SENDER: [&str; 2] = ["203.0.113.7", "2001:db8:c::7"];

/// What a path does to IPv6: the gateway's text for it, and an nftables rule in front of the gateway with that effect.
const PATHS: [(&str, &str); 3] = [
    ("no_response", "chain in { type filter hook input priority -200; TO SYN drop; }"),
    ("refused", "chain in { type filter hook input priority -200; TO SYN reject with tcp reset; }"),
    // Like a tunnel with a smaller MTU behind a router whose ICMPv6 is filtered.
    (
        "established_but_stalled",
        "chain in { type filter hook input priority -200; TO meta length > LARGE drop; }
         chain out { type filter hook output priority -200; FROM meta length > LARGE drop; }",
    ),
];

fn the_door_names_the_fault_of_the_path() {
    let lab = Lab::new();
    let [(our_zone, _), others @ ..] = ZONES;
    let _dns = dns_with(&lab, &[&[(our_zone, OUR_ZONE)][..], &others].concat());
    for address in SENDER {
        lab.add_client_ip(address.parse().unwrap());
    }
    let [v4, v6] = SENDER;
    let sender = Sender::by_mx(
        &lab,
        &format!(
            "smtp_bind_address = {v4}\nsmtp_bind_address6 = {v6}\nsmtp_address_preference = ipv6\n"
        ),
    );
    let receiver = receiver(&lab, "");
    let (config, vantage) = with_a_vantage(&lab, our_zone);
    let gateway = Gateway::start(&lab, &config);
    let delivered = |family: &str, count: u32| {
        let family = format!("family=\"{family}\"");
        let labels = [family.as_str(), "class=\"2xx\""];
        gateway.wait_for_metric("gatepost_messages_total", &labels, count.into());
    };
    wait_for(&lab, &config, "open");
    let mut count = 0;
    for (does, filter) in PATHS {
        count += 1;
        let began = Instant::now();
        let mut chains = filter.to_owned();
        // SYNs only: a probe in progress ends undisturbed.
        for (word, rule) in [
            ("TO", "meta nfproto ipv6 tcp dport 25"),
            ("FROM", "meta nfproto ipv6 tcp sport 25"),
            ("SYN", "tcp flags & (syn | ack) == syn"),
            ("LARGE", &LARGE.to_string()),
        ] {
            chains = chains.replace(word, rule);
        }
        lab.gateway.run(["nft", &format!("table inet path {{ {chains}\n }}")]);
        let state = wait_for(&lab, &config, "closed");
        let closed_after = began.elapsed();
        let status = &state["status"];
        assert_eq!(status["reason"], "probes_failed", "{does}: {state}");
        let detail = status["detail"].as_str().unwrap();
        let seen = format!(" did not reach us: mx.{our_zone} 2001:db8:1::1 {does}");
        assert!(detail.ends_with(&seen), "{does}: {state}");
        assert_eq!(door_state(&lab, &config, "ipv4")["status"], Value::Null, "IPv4 is always open");

        // The sender tries IPv6 first.
        let took = send(&sender, &receiver, &format!("{does}-closed"));
        delivered("ipv4", count);
        // If the SYN arrives, the closed door rejects it; a filter that drops it costs the sender its timeout (3 s).
        let most = Duration::from_secs(if does == "no_response" { 5 } else { 2 });
        assert!(took < most, "{does}: {took:?}");
        assert_eq!(door_state(&lab, &config, "ipv6")["status"]["state"], "closed");

        lab.gateway.run(["nft", "delete table inet path"]);
        let healed = Instant::now();
        let state = wait_for(&lab, &config, "open");
        let detail = state["status"]["detail"].as_str().unwrap();
        assert!(detail.starts_with("a probe reached us "), "{does}: {state}");
        eprintln!(
            "{does}: closed after {} ms, mail over IPv4 in {} ms, open again after {} ms",
            closed_after.as_millis(),
            took.as_millis(),
            healed.elapsed().as_millis()
        );
        send(&sender, &receiver, &format!("{does}-open"));
        delivered("ipv6", count);
    }
    // Only the sender's SYN, on the path that lets it through: the vantage is exempt.
    assert_eq!(door_state(&lab, &config, "ipv6")["refused"], 1);

    drop(vantage);
    let gone = format!("vantage probes fail: the vantage at {VANTAGE} does not accept connections");
    gateway.wait_for_log(&gone);
    assert_eq!(door_state(&lab, &config, "ipv6")["status"]["state"], "open", "that is no result");
}

/// A gateway's configuration, and its vantage on the client's host.
fn with_a_vantage(lab: &Lab, domain: &str) -> (Config, Process) {
    let key = lab.path("vantage.key");
    fs::write(&key, format!("{}\n", "5a".repeat(32))).unwrap();
    let mut words = vec![GATEPOST, "vantage", "--listen", VANTAGE, "--key", key.to_str().unwrap()];
    words.extend(["--domain", domain, "--dns", NAMESERVER, "--hostname", "vantage.example.net"]);
    words.extend(["--timeout", "2s", "--requests-per-minute", "600"]);
    let vantage = lab.client.spawn(words);
    let mut config = Config::new(lab, Mode::Proxy).set("door", "probe_interval = \"1s\"");
    for line in
        ["failure_threshold = 1", "success_threshold = 1", "grace = \"0s\"", "min_hold = \"1s\""]
    {
        config = config.set("door.ipv6", line);
    }
    for line in [
        &format!("address = {VANTAGE:?}"),
        &format!("key_file = {key:?}"),
        &format!("domains = [{domain:?}]"),
    ] {
        config = config.set("vantage", line);
    }
    until("a vantage that probes", || vantage.log().contains("probes ").then_some(()));
    (config.set("lookup", &format!("dns = [{NAMESERVER:?}]")), vantage)
}

/// A family's entry in the output of `gatepost door --format json`.
fn door_state(lab: &Lab, config: &Config, family: &str) -> Value {
    let socket = config.socket().to_str().unwrap();
    let output = lab.gateway.run([GATEPOST, "door", "--format", "json", "--socket", socket]);
    let all: Value = serde_json::from_str(&output).unwrap();
    let of_it = |state: &&Value| state["family"] == family;
    all.as_array().unwrap().iter().find(of_it).unwrap().clone()
}

fn wait_for(lab: &Lab, config: &Config, wanted: &str) -> Value {
    until(format_args!("a door that is {wanted}"), || {
        Some(door_state(lab, config, "ipv6")).filter(|state| state["status"]["state"] == wanted)
    })
}

/// Submits a message and waits until it is in the mailbox; returns the time that it took.
fn send(sender: &Sender<'_>, receiver: &Postfix<'_>, local_part: &str) -> Duration {
    let recipient = format!("{local_part}@receiver.example");
    sender.submit(&[&recipient], SHORT);
    let handed_over = Instant::now();
    receiver.message_to(&recipient);
    handed_over.elapsed()
}

const WAY_BACK: &str = r#"
[[policy]]
name = "the way back"
require = [{ fact = "return_path", level = "smtp", over = "same-family" }]
"#;

/// Sender domains by their exchange, with the reply to RCPT and its reason.
const SENDERS: [(&str, &str, Option<&str>); 4] = [
    ("good", "250", None),
    ("drops", "450 4.4.1", Some("return_path.no_response")),
    ("refuses", "450 4.4.1", Some("return_path.refused")),
    ("black-hole", "450 4.4.1", Some("return_path.established_but_stalled")),
];

fn facts_name_the_fault_of_the_path_and_traffic_replaces_probes() {
    let lab = Lab::new();
    let _world = World::new(&lab);
    // Our MTA runs on the gateway's host.
    let routes = ["takes", "drops", "refuses"]
        .map(|name| format!("{{ {name}.example = smtp:[{}] }}", receiver_ip(name, Family::Ipv6)));
    let own = Postfix::start(
        &lab,
        &lab.gateway,
        "own",
        None,
        &format!(
            "inet_interfaces = 127.0.0.1, ::1\nsmtp_connect_timeout = 2s\ntransport_maps = inline:{{ {} }}\n",
            routes.join(", ")
        ),
    );
    let connections = ConnectionCounters::start(&lab);
    let loopback = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port::SMTP);
    let config = Config::new(&lab, Mode::Proxy)
        .upstreams(&[loopback("::1"), loopback("127.0.0.1")])
        .trusting()
        .set("log", "format = \"json\"")
        .set("lookup", &format!("dns = [{ASKED:?}]"))
        .set("lookup", "deadline = \"2s\"")
        // Shorter than the deadline, or a stalling server would be *unknown* in the first session.
        .set("lookup", "probe_timeout = \"1500ms\"")
        .policies(WAY_BACK);

    // A session with small segments only does not notice a black hole.
    let mut gateway = Gateway::start(&lab, &config);
    let session = run_session(&lab, &gateway, "black-hole", "250");
    assert_eq!(session["facts"]["return_path"]["state"], "true", "{session}");
    gateway.terminate();
    gateway.wait();

    let config = config.set("lookup", "probe_large_segments = true");
    let mut gateway = Gateway::start(&lab, &config);
    for (domain, reply, reason) in SENDERS {
        let exchange = if domain == "good" { "takes" } else { domain };
        let before = connections.of(exchange);
        let session = run_session(&lab, &gateway, domain, reply);
        assert_eq!(session["verdict"]["reason"].as_str(), reason, "{domain}: {session}");
        assert_eq!(session["facts"]["return_path"]["source"], "probe", "{domain}: {session}");
        assert!(connections.of(exchange) > before, "{domain}: no probe");
    }
    gateway.terminate();
    gateway.wait();

    // Our MTA's own mail makes the facts known, without a probe.
    let config = config.set("watch", "interfaces = [\"client\"]");
    let gateway = Gateway::start(&lab, &config);
    let watching = gateway.wait_for_log("watching client by ");
    let mut known = vec![("good", "takes", "answered"), ("refuses", "refuses", "refused")];
    let has_ebpf = watching.contains("eBPF");
    if has_ebpf {
        known.push(("drops", "drops", "no_response"));
    }
    for (_, exchange, response) in &known {
        let mut smtp = lab.gateway.smtp(loopback("::1"));
        let to = format!("user@{exchange}.example");
        smtp.begin("us@example.org", &to);
        assert_eq!(smtp.data(b"Subject: passing\r\n\r\n").code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        own.wait_for_log(&to, |line| line.contains(&to) && line.contains("status="));
        let state = format!("state=\"{response}\"");
        let labels = ["family=\"ipv6\"", state.as_str()];
        gateway.wait_for_metric("gatepost_return_path_destinations", &labels, 1.0);
    }
    for (domain, exchange, _) in known {
        let before = connections.of(exchange);
        let (_, reply, reason) = SENDERS.into_iter().find(|(name, ..)| *name == domain).unwrap();
        let session = run_session(&lab, &gateway, domain, reply);
        assert_eq!(session["verdict"]["reason"].as_str(), reason, "{domain}: {session}");
        assert_eq!(session["facts"]["return_path"]["source"], "traffic", "{domain}: {session}");
        assert_eq!(connections.of(exchange), before, "{domain}: a probe");
    }
    if !has_ebpf {
        // Only the kernel of the MTA's own host reports the timeout; libpcap waits two minutes for another SYN.
        cannot_run(format_args!("needs eBPF for a destination that stays silent: {watching}"));
    }
}

/// A session of a sender at that domain over IPv6, whose RCPT gets that reply; returns its log entry.
fn run_session(lab: &Lab, gateway: &Gateway<'_>, domain: &str, reply: &str) -> Value {
    let entrance = lab.entrance(Mode::Proxy, Family::Ipv6);
    let mut smtp = lab.client.smtp_from(sender_ip("good", Family::Ipv6), entrance);
    let client = smtp.local_addr();
    smtp.dialogue(&format!(
        "S: 220\n C: EHLO good.client.example\n S: 250\n C: MAIL FROM:<a@{domain}.sender.example>\n S: 250"
    ));
    let received = smtp.ask("RCPT TO:<b@example.org>");
    let received = format!("{} {}", received.code, received.lines.join(" / "));
    assert!(received.starts_with(reply), "{domain}: {received}");
    smtp.dialogue("C: QUIT\n S: 221");
    until("a session in the log", || {
        let log = gateway.log();
        let mut sessions = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        sessions.find(|session: &Value| {
            let from = &session["client"];
            let address = from["address"].as_str().and_then(|ip| ip.parse::<IpAddr>().ok());
            address == Some(client.ip()) && from["port"] == client.port()
        })
    })
}

/// Counts the connections to the senders' exchanges over IPv6: SYNs at their host.
struct ConnectionCounters<'lab>(&'lab Lab);

impl<'lab> ConnectionCounters<'lab> {
    fn start(lab: &'lab Lab) -> Self {
        let (mut counters, mut rules) = (String::new(), String::new());
        for (name, counter) in EXCHANGES {
            let ip = receiver_ip(name, Family::Ipv6);
            counters += &format!("counter {counter} {{ }}\n");
            rules += &format!(
                "ip6 daddr {ip} tcp dport 25 tcp flags & (syn | ack) == syn counter name {counter}\n"
            );
        }
        // Before the drop rules of [`World`].
        let chain = format!("chain in {{ type filter hook input priority -200; {rules} }}");
        lab.client.run(["nft", &format!("table inet syns {{ {counters} {chain}\n }}")]);
        Self(lab)
    }

    fn of(&self, exchange: &str) -> u64 {
        let (_, counter) = EXCHANGES.into_iter().find(|(name, _)| *name == exchange).unwrap();
        let listing = self.0.client.run(["nft", "list", "counter", "inet", "syns", counter]);
        let (_, rest) = listing.split_once("packets ").unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// The exchanges, and their counters, whose names in nft cannot have a hyphen.
const EXCHANGES: [(&str, &str); 4] =
    [("takes", "takes"), ("drops", "drops"), ("refuses", "refuses"), ("black-hole", "black_hole")];
