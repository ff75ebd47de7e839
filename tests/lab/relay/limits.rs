//! Limits and timeouts: the client that exceeds one gets a reply with the reason, and other clients are not affected.
//!
//! Most tests run in plaintext and under TLS that the gateway ends. A session that is refused in place of the greeting is in
//! plaintext in either case; those that are held, and those that exceed a limit later, are under TLS.

use std::net::IpAddr;

use crate::harness::tests;
use crate::support::{
    Config, Entrance, Exim, Family, Gateway, Lab, Mode, Postfix, Smtp, Transport, until,
};

tests![
    sessions_in_all,
    sessions_per_client,
    rejected_sessions_do_not_count,
    new_sessions_per_client,
    sessions_per_network,
    without_descriptors_connections_wait,
    commands,
    errors,
    exim_takes_any_number_of_rejected_recipients,
    line_length,
    a_silent_client_gets_a_timeout_reply,
    stress,
];

fn sessions_in_all() {
    for_each_entrance(&[("limits", "sessions = 2")], |setup| {
        let first = setup.greeted();
        let mut second = setup.entrance.connect(setup.family.other());
        second.greeting();
        setup.connect().expect_last_reply("421 4.3.2 ");
        setup.expect_refusals("limit_sessions", 1);

        second.dialogue("C: NOOP\n S: 250");
        drop(first);
        until("a place that is free again", || {
            (setup.connect().reply().unwrap().code == 220).then_some(())
        });
    });
}

fn sessions_per_client() {
    for_each_entrance(&[("limits", "sessions_per_client = 1")], |setup| {
        let mut first = setup.greeted();
        setup.connect_from(setup.same_client()).expect_last_reply("421 4.7.0 ");
        setup.expect_refusals("limit_client_sessions", 1);

        setup.greeted_from(setup.another_client()).dialogue("C: QUIT\n S: 221");
        first.dialogue("C: NOOP\n S: 250\n C: QUIT\n S: 221");
        until("a place that is free again", || {
            let mut next = setup.connect_from(setup.same_client());
            (next.reply().unwrap().code == 220).then_some(())
        });
    });
}

/// Rejected sessions that stay connected do not count.
fn rejected_sessions_do_not_count() {
    let limits = "sessions = 3\nsessions_per_client = 1";
    for_each_entrance(&[("limits", limits)], |setup| {
        let mut held = setup.greeted();
        let mut refused = [setup.connect(), setup.connect()];
        for smtp in &mut refused {
            smtp.expect_last_reply("421 4.7.0 ");
        }
        setup.greeted_from(setup.another_client()).dialogue("C: QUIT\n S: 221");
        held.dialogue("C: QUIT\n S: 221");
        drop(refused);
    });
}

/// Each session ends before the next begins: only their rate exceeds the limit.
fn new_sessions_per_client() {
    let limit = "new_sessions_per_client_per_minute = 2";
    for_each_entrance(&[("limits", limit)], |setup| {
        for client in [setup.lab.client_ip(setup.family), setup.same_client()] {
            setup.greeted_from(client).dialogue("C: QUIT\n S: 221");
        }
        setup.connect().expect_last_reply("421 4.7.0 ");
        setup.expect_refusals("limit_client_rate", 1);
        setup.greeted_from(setup.another_client()).dialogue("C: QUIT\n S: 221");
    });
}

/// Of an IPv6 /48, whichever /64 they come from; IPv4 has no such limit.
fn sessions_per_network() {
    for_each_entrance(&[("limits", "sessions_per_network = 1")], |setup| {
        let first = setup.greeted();
        if setup.family == Family::Ipv4 {
            setup.greeted_from(setup.another_client()).dialogue("C: QUIT\n S: 221");
            return;
        }
        setup.connect_from(setup.another_client()).expect_last_reply("421 4.7.0 ");
        setup.expect_refusals("limit_network_sessions", 1);
        drop(first);
        until("a place that is free again", || {
            let mut next = setup.connect_from(setup.another_client());
            (next.reply().unwrap().code == 220).then_some(())
        });
    });
}

/// Without a file descriptor a connection waits in the kernel, which is logged and counted as what it is.
fn without_descriptors_connections_wait() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Proxy));
    let to = lab.entrance(Mode::Proxy, Family::Ipv6);
    gateway.limit_descriptors(0);
    let mut waiting = lab.client.smtp(to);
    gateway.wait_for_log("cannot accept connections: too many open files");
    gateway.limit_descriptors(1024);
    waiting.dialogue("S: 220\n C: QUIT\n S: 221");
    assert!(gateway.metric("gatepost_accept_errors_total", &[]) >= 1.0);

    // One for the client, none for its upstream; again if a connection to the metrics has just given one back.
    until("a session without a descriptor for its upstream", || {
        gateway.limit_descriptors(gateway.free_descriptor() + 1);
        let reply = lab.client.smtp(to).reply().unwrap();
        (reply.code == 421 && reply.lines[0].starts_with("4.3.1 ")).then_some(())
    });
    let line = gateway.wait_for_log("reason=\"resources\"");
    assert!(line.contains("too many open files"), "{line}");
    gateway.limit_descriptors(1024);
    let mut next = lab.client.smtp(to);
    next.dialogue("S: 220\n C: QUIT\n S: 221");
    gateway.wait_for_readiness(200);
}

/// An accepted message resets the count.
fn commands() {
    for_each_entrance(&[("limits", "commands = 5")], |setup| {
        let mut smtp = setup.greeted();
        smtp.begin("sender@example.net", "first@example.org");
        assert_eq!(smtp.data(b"Subject: one\r\n\r\n").code, 250);
        smtp.dialogue(
            "C: MAIL FROM:<sender@example.net>
             S: 250
             C: RCPT TO:<second@example.org>
             S: 250",
        );
        assert_eq!(smtp.data(b"Subject: two\r\n\r\n").code, 250);
        for _ in 0..5 {
            smtp.dialogue("C: NOOP\n S: 250");
        }
        smtp.raw(b"NOOP\r\n").unwrap();
        smtp.expect_last_reply("421 4.7.0 ");
        setup.expect_refusals("limit_commands", 1);
    });
}

/// The errors that the gateway answers count. Postfix counts its own: it ends the session at `smtpd_hard_error_limit` (20).
fn errors() {
    for_each_entrance(&[("limits", "errors = 2")], |setup| {
        let mut smtp = setup.greeted();
        smtp.dialogue(
            "C: EHLO client.example.net
             S: 250
             C: NONSENSE
             S: 500 5.5.2
             C: RCPT TO:<early@example.org>
             S: 503 5.5.1
             C: NONSENSE
             S: 500 5.5.2
             C: NOOP",
        );
        smtp.expect_last_reply("421 4.7.0 ");
        setup.expect_refusals("limit_errors", 1);

        let mut smtp = setup.greeted();
        smtp.dialogue("C: EHLO client.example.net\n S: 250");
        for _ in 0..20 {
            smtp.dialogue("C: RCPT TO:<early@example.org>\n S: 503 5.5.1");
        }
        smtp.raw(b"NOOP\r\n").unwrap();
        smtp.expect_last_reply("421 4.7.0 mx.example.org Error: too many errors");
        setup.expect_refusals("limit_errors", 1);
    });
}

/// Exim has no limit on rejected recipients, so the gateway in front of it has none.
fn exim_takes_any_number_of_rejected_recipients() {
    let lab = Lab::new();
    let exim = Exim::start(&lab, None);
    let config = Config::new(&lab, Mode::Proxy).upstreams(&exim.addresses);
    let _gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        eprintln!("case: {family}");
        let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
        smtp.dialogue(
            "S: 220
             C: EHLO client.example.net
             S: 250
             C: MAIL FROM:<sender@example.net>
             S: 250",
        );
        for number in 0..100 {
            smtp.dialogue(&format!("C: RCPT TO:<unknown{number}@example.org>\n S: 550"));
        }
        smtp.dialogue("C: RCPT TO:<known@example.org>\n S: 250");
        assert_eq!(smtp.data(b"Subject: to one of many\r\n\r\nhello\r\n").code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
    }
}

/// The limit includes the CRLF. A longer line is one error, and the next line is a command again.
fn line_length() {
    for_each_entrance(&[("limits", "line_length = 512")], |setup| {
        let noop = |bytes: usize| format!("NOOP {}", "x".repeat(bytes - "NOOP \r\n".len()));
        let mut smtp = setup.greeted();
        smtp.dialogue(&format!(
            "C: EHLO client.example.net
             S: 250
             C: {}
             S: 250
             C: {}
             S: 500 5.5.2
             C: {}
             S: 500 5.5.2
             C: NOOP
             S: 250",
            noop(512),
            noop(513),
            noop(100_000),
        ));
        setup.expect_refusals("limit_line", 2);
    });
}

fn a_silent_client_gets_a_timeout_reply() {
    for_each_entrance(&[("timeouts", "command = \"1s\"")], |setup| {
        let mut after_greeting = setup.greeted();
        let mut in_transaction = setup.greeted();
        in_transaction.begin("sender@example.net", "silent@example.org");
        after_greeting.expect_last_reply("421 4.4.2 ");
        in_transaction.expect_last_reply("421 4.4.2 ");
        setup.expect_refusals("timeout", 2);
    });
}

/// Under load the shorter timeouts apply to new sessions.
fn stress() {
    let settings = [
        ("limits", "sessions = 10"),
        ("timeouts", "stress_above = 20"),
        ("timeouts.stress", "command = \"1s\""),
    ];
    for_each_entrance(&settings, |setup| {
        let mut earlier = [setup.greeted(), setup.greeted()];
        setup.greeted().expect_last_reply("421 4.4.2 ");
        setup.expect_refusals("timeout", 1);
        for smtp in &mut earlier {
            smtp.dialogue("C: NOOP\n S: 250\n C: QUIT\n S: 221");
        }
    });
}

/// Runs `check` in plaintext and under TLS, in each family with a new gateway, whose configuration has more lines.
fn for_each_entrance(settings: &[(&str, &str)], check: impl Fn(&Setup<'_>)) {
    for (mode, transport) in
        [(Mode::Proxy, Transport::Plaintext), (Mode::Tproxy, Transport::OwnTls)]
    {
        let lab = Lab::new();
        let _postfix = Postfix::receiver(&lab);
        let entrance = Entrance::new(&lab, mode, transport);
        let config = settings
            .iter()
            .fold(entrance.config(), |config, (section, lines)| config.set(section, lines));
        for family in Family::ALL {
            eprintln!("case: {family}, {mode}, {transport}");
            let gateway = Gateway::start(&lab, &config);
            let setup = Setup { lab: &lab, entrance: &entrance, gateway: &gateway, family };
            for ip in [setup.same_client(), setup.another_client()] {
                if ip != lab.client_ip(family) {
                    lab.add_client_ip(ip);
                }
            }
            check(&setup);
        }
    }
}

struct Setup<'a> {
    lab: &'a Lab,
    entrance: &'a Entrance<'a>,
    gateway: &'a Gateway<'a>,
    family: Family,
}

impl Setup<'_> {
    /// In plaintext, before the greeting.
    fn connect(&self) -> Smtp {
        self.connect_from(self.lab.client_ip(self.family))
    }

    fn connect_from(&self, client: IpAddr) -> Smtp {
        self.lab.client.smtp_from(client, self.entrance.address(self.family))
    }

    /// Behind the greeting, and inside TLS if the test is.
    fn greeted(&self) -> Smtp {
        self.greeted_from(self.lab.client_ip(self.family))
    }

    fn greeted_from(&self, client: IpAddr) -> Smtp {
        let mut smtp = self.entrance.connect_from(client, self.family);
        smtp.greeting();
        smtp
    }

    /// An address that counts as the same client: with IPv6, in the same /64.
    fn same_client(&self) -> IpAddr {
        match self.family {
            Family::Ipv4 => self.lab.client_ip(self.family),
            Family::Ipv6 => "2001:db8:1::11".parse().unwrap(),
        }
    }

    /// The nearest address that counts as another client.
    fn another_client(&self) -> IpAddr {
        match self.family {
            Family::Ipv4 => "192.0.2.11",
            Family::Ipv6 => "2001:db8:1:1::10",
        }
        .parse()
        .unwrap()
    }

    fn expect_refusals(&self, reason: &str, count: u32) {
        let reason = format!("reason=\"{reason}\"");
        let labels = [reason.as_str(), &self.family.label()];
        self.gateway.wait_for_metric("gatepost_refusals_total", &labels, f64::from(count));
        // And no other.
        self.gateway.wait_for_metric("gatepost_refusals_total", &[], f64::from(count));
    }
}
