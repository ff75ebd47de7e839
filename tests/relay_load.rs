//! 1,000 concurrent sessions, 20,000 messages: all delivered, none twice; memory flat.

mod lab;

use std::collections::HashMap;
use std::net::SocketAddr;

use lab::{Config, Family, Gateway, Lab, Mode, Postfix, until};

/// In each family; one after the other they are the two halves that memory is compared over.
const MESSAGES: usize = 10_000;

/// Beside what the first half needed; an allocator's arenas settle within it. A leak of 1 kB a session is 10 MB.
const SLACK_KIB: u64 = 4 * 1024;

#[test]
fn twenty_thousand_messages_in_a_thousand_sessions_at_once() {
    for mode in Mode::ALL {
        twenty_thousand_messages(mode);
    }
}

fn twenty_thousand_messages(mode: Mode) {
    let Some(lab) = Lab::new(&format!("load, {mode}")) else {
        return;
    };
    // Its discard(8) logs each recipient once, and no disk has to hold the mail.
    let main_cf = "virtual_transport = discard";
    let postfix = Postfix::start(&lab, &lab.server, "postfix", None, main_cf);
    let gateway = Gateway::start(&lab, &Config::new(&lab, mode).for_crowds());

    let mut resident = Vec::new();
    for family in Family::ALL {
        eprintln!("case: {mode}, {family}");
        send(&lab, lab.entrance(mode, family), family);
        postfix.wait_until_idle();
        expect_each_once(&postfix, family);
        let sessions = || gateway.metric("gatepost_sessions_open", &[]);
        until("the end of all sessions", || {
            (sessions() == 0.0).then_some(())
        });
        resident.push(gateway.resident_kib());
    }
    assert!(
        resident[1] <= resident[0] + SLACK_KIB,
        "resident KiB after the first half and after the second: {resident:?}"
    );
}

/// `-N` numbers the recipients. smtp-source ends with an error at the first reply that is not the one it wants.
fn send(lab: &Lab, to: SocketAddr, family: Family) {
    let (count, to) = (MESSAGES.to_string(), format!("inet:{}", bracketed(to)));
    let recipient = format!("-{family}@example.org");
    lab.client.run([
        "prlimit",
        "--nofile=20000:20000",
        "smtp-source",
        "-s",
        "1000",
        "-m",
        &count,
        "-l",
        "2048",
        "-C",
        "10",
        "-N",
        "-f",
        "sender@example.net",
        "-t",
        &recipient,
        &to,
    ]);
}

fn bracketed(to: SocketAddr) -> String {
    format!("[{}]:{}", to.ip(), to.port())
}

fn expect_each_once(postfix: &Postfix<'_>, family: Family) {
    let log = postfix.log();
    let mut deliveries: HashMap<&str, usize> = HashMap::new();
    let sent = log.lines().filter(|line| line.contains("status=sent"));
    for line in sent.filter(|line| line.contains(&format!("-{family}@example.org>"))) {
        let (_, rest) = line.split_once(" to=<").expect("a recipient in a delivery");
        let (recipient, _) = rest.split_once('>').expect("the end of the recipient");
        *deliveries.entry(recipient).or_default() += 1;
    }
    let twice: Vec<_> = deliveries.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "delivered more than once: {twice:?}");
    assert_eq!(
        deliveries.len(),
        MESSAGES,
        "recipients that were delivered to"
    );
}
