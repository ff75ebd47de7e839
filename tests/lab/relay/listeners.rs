//! Several listeners in one gateway: each with its upstream, its rules and its counts, and changed by SIGHUP.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Smtp, port, until};

tests![
    each_listener_has_its_own_upstream_rules_and_counts,
    an_upstream_that_is_down_concerns_its_own_listener,
    a_trusted_proxy_is_one_of_its_listener,
    intercepted_mail_and_submission_share_a_gateway,
    sighup_adds_moves_and_removes_listeners_under_traffic,
];

const SUBMISSION: u16 = 587;
const INTERNAL: u16 = 2526;
/// Where smtp-sink listens.
const SINK: u16 = 2527;

const SESSIONS: &str = "gatepost_listener_sessions_total";
const MESSAGES: &str = "gatepost_listener_messages_total";

/// The addresses of both families on a port of the gateway, as a list in TOML.
fn on_gateway(lab: &Lab, port: u16) -> String {
    list(Family::ALL.map(|family| at_gateway(lab, family, port)))
}

fn on_server(lab: &Lab, port: u16) -> String {
    list(Family::ALL.map(|family| lab.server_socket(family, port)))
}

fn list(addresses: [SocketAddr; 2]) -> String {
    format!("{:?}", addresses.map(|address| address.to_string()))
}

fn at_gateway(lab: &Lab, family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(lab.gateway_ip(family), port)
}

/// A `[[listener]]` on both families of `listen`, for an upstream on both families of `upstream`.
fn listener(lab: &Lab, name: &str, listen: u16, upstream: u16) -> String {
    format!(
        "[[listener]]\nname = {name:?}\naddresses = {}\n[listener.upstream]\naddresses = {}\ncheck = \"none\"\n\n",
        on_gateway(lab, listen),
        on_server(lab, upstream)
    )
}

fn with_listeners(lab: &Lab, sections: &str) -> Config {
    Config::new(lab, Mode::Proxy).without("listen").without("upstream").policies(sections)
}

/// Delivers a message and returns the session's line in the log.
fn deliver(lab: &Lab, gateway: &Gateway<'_>, to: SocketAddr, recipient: &str) -> String {
    let mut smtp = lab.client.smtp(to);
    finish(begin(&mut smtp, recipient));
    gateway.wait_for_log(&format!(" to=<{recipient}> "))
}

fn begin<'s>(smtp: &'s mut Smtp, recipient: &str) -> &'s mut Smtp {
    smtp.begin("sender@example.net", recipient);
    smtp
}

fn finish(smtp: &mut Smtp) {
    assert_eq!(smtp.data(b"Subject: listeners\r\n\r\nhello\r\n").code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
}

#[track_caller]
fn expect(line: &str, name: &str, upstream: SocketAddr) {
    let expected = format!(" upstream={upstream} listener={name} ");
    assert!(line.contains(&expected), "no {expected:?} in\n{line}");
}

fn each_listener_has_its_own_upstream_rules_and_counts() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let at = format!("inet:[{}]:{SINK}", lab.server_ip(Family::Ipv6));
    let _v6 = lab.server.spawn(["smtp-sink", "-u", "nobody", &at, "256"]);
    let at = format!("inet:{}:{SINK}", lab.server_ip(Family::Ipv4));
    let _v4 = lab.server.spawn(["smtp-sink", "-u", "nobody", &at, "256"]);
    for family in Family::ALL {
        until("smtp-sink", || lab.gateway.connect(lab.server_socket(family, SINK)).ok());
    }
    let sections = [
        listener(&lab, "mx", port::SMTP, port::SMTP),
        listener(&lab, "submission", SUBMISSION, port::DIRECT),
        listener(&lab, "internal", INTERNAL, SINK),
        "[[access]]\nname = \"not for strangers\"\nlisteners = [\"internal\"]\nfamily = \"ipv4\"\naction = \"reject\"\n\n"
            .to_owned(),
        "[[policy]]\nname = \"no bounces from users\"\nwhen = { listeners = [\"submission\"], sender = [\"example.com\"] }\n\
         otherwise = \"reject\"\n"
            .to_owned(),
    ];
    let gateway = Gateway::start(&lab, &with_listeners(&lab, &sections.concat()));
    let ready = gateway.wait_for_log("ready: ");
    for (name, port) in [("mx", port::SMTP), ("submission", SUBMISSION), ("internal", INTERNAL)] {
        for family in Family::ALL {
            let address = at_gateway(&lab, family, port);
            assert!(ready.contains(&format!("{address} ({name})")), "{address}: {ready}");
        }
    }
    for family in Family::ALL {
        eprintln!("case: {family}");
        let upstream = |port| lab.server_socket(family, port);
        let to = |name: &str| format!("{name}-{family}@example.org");
        let line = deliver(&lab, &gateway, at_gateway(&lab, family, port::SMTP), &to("mx"));
        expect(&line, "mx", upstream(port::SMTP));
        postfix.message_to(&to("mx"));
        let line = deliver(&lab, &gateway, at_gateway(&lab, family, SUBMISSION), &to("submission"));
        expect(&line, "submission", upstream(port::DIRECT));
        postfix.message_to(&to("submission"));

        // The same sender: the rule is one of the submission listener.
        for (name, port, code) in [("mx", port::SMTP, 250), ("submission", SUBMISSION, 550)] {
            let mut smtp = lab.client.smtp(at_gateway(&lab, family, port));
            smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250\n C: MAIL FROM:<a@example.com>\n S: 250");
            let rule = format!("rule-{name}");
            assert_eq!(smtp.ask(&format!("RCPT TO:<{}>", to(&rule))).code, code, "{name}");
            smtp.dialogue("C: QUIT\n S: 221");
            let line = gateway.wait_for_log(&format!(" to=<{}>", to(&rule)));
            assert!(line.contains(&format!(" listener={name} ")), "{line}");
        }
    }
    let line =
        deliver(&lab, &gateway, at_gateway(&lab, Family::Ipv6, INTERNAL), "sink@example.org");
    expect(&line, "internal", lab.server_socket(Family::Ipv6, SINK));
    let mut rejected = lab.client.smtp(at_gateway(&lab, Family::Ipv4, INTERNAL));
    rejected.dialogue(
        "S: 220\n C: EHLO client.example.net\n S: 250\n C: MAIL FROM:<a@example.net>\n S: 250",
    );
    assert_eq!(rejected.ask("RCPT TO:<sink@example.org>").code, 550);
    rejected.dialogue("C: QUIT\n S: 221");

    for (name, action, sessions) in
        [("mx", "accept", 4.0), ("submission", "accept", 2.0), ("submission", "reject", 2.0)]
    {
        let labels = [format!("listener=\"{name}\""), format!("action=\"{action}\"")];
        gateway.wait_for_metric(SESSIONS, &[&labels[0], &labels[1]], sessions);
    }
    let of_internal = ["listener=\"internal\"", "action=\"reject\"", &Family::Ipv4.label()];
    gateway.wait_for_metric(SESSIONS, &of_internal, 1.0);
    gateway.wait_for_metric(MESSAGES, &["listener=\"mx\""], 2.0);
    gateway.wait_for_metric(MESSAGES, &["listener=\"internal\""], 1.0);
}

fn an_upstream_that_is_down_concerns_its_own_listener() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let sections = [
        listener(&lab, "mx", port::SMTP, port::SMTP),
        // Nothing listens there.
        listener(&lab, "submission", SUBMISSION, 26),
    ];
    let gateway = Gateway::start(&lab, &with_listeners(&lab, &sections.concat()));
    for family in Family::ALL {
        eprintln!("case: {family}");
        let mut smtp = lab.client.smtp(at_gateway(&lab, family, SUBMISSION));
        smtp.expect_last_reply("421 4.3.2");
        let to = format!("alive-{family}@example.org");
        let line = deliver(&lab, &gateway, at_gateway(&lab, family, port::SMTP), &to);
        expect(&line, "mx", lab.server_socket(family, port::SMTP));
    }
    // A load balancer would take both away.
    gateway.wait_for_readiness(200);
    for family in Family::ALL {
        let down = ["state=\"down\"", &family.label()];
        gateway.wait_for_metric("gatepost_upstreams", &down, 1.0);
    }
}

fn a_trusted_proxy_is_one_of_its_listener() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let client = Family::ALL.map(|family| lab.client_ip(family).to_string());
    let behind_a_proxy = listener(&lab, "behind-a-proxy", port::SMTP, port::SMTP).replace(
        "[listener.upstream]",
        &format!("proxy_trusted = {client:?}\n[listener.upstream]"),
    );
    let sections = [behind_a_proxy, listener(&lab, "direct", SUBMISSION, port::SMTP)];
    let gateway = Gateway::start(&lab, &with_listeners(&lab, &sections.concat()));
    for family in Family::ALL {
        eprintln!("case: {family}");
        let to = format!("direct-{family}@example.org");
        deliver(&lab, &gateway, at_gateway(&lab, family, SUBMISSION), &to);

        let mut smtp = lab.client.smtp(at_gateway(&lab, family, port::SMTP));
        let header = match family {
            Family::Ipv4 => "PROXY TCP4 203.0.113.7 203.0.113.25 4000 25\r\n",
            Family::Ipv6 => "PROXY TCP6 2001:db8:7::7 2001:db8:7::25 4000 25\r\n",
        };
        smtp.raw(header.as_bytes()).unwrap();
        let to = format!("proxied-{family}@example.org");
        finish(begin(&mut smtp, &to));
        let line = gateway.wait_for_log(&format!(" to=<{to}> "));
        assert!(line.contains(" listener=behind-a-proxy "), "{line}");
        let source = if family == Family::Ipv4 { "203.0.113.7" } else { "[2001:db8:7::7]" };
        assert!(line.contains(&format!(" client={source}:4000 ")), "{line}");
    }
}

fn intercepted_mail_and_submission_share_a_gateway() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let tproxy = Config::new(&lab, Mode::Tproxy).without("listen").policies(
        "[[listener]]\nname = \"intercepted\"\nmode = \"tproxy\"\naddresses = [\"[::]:2525\", \"0.0.0.0:2525\"]\n\n",
    );
    let config = tproxy.policies(&listener(&lab, "submission", SUBMISSION, port::DIRECT));
    let gateway = Gateway::start(&lab, &config);
    let ready = gateway.wait_for_log("ready: ");
    assert!(ready.contains("[::]:2525 (intercepted, for intercepted mail)"), "{ready}");
    for family in Family::ALL {
        eprintln!("case: {family}");
        let to = format!("intercepted-{family}@example.org");
        let line = deliver(&lab, &gateway, lab.entrance(Mode::Tproxy, family), &to);
        expect(&line, "intercepted", lab.server_socket(family, port::SMTP));
        // Postfix sees the client's own address there, and the gateway's here.
        let trace = postfix.message_to(&to).trace;
        assert!(trace.contains(&lab.client_ip(family).to_string()), "{trace}");
        let to = format!("submission-{family}@example.org");
        let line = deliver(&lab, &gateway, at_gateway(&lab, family, SUBMISSION), &to);
        expect(&line, "submission", lab.server_socket(family, port::DIRECT));
        let trace = postfix.message_to(&to).trace;
        assert!(trace.contains(&lab.gateway_ip_at_server(family).to_string()), "{trace}");
    }
}

/// Sessions go on while a listener keeps its address, gives it to another one, changes its upstream, appears or disappears.
fn sighup_adds_moves_and_removes_listeners_under_traffic() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let before = [
        listener(&lab, "mx", port::SMTP, port::SMTP),
        listener(&lab, "submission", SUBMISSION, port::SMTP),
        listener(&lab, "old", INTERNAL, port::SMTP),
    ];
    let after = [
        // Its upstream changed, the next its name, the third is gone, the fourth is new.
        listener(&lab, "mx", port::SMTP, port::DIRECT),
        listener(&lab, "users", SUBMISSION, port::SMTP),
        listener(&lab, "new", 2528, port::DIRECT),
    ];
    let (before, after) =
        (with_listeners(&lab, &before.concat()), with_listeners(&lab, &after.concat()));
    let gateway = Gateway::start(&lab, &before);
    let mut in_progress = Vec::new();
    for family in Family::ALL {
        for (name, port) in [("mx", port::SMTP), ("submission", SUBMISSION), ("old", INTERNAL)] {
            let mut smtp = lab.client.smtp(at_gateway(&lab, family, port));
            let recipient = format!("progress-{name}-{family}@example.org");
            begin(&mut smtp, &recipient);
            in_progress.push((name, family, recipient, smtp));
        }
    }
    // Sessions one after the other, at the addresses that stay; each of them must succeed.
    let is_over = AtomicBool::new(false);
    let delivered = thread::scope(|scope| {
        let traffic = [port::SMTP, SUBMISSION].map(|port| {
            let (lab, is_over) = (&lab, &is_over);
            scope.spawn(move || {
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) {
                    for family in Family::ALL {
                        let mut smtp = lab.client.smtp(at_gateway(lab, family, port));
                        finish(begin(&mut smtp, "traffic@example.org"));
                        count += 1;
                    }
                }
                count
            })
        });
        for round in 1..=5 {
            for config in [&after, &before] {
                gateway.reload(&config.toml());
                let reloads = if std::ptr::eq(config, &after) { 2 * round - 1 } else { 2 * round };
                until("the reload", || {
                    let log = gateway.log();
                    (log.matches("configuration reloaded").count() == reloads).then_some(())
                });
            }
        }
        gateway.reload(&after.toml());
        until("the last reload", || {
            (gateway.log().matches("configuration reloaded").count() == 11).then_some(())
        });
        is_over.store(true, Ordering::Relaxed);
        traffic.map(|thread| thread.join().unwrap())
    });
    assert!(delivered.iter().all(|count| *count > 0), "{delivered:?}");
    for (name, family, recipient, mut smtp) in in_progress {
        eprintln!("case: {name}, {family}");
        finish(&mut smtp);
        let line = gateway.wait_for_log(&format!(" to=<{recipient}> "));
        expect(&line, name, lab.server_socket(family, port::SMTP));
        postfix.message_to(&recipient);
    }
    for family in Family::ALL {
        let new = [
            ("mx", port::SMTP, port::DIRECT),
            ("users", SUBMISSION, port::SMTP),
            ("new", 2528, port::DIRECT),
        ];
        for (name, port, upstream) in new {
            let to = format!("after-{name}-{family}@example.org");
            let line = deliver(&lab, &gateway, at_gateway(&lab, family, port), &to);
            expect(&line, name, lab.server_socket(family, upstream));
        }
        lab.client.connect(at_gateway(&lab, family, INTERNAL)).unwrap_err();
    }
    assert!(!gateway.log().contains(" outcome=error"), "{}", gateway.log());
}
