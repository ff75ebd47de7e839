//! Postfix's own log has the true client address and HELO, by each `identity` of the gateway.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Smtp, port};

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
    for mode in Mode::ALL {
        postfix_logs_the_true_client(mode, "proxy-v1", port::PROXY_PROTOCOL);
    }
}

fn postfix_logs_the_true_client_proxy_v2() {
    for mode in Mode::ALL {
        postfix_logs_the_true_client(mode, "proxy-v2", port::PROXY_PROTOCOL);
    }
}

fn postfix_logs_the_true_client_xclient() {
    for mode in Mode::ALL {
        postfix_logs_the_true_client(mode, "xclient", port::XCLIENT);
    }
}

/// Interception is transparent by default: no identity, and no upstream but the original destination.
fn postfix_logs_the_true_client_transparent_tproxy() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let _gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Tproxy));
    for family in Family::ALL {
        expect_client(&lab, &postfix, Mode::Tproxy, family, lab.client_ip(family));
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
    let config = Config::new(&lab, Mode::Proxy).set("upstream", "identity = \"transparent\"");
    let _gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        expect_client(&lab, &postfix, Mode::Proxy, family, lab.client_ip(family));
    }
}

/// Without an identity Postfix sees the gateway: proof that the tests above can fail.
fn postfix_logs_the_gateway_without_an_identity() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    for family in Family::ALL {
        let upstream = SocketAddr::new(lab.server_ip(family), port::SMTP);
        let config = Config::new(&lab, Mode::Proxy).upstreams(&[upstream]);
        let _gateway = Gateway::start(&lab, &config);
        let gateway = lab.gateway_ip_at_server(family);
        expect_client(&lab, &postfix, Mode::Proxy, family, gateway);
    }
}

/// The client's family and the upstream's may differ.
fn postfix_logs_the_true_client_of_the_other_family() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    for (identity, port) in [("proxy-v2", port::PROXY_PROTOCOL), ("xclient", port::XCLIENT)] {
        for [family, other] in [[Family::Ipv4, Family::Ipv6], [Family::Ipv6, Family::Ipv4]] {
            eprintln!("case: {family} client, {other} upstream, {identity}");
            let config = Config::new(&lab, Mode::Proxy)
                .upstreams(&[SocketAddr::new(lab.server_ip(other), port)])
                .set("upstream", &format!("identity = {identity:?}"))
                .set("smtp", "hide = [\"STARTTLS\"]");
            let _gateway = Gateway::start(&lab, &config);
            expect_client(&lab, &postfix, Mode::Proxy, family, lab.client_ip(family));
        }
    }
}

fn postfix_logs_the_true_client(mode: Mode, identity: &str, port: u16) {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, mode)
        .upstream_port(&lab, port)
        .set("upstream", &format!("identity = {identity:?}"))
        // XCLIENT requires it.
        .set("smtp", "hide = [\"STARTTLS\"]");
    let _gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        eprintln!("case: {family}, {mode}, {identity}");
        expect_client(&lab, &postfix, mode, family, lab.client_ip(family));
    }
}

/// Delivers a message after each form of EHLO and HELO, and checks Postfix's log.
fn expect_client(lab: &Lab, postfix: &Postfix<'_>, mode: Mode, family: Family, client: IpAddr) {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);

    let literal = match lab.client_ip(family) {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    };
    let hellos = [
        ("EHLO client.example.net".to_owned(), "ESMTP", "client.example.net"),
        ("HELO old.example.net".to_owned(), "SMTP", "old.example.net"),
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
        deliver(lab.client.smtp(lab.entrance(mode, family)), hello, &recipient);
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
