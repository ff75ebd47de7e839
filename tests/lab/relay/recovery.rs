//! Stops and restarts of the gateway: kill -9, `intercept clean`, SIGTERM, SIGHUP.

use crate::harness::tests;
use crate::support::{
    Config, Entrance, Family, Gateway, Lab, Mode, Postfix, Smtp, Transport, until,
};

tests![
    mail_flows_again_after_kill_9_proxy,
    mail_flows_again_after_kill_9_tproxy,
    mail_inside_tls_flows_again_after_kill_9_proxy,
    mail_inside_tls_flows_again_after_kill_9_tproxy,
    intercept_clean_leaves_no_rule_behind,
    sigterm_leaves_no_rule_behind,
    mail_takes_the_direct_path_when_interception_ends,
    sigterm_finishes_transactions_and_closes_idle_sessions_proxy,
    sigterm_finishes_transactions_and_closes_idle_sessions_tproxy,
    sigterm_finishes_transactions_and_closes_idle_sessions_inside_tls,
    sigterm_does_not_wait_for_ever,
    sighup_with_a_wrong_file_keeps_the_old_configuration,
];

fn mail_flows_again_after_kill_9_proxy() {
    mail_flows_again_after_kill_9(Mode::Proxy, Transport::Plaintext);
}

fn mail_flows_again_after_kill_9_tproxy() {
    mail_flows_again_after_kill_9(Mode::Tproxy, Transport::Plaintext);
}

fn mail_inside_tls_flows_again_after_kill_9_proxy() {
    mail_flows_again_after_kill_9(Mode::Proxy, Transport::OwnTls);
}

fn mail_inside_tls_flows_again_after_kill_9_tproxy() {
    mail_flows_again_after_kill_9(Mode::Tproxy, Transport::OwnTls);
}

fn mail_flows_again_after_kill_9(mode: Mode, transport: Transport) {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let entrance = Entrance::new(&lab, mode, transport);
    let mut gateway = Gateway::start(&lab, &entrance.config());
    for round in 0..3 {
        for family in Family::ALL {
            eprintln!("case: {family}, after {round} times kill -9");
            let interrupted = begun(&entrance, family, "interrupted@example.org");
            deliver(&postfix, &entrance, family, &format!("{family}-{round}@example.org"));
            gateway.kill_and_start_again();
            drop(interrupted);
        }
    }
    assert_eq!(postfix.count_to("interrupted@example.org"), 0);
}

fn intercept_clean_leaves_no_rule_behind() {
    let lab = Lab::new();
    let before = kernel_rules(&lab);
    let mut gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Tproxy));
    assert_ne!(kernel_rules(&lab), before, "a gateway that intercepts has rules");
    gateway.kill();
    assert_ne!(kernel_rules(&lab), before, "kill -9 leaves the rules");
    Gateway::intercept_clean(&lab);
    assert_eq!(kernel_rules(&lab), before);
    Gateway::intercept_clean(&lab);
    assert_eq!(kernel_rules(&lab), before, "cleaning what is clean changes nothing");
}

fn sigterm_leaves_no_rule_behind() {
    let lab = Lab::new();
    let before = kernel_rules(&lab);
    let mut gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Tproxy));
    gateway.terminate();
    assert!(gateway.wait().success());
    assert_eq!(kernel_rules(&lab), before);
}

/// Without the gateway and its rules, mail is routed past it.
fn mail_takes_the_direct_path_when_interception_ends() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let entrance = Entrance::new(&lab, Mode::Tproxy, Transport::Plaintext);
    let mut gateway = Gateway::start(&lab, &entrance.config());
    gateway.terminate();
    assert!(gateway.wait().success());
    for family in Family::ALL {
        deliver(&postfix, &entrance, family, &format!("{family}@example.org"));
    }
}

fn sigterm_finishes_transactions_and_closes_idle_sessions_proxy() {
    sigterm_drains(Mode::Proxy, Transport::Plaintext);
}

fn sigterm_finishes_transactions_and_closes_idle_sessions_tproxy() {
    sigterm_drains(Mode::Tproxy, Transport::Plaintext);
}

fn sigterm_finishes_transactions_and_closes_idle_sessions_inside_tls() {
    sigterm_drains(Mode::Tproxy, Transport::OwnTls);
}

fn sigterm_drains(mode: Mode, transport: Transport) {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let entrance = Entrance::new(&lab, mode, transport);
    let mut gateway = Gateway::start(&lab, &entrance.config());
    let mut sessions = Family::ALL.map(|family| {
        let mut idle = entrance.connect(family);
        idle.dialogue("S: 220\n C: EHLO client.example.net\n S: 250");
        let mut busy = begun(&entrance, family, &format!("{family}@example.org"));
        busy.dialogue("C: DATA\n S: 354");
        busy.raw(b"Subject: draining\r\n\r\nhalf of it,\r\n").unwrap();
        (family, idle, busy)
    });

    gateway.terminate();
    for (family, idle, busy) in &mut sessions {
        eprintln!("case: {family}");
        expect_421(idle);
        busy.raw(b"and the other half\r\n.\r\n").unwrap();
        busy.dialogue("S: 250");
        expect_421(busy);
        let stored = postfix.message_to(&format!("{family}@example.org"));
        assert!(stored.content.ends_with(b"half of it,\nand the other half\n"));
    }
    assert!(gateway.wait().success());
}

/// A transaction that exceeds `timeouts.drain` is aborted, without a 250.
fn sigterm_does_not_wait_for_ever() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let entrance = Entrance::new(&lab, Mode::Proxy, Transport::Plaintext);
    let config = entrance.config().set("timeouts", "drain = \"1s\"");
    let mut gateway = Gateway::start(&lab, &config);
    let mut stuck = begun(&entrance, Family::Ipv6, "stuck@example.org");
    stuck.dialogue("C: DATA\n S: 354");

    gateway.terminate();
    assert!(gateway.wait().success());
    let codes: Vec<u16> = stuck.replies_until_closed().iter().map(|reply| reply.code).collect();
    assert!(codes.is_empty() || codes == [421], "{codes:?}");
    assert_eq!(postfix.count_to("stuck@example.org"), 0);
}

fn sighup_with_a_wrong_file_keeps_the_old_configuration() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let entrance = Entrance::new(&lab, Mode::Proxy, Transport::Plaintext);
    let config = entrance.config();
    let gateway = Gateway::start(&lab, &config);
    let mut opened_before = begun(&entrance, Family::Ipv6, "before@example.org");

    gateway.reload(&config.clone().set("smtp", "no_such_key = true").toml());
    gateway.wait_for_log("no_such_key");
    for family in Family::ALL {
        deliver(&postfix, &entrance, family, &format!("{family}@example.org"));
    }

    let refuse = format!(
        "{}[[access]]\nname = \"no mail from there\"\nfamily = \"ipv4\"\naction = \"reject\"\n",
        config.toml()
    );
    gateway.reload(&refuse);
    until("the new configuration", || {
        let mut smtp = entrance.connect(Family::Ipv4);
        smtp.dialogue(
            "S: 220
             C: EHLO client.example.net
             S: 250
             C: MAIL FROM:<sender@example.net>
             S: 250",
        );
        let reply = smtp.ask("RCPT TO:<refused@example.org>");
        (reply.code == 550 && reply.lines[0].contains("no mail from there")).then_some(())
    });
    deliver(&postfix, &entrance, Family::Ipv6, "other-family@example.org");

    // A session of the old configuration goes on.
    assert_eq!(opened_before.data(b"Subject: before\r\n\r\nx\r\n").code, 250);
}

/// The rules and routes in the kernel of the gateway's host.
fn kernel_rules(lab: &Lab) -> String {
    let ask = |command: &str| format!("{command}:\n{}\n", lab.gateway.run(command.split(' ')));
    [
        "nft list ruleset",
        "ip -4 rule list",
        "ip -6 rule list",
        "ip -4 route show table all",
        "ip -6 route show table all",
    ]
    .map(ask)
    .concat()
}

/// A session with an envelope, before DATA.
fn begun(entrance: &Entrance<'_>, family: Family, recipient: &str) -> Smtp {
    let mut smtp = entrance.connect(family);
    smtp.begin("sender@example.net", recipient);
    smtp
}

fn deliver(postfix: &Postfix<'_>, entrance: &Entrance<'_>, family: Family, recipient: &str) {
    let mut smtp = begun(entrance, family, recipient);
    assert_eq!(smtp.data(b"Subject: flows\r\n\r\nhello\r\n").code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
    postfix.message_to(recipient);
}

fn expect_421(smtp: &mut Smtp) {
    let replies = smtp.replies_until_closed();
    let codes: Vec<u16> = replies.iter().map(|reply| reply.code).collect();
    assert_eq!(codes, [421], "{replies:?}");
}
