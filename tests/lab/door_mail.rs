//! The door of a running gateway: a sending Postfix prefers IPv6, is refused by the closed door and delivers over IPv4; and
//! the state after a kill -9.

use std::net::{IpAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::harness::tests;
use crate::support::sites::{Sender, ZONES, dns_with, receiver};
use crate::support::{Config, Entrance, Family, Gateway, Lab, Mode, Postfix, Transport, until};
use serde_json::Value;

tests![
    a_message_goes_over_ipv4_at_once_proxy_syn,
    a_message_goes_over_ipv4_at_once_proxy_smtp,
    a_message_goes_over_ipv4_at_once_tproxy_syn,
    kill_9_leaves_no_closed_door,
    a_door_is_held_open_while_the_other_family_is_down_too,
    without_a_section_there_is_no_door,
    sessions_that_stall_in_data_close_the_door_until_a_trial_succeeds,
    sessions_that_stall_inside_tls_close_the_door_until_a_trial_succeeds_proxy,
    sessions_that_stall_inside_tls_close_the_door_until_a_trial_succeeds_tproxy,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// The promised limit for a message whose first family is refused.
const FALL_BACK: Duration = Duration::from_secs(2);
const SHORT: usize = 600;

/// `gatepost door` on the gateway's host.
fn door(lab: &Lab, config: &Config, arguments: &[&str]) -> String {
    let socket = config.socket().to_str().unwrap();
    lab.gateway.run([&[GATEPOST, "door"], arguments, &["--socket", socket]].concat())
}

fn state(lab: &Lab, config: &Config, family: &str) -> Value {
    let all: Value = serde_json::from_str(&door(lab, config, &["--format", "json"])).unwrap();
    let of_it = |entry: &&Value| entry["family"] == family;
    all.as_array().unwrap().iter().find(of_it).unwrap().clone()
}

fn a_message_goes_over_ipv4_at_once_proxy_syn() {
    falls_back(Mode::Proxy, "syn");
}

fn a_message_goes_over_ipv4_at_once_proxy_smtp() {
    falls_back(Mode::Proxy, "smtp");
}

fn a_message_goes_over_ipv4_at_once_tproxy_syn() {
    falls_back(Mode::Tproxy, "syn");
}

fn falls_back(mode: Mode, refuse: &str) {
    let lab = Lab::new();
    // In proxy mode the MX points to the gateway.
    let own = "@ MX 10 mx\nmx A 192.0.2.1\nmx AAAA 2001:db8:1::1\n";
    let [(receiver_zone, there), others @ ..] = ZONES;
    let records = if mode == Mode::Proxy { own } else { there };
    let zones = [&[(receiver_zone, records)][..], &others].concat();
    let _dns = dns_with(&lab, &zones);
    let receiver = receiver(&lab, "");
    let sender = Sender::by_mx(&lab, "");
    let config = Config::new(&lab, mode).set("door", &format!("refuse = {refuse:?}"));
    let gateway = Gateway::start(&lab, &config);

    // With an open door the message goes over IPv6, and proves the receive path.
    assert_eq!(state(&lab, &config, "ipv6")["status"]["state"], "opening");
    send(&sender, &receiver, "first");
    gateway.wait_for_metric("gatepost_messages_total", &["family=\"ipv6\"", "class=\"2xx\""], 1.0);
    until("a proven IPv6", || {
        (state(&lab, &config, "ipv6")["status"]["reason"] == "proven").then_some(())
    });

    let printed = door(&lab, &config, &["ipv6", "close"]);
    assert!(printed.contains("IPv6      CLOSED, manual: refuses new sessions, since"), "{printed}");
    assert!(printed.contains("IPv4      always open"), "{printed}");
    assert!(printed.lines().all(|line| line.chars().count() <= 100), "{printed}");
    let took = send(&sender, &receiver, "second");
    eprintln!("{mode}, {refuse}: the message arrived over IPv4 after {} ms", took.as_millis());
    assert!(took < FALL_BACK, "{took:?}");
    gateway.wait_for_metric("gatepost_messages_total", &["family=\"ipv4\"", "class=\"2xx\""], 1.0);
    let method = format!("method=\"{refuse}\"");
    gateway.wait_for_metric("gatepost_door_refused_total", &["family=\"ipv6\"", &method], 1.0);
    gateway.wait_for_metric("gatepost_door_state", &["family=\"ipv6\"", "state=\"closed\""], 1.0);
    assert_eq!(state(&lab, &config, "ipv6")["refused"], 1);

    door(&lab, &config, &["ipv6", "open"]);
    send(&sender, &receiver, "third");
    gateway.wait_for_metric("gatepost_messages_total", &["family=\"ipv6\"", "class=\"2xx\""], 2.0);
    let log = gateway.log();
    assert!(log.contains("door ipv6: closed, was open: closed by an operator (operator)"), "{log}");
}

/// Submits a message and waits until it is in the mailbox; returns the time that it took.
fn send(sender: &Sender<'_>, receiver: &Postfix<'_>, local_part: &str) -> Duration {
    let recipient = format!("{local_part}@receiver.example");
    sender.submit(&[&recipient], SHORT);
    let handed_over = Instant::now();
    receiver.message_to(&recipient);
    handed_over.elapsed()
}

fn kill_9_leaves_no_closed_door() {
    for mode in Mode::ALL {
        let lab = Lab::new();
        let config = Config::new(&lab, mode).set("door.ipv6", "min_hold = \"1s\"");
        let mut gateway = Gateway::start(&lab, &config);
        let (to, v4) = (lab.entrance(mode, Family::Ipv6), lab.entrance(mode, Family::Ipv4));
        door(&lab, &config, &["ipv6", "close"]);
        assert_eq!(refused(&lab, to), Some(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(refused(&lab, v4), None);
        gateway.kill();
        // A connection now reaches the listener of the host, or the server behind it.
        let host = if mode == Mode::Proxy { &lab.gateway } else { &lab.server };
        let listener = host.in_thread(|| TcpListener::bind(to).unwrap());
        assert_eq!(refused(&lab, to), None, "{mode}");
        drop(listener);
        gateway.kill_and_start_again();
        assert_eq!(state(&lab, &config, "ipv6")["status"]["state"], "opening");
        assert_eq!(refused(&lab, to), None);
    }
}

fn refused(lab: &Lab, to: std::net::SocketAddr) -> Option<std::io::ErrorKind> {
    lab.client.connect(to).err().map(|error| error.kind())
}

/// Without an upstream in either family, closing IPv6 would be useless; the output has the reason.
fn a_door_is_held_open_while_the_other_family_is_down_too() {
    let lab = Lab::new();
    let config = Config::new(&lab, Mode::Proxy)
        .set("door.ipv6", "min_hold = \"1s\"")
        .set("door.ipv6", "grace = \"0s\"");
    let gateway = Gateway::start(&lab, &config);
    let mut session = lab.client.smtp(lab.entrance(Mode::Proxy, Family::Ipv6));
    session.expect_last_reply("421 4.3.2");
    until("a door that is held open", || {
        (state(&lab, &config, "ipv6")["status"]["reason"] == "other_family_down").then_some(())
    });
    let printed = door(&lab, &config, &[]);
    assert!(printed.contains("held open although no upstream accepts its sessions"), "{printed}");
    drop(gateway);
}

fn without_a_section_there_is_no_door() {
    let lab = Lab::new();
    let config = Config::new(&lab, Mode::Proxy);
    let _gateway = Gateway::start(&lab, &config);
    let socket = config.socket().to_str().unwrap();
    let output = lab.gateway.output([GATEPOST, "door", "--socket", socket]);
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains("its configuration has no [door]"), "{stderr}");
}

fn sessions_that_stall_in_data_close_the_door_until_a_trial_succeeds() {
    stalls_close_the_door(Mode::Proxy, Transport::Plaintext);
}

fn sessions_that_stall_inside_tls_close_the_door_until_a_trial_succeeds_proxy() {
    stalls_close_the_door(Mode::Proxy, Transport::OwnTls);
}

fn sessions_that_stall_inside_tls_close_the_door_until_a_trial_succeeds_tproxy() {
    stalls_close_the_door(Mode::Tproxy, Transport::OwnTls);
}

/// Large packets are lost on the way in: IPv6 sessions stall in DATA, while IPv4 delivers. An accepted message is the proof
/// that opens the door again.
fn stalls_close_the_door(mode: Mode, transport: Transport) {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let entrance = Entrance::new(&lab, mode, transport);
    let mut config = entrance.config().set("timeouts", "data = \"1s\"");
    for line in [
        "stall_threshold = 2",
        "stall_duration = \"1s\"",
        "grace = \"0s\"",
        "min_hold = \"1s\"",
        "retry = \"3s\"",
    ] {
        config = config.set("door.ipv6", line);
    }
    let gateway = Gateway::start(&lab, &config);
    let [v6, v4] = Family::ALL.map(|family| entrance.address(family));
    for network in 1..=3 {
        let from: IpAddr = format!("2001:db8:f{network}::1").parse().unwrap();
        lab.add_client_ip(from);
        let mut session = entrance.connect_from(from, Family::Ipv6);
        session.begin("a@example.net", "stalled@example.org");
        session.dialogue("C: DATA\n S: 354");
        session.raw(b"Subject: only as much as fits a small packet\r\n").unwrap();
        session.expect_last_reply("421 4.4.2");
    }
    // Until the other family delivers, the fault may be in the MTA.
    assert!(state(&lab, &config, "ipv6")["status"]["admits"].as_bool().unwrap());
    let mut other = entrance.connect(Family::Ipv4);
    other.begin("a@example.net", "v4@example.org");
    assert_eq!(other.data(b"Subject: v4\r\n\r\n").code, 250);
    other.dialogue("C: QUIT\n S: 221");

    gateway.wait_for_log("door ipv6: closed, was closing: 3 sessions from 3 networks in ");
    // In tproxy mode nftables closes and opens it a moment after the decision.
    until("a closed door", || {
        (refused(&lab, v6) == Some(std::io::ErrorKind::ConnectionRefused)).then_some(())
    });
    assert_eq!(refused(&lab, v4), None);

    gateway.wait_for_log("door ipv6: opening, was closed: trial after ");
    until("an open door", || refused(&lab, v6).is_none().then_some(()));
    let mut session = entrance.connect(Family::Ipv6);
    session.begin("a@example.net", "v6@example.org");
    assert_eq!(session.data(b"Subject: v6\r\n\r\n").code, 250);
    session.dialogue("C: QUIT\n S: 221");
    gateway.wait_for_log("door ipv6: open, was opening: a message was accepted");
    let proof = state(&lab, &config, "ipv6")["status"]["proof"].clone();
    assert_eq!(proof["by"], "message", "{proof}");
    assert_eq!(postfix.count_to("stalled@example.org"), 0);
}
