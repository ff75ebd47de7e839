//! The choice of the upstream: addresses raced across families (RFC 8305), remembered health, `/readyz`, and a new upstream
//! by SIGHUP.

use std::net::{SocketAddr, TcpListener};

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, port, until};

tests![
    a_black_hole_falls_back_to_the_other_family,
    black_holes_everywhere_end_with_421,
    a_refusal_does_not_wait_for_the_attempt_delay,
    a_failed_upstream_is_tried_last_until_retry_after,
    without_an_upstream_it_is_not_ready,
    checks_find_an_upstream_that_is_down_without_mail,
    checks_find_an_upstream_that_never_greets,
    an_upstream_without_a_source_address_is_unreachable,
    checks_have_the_identity_that_the_upstream_expects,
    sighup_moves_new_sessions_and_leaves_those_in_progress,
];

/// A closed port.
const DEAD: u16 = 26;
const DEAD_TOO: u16 = 27;

const ATTEMPTS: &str = "gatepost_upstream_attempts_total";

fn a_black_hole_falls_back_to_the_other_family() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    for family in Family::ALL {
        eprintln!("case: {family}");
        let config = Config::new(&lab, Mode::Proxy).set("upstream", "retry_after = \"10m\"");
        let gateway = Gateway::start(&lab, &config);
        let _hole = BlackHole::dig(&lab, &[family]);
        expect_upstream(&lab, &gateway, family, lab.server_socket(family.other(), port::SMTP));
        gateway.wait_for_metric(ATTEMPTS, &["outcome=\"lost\"", &family.label()], 1.0);
        let other = family.other().label();
        gateway.wait_for_metric(ATTEMPTS, &["outcome=\"connected\"", &other], 1.0);
        gateway.wait_for_metric(ATTEMPTS, &[], 2.0);
        // The failure is remembered: the next session tries the other address first.
        expect_upstream(&lab, &gateway, family, lab.server_socket(family.other(), port::SMTP));
        gateway.wait_for_metric(ATTEMPTS, &["outcome=\"connected\"", &other], 2.0);
        gateway.wait_for_metric(ATTEMPTS, &[], 3.0);
    }
}

fn black_holes_everywhere_end_with_421() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Proxy)
        .set("upstream", "attempt_delay = \"50ms\"")
        .set("upstream", "connect_timeout = \"500ms\"")
        .set("upstream", "retry_after = \"10m\"");
    for family in Family::ALL {
        eprintln!("case: {family}");
        let gateway = Gateway::start(&lab, &config);
        let hole = BlackHole::dig(&lab, &Family::ALL);
        expect_unavailable(&lab, family);
        for upstream in Family::ALL {
            let labels = ["outcome=\"timeout\"", &upstream.label()];
            gateway.wait_for_metric(ATTEMPTS, &labels, 1.0);
        }
        gateway.wait_for_readiness(503);
        drop(hole);
        expect_upstream(&lab, &gateway, family, lab.server_socket(family, port::SMTP));
        gateway.wait_for_readiness(200);
    }
}

/// After a refusal the next address is tried at once: with the attempt delay each time, the session would time out.
fn a_refusal_does_not_wait_for_the_attempt_delay() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    for family in Family::ALL {
        eprintln!("case: {family}");
        let other = family.other();
        let alive = lab.server_socket(other, port::SMTP);
        // In order of the attempts.
        let dead = [(family, DEAD), (other, DEAD), (family, DEAD_TOO)]
            .map(|(family, port)| lab.server_socket(family, port));
        let config = Config::new(&lab, Mode::Proxy)
            .upstreams(&[dead[0], dead[1], dead[2], alive])
            .set("upstream", "attempt_delay = \"2s\"")
            .set("upstream", "connect_timeout = \"5s\"");
        let gateway = Gateway::start(&lab, &config);
        expect_upstream(&lab, &gateway, family, alive);
        gateway.wait_for_metric(ATTEMPTS, &["outcome=\"refused\"", &family.label()], 2.0);
        gateway.wait_for_metric(ATTEMPTS, &["outcome=\"refused\"", &other.label()], 1.0);
        gateway.wait_for_metric(ATTEMPTS, &["outcome=\"connected\"", &other.label()], 1.0);
    }
}

fn a_failed_upstream_is_tried_last_until_retry_after() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    for family in Family::ALL {
        let dead = lab.server_socket(family, DEAD);
        let alive = lab.server_socket(family.other(), port::SMTP);
        let gateway_with = |retry_after: &str| {
            let config = Config::new(&lab, Mode::Proxy)
                .upstreams(&[dead, alive])
                .set("upstream", &format!("retry_after = {retry_after:?}"));
            Gateway::start(&lab, &config)
        };
        let refused = ["outcome=\"refused\"", &family.label()];

        eprintln!("case: {family}, remembered");
        let gateway = gateway_with("1h");
        for _ in 0..3 {
            expect_upstream(&lab, &gateway, family, alive);
        }
        let connected = ["outcome=\"connected\"", &family.other().label()];
        gateway.wait_for_metric(ATTEMPTS, &connected, 3.0);
        gateway.wait_for_metric(ATTEMPTS, &refused, 1.0);
        drop(gateway);

        eprintln!("case: {family}, forgotten");
        let gateway = gateway_with("100ms");
        until("the address that failed to be tried first again", || {
            expect_upstream(&lab, &gateway, family, alive);
            (gateway.metric(ATTEMPTS, &refused) >= 2.0).then_some(())
        });
    }
}

fn without_an_upstream_it_is_not_ready() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    // So long that only a session's own attempt makes it ready again.
    let config = Config::new(&lab, Mode::Proxy).set("upstream", "retry_after = \"1h\"");
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_readiness(200);
    for (round, family) in Family::ALL.into_iter().enumerate() {
        eprintln!("case: {family}");
        postfix.stop();
        expect_unavailable(&lab, family);
        let labels = ["reason=\"upstream_unavailable\"", &family.label()];
        gateway.wait_for_metric("gatepost_refusals_total", &labels, 1.0);
        for upstream in Family::ALL {
            let labels = ["outcome=\"refused\"", &upstream.label()];
            gateway.wait_for_metric(ATTEMPTS, &labels, (round + 1) as f64);
        }
        gateway.wait_for_readiness(503);
        postfix.start_again();
        expect_upstream(&lab, &gateway, family, lab.server_socket(family, port::SMTP));
        gateway.wait_for_readiness(200);
    }
}

fn checks_find_an_upstream_that_is_down_without_mail() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Proxy).with_upstream_checks());
    gateway.wait_for_readiness(200);
    // Without a check on its way: one that Postfix ends has no greeting.
    until("checks of both families", || {
        (postfix.log().matches(" quit=1").count() >= 2).then_some(())
    });
    postfix.stop();
    gateway.wait_for_readiness(503);
    for family in Family::ALL {
        let down = ["state=\"down\"", &family.label()];
        gateway.wait_for_metric("gatepost_upstreams", &down, 1.0);
        let upstream = lab.server_socket(family, port::SMTP);
        gateway.wait_for_log(&format!("upstream {upstream} is down: connection refused"));
    }
    postfix.start_again();
    gateway.wait_for_readiness(200);
    for family in Family::ALL {
        let upstream = lab.server_socket(family, port::SMTP);
        gateway.wait_for_log(&format!("upstream {upstream} is up again"));
    }
    assert_eq!(gateway.metric("gatepost_sessions_total", &[]), 0.0, "checks are no sessions");
    let log = postfix.log();
    assert!(!log.contains("lost connection"), "{log}");
}

/// It accepts connections: only the missing greeting shows it.
fn checks_find_an_upstream_that_never_greets() {
    let lab = Lab::new();
    let address = lab.server_socket(Family::Ipv6, port::SMTP);
    let _mute = lab.server.in_thread(|| TcpListener::bind(address)).unwrap();
    let config = Config::new(&lab, Mode::Proxy).upstreams(&[address]).with_upstream_checks();
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log(" is down: timeout");
    gateway.wait_for_readiness(503);
}

/// With IPv6 disabled a connection to `::1` fails like one for which no local port is left.
fn an_upstream_without_a_source_address_is_unreachable() {
    let lab = Lab::new();
    lab.gateway.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
    let config = Config::new(&lab, Mode::Proxy)
        .metrics("127.0.0.1:9625")
        .listen(&[lab.entrance(Mode::Proxy, Family::Ipv4)])
        .upstreams(&["[::1]:25".parse().unwrap()])
        .set("upstream", "identity = \"proxy-v2\"")
        .with_upstream_checks();
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log("upstream [::1]:25 is down: unreachable");
    expect_unavailable(&lab, Family::Ipv4);
    let line = gateway.wait_for_log("reason=\"upstream_unavailable\"");
    assert!(
        line.contains("upstream_error=\"[::1]:25: cannot assign requested address\""),
        "{line}"
    );
}

fn checks_have_the_identity_that_the_upstream_expects() {
    for (identity, protocol) in [("proxy-v1", true), ("proxy-v2", true), ("xclient", false)] {
        eprintln!("case: {identity}");
        let lab = Lab::new();
        let main_cf = if protocol { "smtpd_upstream_proxy_protocol = haproxy" } else { "" };
        let postfix = Postfix::start(&lab, &lab.server, "receiver", None, main_cf);
        let config = Config::new(&lab, Mode::Proxy)
            .set("upstream", &format!("identity = {identity:?}"))
            .set("smtp", "hide = [\"STARTTLS\"]")
            .with_upstream_checks();
        let gateway = Gateway::start(&lab, &config);
        for family in Family::ALL {
            let own = lab.gateway_ip_at_server(family);
            postfix.wait_for_log("a check", |line| {
                line.contains(&format!("disconnect from unknown[{own}] quit=1"))
            });
        }
        gateway.wait_for_readiness(200);
        drop(gateway);
    }
}

/// A session keeps the configuration of its start.
fn sighup_moves_new_sessions_and_leaves_those_in_progress() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let old = Family::ALL.map(|family| SocketAddr::new(lab.gateway_ip(family), port::SMTP));
    let new = Family::ALL.map(|family| SocketAddr::new(lab.gateway_ip(family), 2525));
    let config = Config::new(&lab, Mode::Proxy).listen(&old);
    let gateway = Gateway::start(&lab, &config);
    let mut in_progress = Family::ALL.map(|family| {
        let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
        smtp.begin("sender@example.net", &format!("old-{family}@example.org"));
        smtp.dialogue("C: DATA\n S: 354");
        smtp.raw(b"Subject: sighup\r\n\r\nhalf of it,\r\n").unwrap();
        smtp
    });

    gateway.reload(&config.listen(&new).upstream_port(&lab, port::DIRECT).toml());
    gateway.wait_for_log("configuration reloaded");
    for (number, family) in Family::ALL.into_iter().enumerate() {
        eprintln!("case: {family}");
        until("the end of the old listener", || lab.client.connect(old[number]).err());

        let mut smtp = lab.client.smtp(new[number]);
        let recipient = format!("new-{family}@example.org");
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(b"Subject: sighup\r\n\r\nhello\r\n").code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        let line = gateway.wait_for_log(&format!(" to=<{recipient}> "));
        let upstream = lab.server_socket(family, port::DIRECT);
        let expected = format!(" server={} upstream={upstream} ", new[number]);
        assert!(line.contains(&expected), "no {expected:?} in\n{line}");

        let smtp = &mut in_progress[number];
        smtp.raw(b"and the other half\r\n.\r\n").unwrap();
        smtp.dialogue("S: 250\n C: QUIT\n S: 221");
        let recipient = format!("old-{family}@example.org");
        let stored = postfix.message_to(&recipient);
        assert!(stored.content.ends_with(b"half of it,\nand the other half\n"));
        let line = gateway.wait_for_log(&format!(" to=<{recipient}> "));
        let upstream = lab.server_socket(family, port::SMTP);
        let expected = format!(" server={} upstream={upstream} ", old[number]);
        assert!(line.contains(&expected), "no {expected:?} in\n{line}");
    }
}

/// Upstream's port 25 drops SYNs, in those families.
pub(super) struct BlackHole<'lab>(&'lab Lab);

impl<'lab> BlackHole<'lab> {
    pub(super) fn dig(lab: &'lab Lab, families: &[Family]) -> Self {
        let mut script = "add table inet hole;
             add chain inet hole in { type filter hook input priority 0; };\n"
            .to_owned();
        for family in families {
            script.push_str(&format!(
                "add rule inet hole in meta nfproto {family} tcp dport {} drop;\n",
                port::SMTP
            ));
        }
        lab.server.run(["nft", &script]);
        Self(lab)
    }
}

impl Drop for BlackHole<'_> {
    fn drop(&mut self) {
        let _ = self.0.server.output(["nft", "delete table inet hole"]);
    }
}

/// Checks that a session of that family is relayed to that upstream.
#[track_caller]
fn expect_upstream(lab: &Lab, gateway: &Gateway<'_>, family: Family, upstream: SocketAddr) {
    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
    smtp.dialogue("S: 220\n C: QUIT\n S: 221");
    let line = gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()));
    assert!(line.contains(&format!(" upstream={upstream} ")), "not {upstream} in\n{line}");
}

#[track_caller]
pub(super) fn expect_unavailable(lab: &Lab, family: Family) {
    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
    smtp.expect_last_reply("421 4.3.2 ");
}
