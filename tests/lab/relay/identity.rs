//! Postfix's own log has the true client address and HELO, by each `identity` of the gateway.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::tests;
use crate::support::{
    Config, Entrance, Family, Gateway, Lab, Mode, Postfix, Smtp, Transport, port,
};

tests![
    postfix_logs_the_true_client_proxy_v1,
    postfix_logs_the_true_client_proxy_v2,
    postfix_logs_the_true_client_xclient,
    postfix_logs_the_true_client_transparent_tproxy,
    postfix_logs_the_true_client_transparent_proxy,
    postfix_logs_the_gateway_without_an_identity,
    postfix_logs_the_true_client_of_the_other_family,
];

fn postfix_logs_the_true_client_proxy_v1() {
    postfix_logs_the_true_client("proxy-v1", port::PROXY_PROTOCOL);
}

fn postfix_logs_the_true_client_proxy_v2() {
    postfix_logs_the_true_client("proxy-v2", port::PROXY_PROTOCOL);
}

fn postfix_logs_the_true_client_xclient() {
    postfix_logs_the_true_client("xclient", port::XCLIENT);
}

/// Interception is transparent by default: no identity, and no upstream but the original destination.
fn postfix_logs_the_true_client_transparent_tproxy() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    for transport in Transport::ALL {
        let entrance = Entrance::new(&lab, Mode::Tproxy, transport);
        let _gateway = Gateway::start(&lab, &entrance.config());
        expect_true_clients(&postfix, &entrance);
    }
}

/// In proxy mode too the gateway can be transparent towards the server, if replies are routed to its sockets.
fn postfix_logs_the_true_client_transparent_proxy() {
    let lab = Lab::new();
    for family in ["-4", "-6"] {
        lab.gateway.run(["ip", family, "rule", "add", "fwmark", "7", "lookup", "77"]);
        lab.gateway
            .run(["ip", family, "route", "add", "local", "default", "dev", "lo", "table", "77"]);
    }
    lab.gateway.run([
        "nft",
        "add table inet answers;
         add chain inet answers in { type filter hook prerouting priority mangle; };
         add rule inet answers in iif server tcp sport 25 socket transparent 1 meta mark set 7",
    ]);
    let postfix = Postfix::receiver(&lab);
    for transport in Transport::ALL {
        let entrance = Entrance::new(&lab, Mode::Proxy, transport);
        let config = entrance.config().set("upstream", "identity = \"transparent\"");
        let _gateway = Gateway::start(&lab, &config);
        expect_true_clients(&postfix, &entrance);
    }
}

/// Without an identity Postfix sees the gateway: proof that the tests above can fail.
fn postfix_logs_the_gateway_without_an_identity() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let entrance = Entrance::new(&lab, Mode::Proxy, Transport::Plaintext);
    for family in Family::ALL {
        let upstream = SocketAddr::new(lab.server_ip(family), port::SMTP);
        let config = entrance.config().upstreams(&[upstream]);
        let _gateway = Gateway::start(&lab, &config);
        let gateway = lab.gateway_ip_at_server(family);
        expect_client(&postfix, &entrance, family, gateway);
    }
}

/// The client's family and the upstream's may differ.
fn postfix_logs_the_true_client_of_the_other_family() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    for transport in Transport::ALL {
        let entrance = Entrance::new(&lab, Mode::Proxy, transport);
        for (identity, port) in [("proxy-v2", port::PROXY_PROTOCOL), ("xclient", port::XCLIENT)] {
            for [family, other] in [[Family::Ipv4, Family::Ipv6], [Family::Ipv6, Family::Ipv4]] {
                eprintln!("case: {family} client, {other} upstream, {identity}, {transport}");
                let config = with_identity(&entrance, identity)
                    .upstreams(&[SocketAddr::new(lab.server_ip(other), port)]);
                let _gateway = Gateway::start(&lab, &config);
                expect_client(&postfix, &entrance, family, lab.client_ip(family));
            }
        }
    }
}

fn postfix_logs_the_true_client(identity: &str, port: u16) {
    for mode in Mode::ALL {
        let lab = Lab::new();
        let postfix = Postfix::receiver(&lab);
        for transport in Transport::ALL {
            eprintln!("case: {mode}, {identity}, {transport}");
            let entrance = Entrance::new(&lab, mode, transport);
            let config = with_identity(&entrance, identity).upstream_port(&lab, port);
            let _gateway = Gateway::start(&lab, &config);
            expect_true_clients(&postfix, &entrance);
        }
    }
}

fn with_identity(entrance: &Entrance<'_>, identity: &str) -> Config {
    let config = entrance.config().set("upstream", &format!("identity = {identity:?}"));
    if entrance.is_tls() {
        return config;
    }
    // XCLIENT requires it where the gateway does not end TLS.
    config.set("smtp", "hide = [\"STARTTLS\"]")
}

fn expect_true_clients(postfix: &Postfix<'_>, entrance: &Entrance<'_>) {
    for family in Family::ALL {
        expect_client(postfix, entrance, family, entrance.client_ip(family));
    }
}

/// Delivers a message after each form of EHLO and HELO, and checks Postfix's log.
fn expect_client(postfix: &Postfix<'_>, entrance: &Entrance<'_>, family: Family, client: IpAddr) {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);

    let literal = match entrance.client_ip(family) {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    };
    // Postfix keeps ESMTP once EHLO was sent, as it is before STARTTLS.
    let after_helo = if entrance.is_tls() { "ESMTP" } else { "SMTP" };
    let hellos = [
        ("EHLO client.example.net".to_owned(), "ESMTP", "client.example.net"),
        ("HELO old.example.net".to_owned(), after_helo, "old.example.net"),
        (format!("EHLO {literal}"), "ESMTP", literal.as_str()),
        (
            "EHLO first.example.net\r\nEHLO second.example.net".to_owned(),
            "ESMTP",
            "second.example.net",
        ),
    ];
    for (hello, protocol, name) in &hellos {
        let recipient =
            format!("recipient-{}@example.org", COUNTER.fetch_add(1, Ordering::Relaxed));
        deliver(entrance.connect(family), hello, &recipient);
        let line = postfix.wait_for_log(&recipient, |line| {
            line.contains("info: RCPT from ") && line.contains(&format!("to=<{recipient}>"))
        });
        for expected in [
            format!(" RCPT from unknown[{client}]: "),
            format!(" proto={protocol} "),
            format!(" helo=<{name}>"),
        ] {
            assert!(line.contains(&expected), "{hello:?}: no {expected:?} in\n{line}");
        }
        postfix.take_message_to(&recipient);
    }
}

fn deliver(mut smtp: Smtp, hello: &str, recipient: &str) {
    smtp.dialogue("S: 220");
    for line in hello.lines() {
        assert_eq!(smtp.ask(line).code, 250);
    }
    smtp.dialogue(&format!(
        "C: MAIL FROM:<sender@example.net>
         S: 250
         C: RCPT TO:<{recipient}>
         S: 250"
    ));
    assert_eq!(smtp.data(b"Subject: who am I\r\n\r\nhello\r\n").code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
}
