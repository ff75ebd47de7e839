//! 1,000 concurrent sessions, 20,000 messages: all delivered, none twice; memory flat.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, until};

tests![
    Alone:
    twenty_thousand_messages_in_a_thousand_sessions_at_once_proxy,
    twenty_thousand_messages_in_a_thousand_sessions_at_once_tproxy
];

const SESSIONS: usize = 1_000;

/// In each family. The families follow each other, and memory is compared between them.
const MESSAGES: usize = 10_000;

/// Tolerance for the second half, enough for the allocator's arenas. A leak of 1 kB per session would be 10 MB.
const SLACK_KIB: u64 = 4 * 1024;

fn twenty_thousand_messages_in_a_thousand_sessions_at_once_proxy() {
    twenty_thousand_messages(Mode::Proxy);
}

fn twenty_thousand_messages_in_a_thousand_sessions_at_once_tproxy() {
    twenty_thousand_messages(Mode::Tproxy);
}

fn twenty_thousand_messages(mode: Mode) {
    let lab = Lab::new();
    // discard(8) logs each recipient once, and stores no mail.
    let main_cf = "virtual_transport = discard";
    let postfix = Postfix::start(&lab, &lab.server, "postfix", None, main_cf);
    let gateway = Gateway::start(&lab, &Config::new(&lab, mode).for_crowds());

    let mut resident = Vec::new();
    for family in Family::ALL {
        eprintln!("case: {family}");
        let most = send(&lab, &gateway, lab.entrance(mode, family), family);
        assert!(most >= 0.9 * SESSIONS as f64, "at most {most} sessions were open at once");
        postfix.wait_until_idle();
        expect_each_once(&postfix, family);
        let sessions = || gateway.metric("gatepost_sessions_open", &[]);
        until("the end of all sessions", || (sessions() == 0.0).then_some(()));
        resident.push(gateway.resident_kib());
        eprintln!("resident afterwards: {} KiB", gateway.resident_kib());
    }
    assert!(
        resident[1] <= resident[0] + SLACK_KIB,
        "resident KiB after the first half and after the second: {resident:?}"
    );
}

/// Returns the largest number of open sessions seen.
///
/// `-N` numbers the recipients. smtp-source exits with an error at the first unexpected reply.
fn send(lab: &Lab, gateway: &Gateway<'_>, to: SocketAddr, family: Family) -> f64 {
    let smtp_source = format!(
        "ulimit -n $(ulimit -Hn) && exec smtp-source -s {SESSIONS} -m {MESSAGES} -l 2048 -C 10 \
         -N -f sender@example.net -t -{family}@example.org inet:[{}]:{}",
        to.ip(),
        to.port()
    );
    let mut smtp_source = lab.client.spawn(["timeout", "300", "sh", "-c", &smtp_source]);
    let mut most: f64 = 0.0;
    while !smtp_source.has_ended() {
        most = most.max(gateway.metric("gatepost_sessions_open", &[]));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(smtp_source.wait().success(), "{}", smtp_source.log());
    most
}

/// Waits until the log has every message; none may be there twice.
fn expect_each_once(postfix: &Postfix<'_>, family: Family) {
    until("a delivery of every message", || {
        let log = postfix.log();
        let deliveries = deliveries(&log, family);
        let twice: Vec<_> = deliveries.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "delivered more than once: {twice:?}");
        (deliveries.len() == MESSAGES).then_some(())
    });
}

/// The number of deliveries to each recipient of a family.
fn deliveries(log: &str, family: Family) -> HashMap<&str, usize> {
    let mut deliveries = HashMap::new();
    let domain = format!("-{family}@example.org");
    for line in log.lines().filter(|line| line.contains("status=sent")) {
        let recipient = line.split_once(" to=<").and_then(|(_, rest)| rest.split_once('>'));
        let (recipient, _) = recipient.expect("a recipient in a delivery");
        if recipient.ends_with(&domain) {
            *deliveries.entry(recipient).or_default() += 1;
        }
    }
    deliveries
}
