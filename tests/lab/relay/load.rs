//! 1,000 concurrent sessions, 20,000 messages: all delivered, none twice; memory flat. Under TLS fewer messages.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::tests;
use crate::support::smtp_client::{Load, LoadClients, Security, TlsOptions};
use crate::support::{Entrance, Family, Gateway, Lab, Mode, Postfix, Transport, until};

tests![
    Alone:
    twenty_thousand_messages_in_a_thousand_sessions_at_once_proxy,
    twenty_thousand_messages_in_a_thousand_sessions_at_once_tproxy,
    a_thousand_sessions_at_once_inside_tls_proxy,
    a_thousand_sessions_at_once_inside_tls_tproxy
];

const SESSIONS: usize = 1_000;

/// Tolerance for the second half, enough for the allocator's arenas. A leak of 1 kB per session would be 10 MB.
const SLACK_KIB: u64 = 4 * 1024;

fn twenty_thousand_messages_in_a_thousand_sessions_at_once_proxy() {
    many_messages(Mode::Proxy, Transport::Plaintext, 10_000);
}

fn twenty_thousand_messages_in_a_thousand_sessions_at_once_tproxy() {
    many_messages(Mode::Tproxy, Transport::Plaintext, 10_000);
}

fn a_thousand_sessions_at_once_inside_tls_proxy() {
    many_messages(Mode::Proxy, Transport::OwnTls, 1_200);
}

fn a_thousand_sessions_at_once_inside_tls_tproxy() {
    many_messages(Mode::Tproxy, Transport::OwnTls, 1_200);
}

/// `messages` in each family. The families follow each other, and memory is compared between them.
fn many_messages(mode: Mode, transport: Transport, messages: usize) {
    let lab = Lab::new();
    // discard(8) logs each recipient once, and stores no mail.
    let main_cf = "virtual_transport = discard";
    let postfix = Postfix::start(&lab, &lab.server, "postfix", None, main_cf);
    let entrance = Entrance::new(&lab, mode, transport);
    let gateway = Gateway::start(&lab, &entrance.config().for_crowds());

    let mut resident = Vec::new();
    for family in Family::ALL {
        eprintln!("case: {family}, {transport}");
        let (to, recipient) = (entrance.address(family), format!("-{family}@example.org"));
        let most = match transport {
            Transport::Plaintext => send(&lab, &gateway, to, &recipient, messages),
            Transport::OwnTls => send_inside_tls(&lab, &gateway, to, &recipient, messages),
        };
        assert!(most >= 0.9 * SESSIONS as f64, "at most {most} sessions were open at once");
        postfix.wait_until_idle();
        expect_each_once(&postfix, &recipient, messages);
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
fn send(lab: &Lab, gateway: &Gateway<'_>, to: SocketAddr, recipient: &str, messages: usize) -> f64 {
    let smtp_source = format!(
        "ulimit -n $(ulimit -Hn) && exec smtp-source -s {SESSIONS} -m {messages} -l 2048 -C 10 \
         -N -f sender@example.net -t {recipient} inet:[{}]:{}",
        to.ip(),
        to.port()
    );
    let mut smtp_source = lab.client.spawn(["timeout", "300", "sh", "-c", &smtp_source]);
    let most = most_sessions(gateway, || smtp_source.has_ended());
    assert!(smtp_source.wait().success(), "{}", smtp_source.log());
    most
}

/// As [`send`]: smtp-source has no STARTTLS. Every client resumes from its second session on.
fn send_inside_tls(
    lab: &Lab,
    gateway: &Gateway<'_>,
    to: SocketAddr,
    recipient: &str,
    messages: usize,
) -> f64 {
    let (_, most_descriptors) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most_descriptors, most_descriptors).unwrap();
    let options = TlsOptions { resume: true, ..TlsOptions::default() };
    let clients = LoadClients::new(SESSIONS, Security::StartTls, &options);
    let sessions = u32::try_from(messages).unwrap();
    let load = Load { to, sessions, recipient, numbered: true, ..Load::default() };
    thread::scope(|scope| {
        let run = scope.spawn(|| lab.client.in_thread(|| clients.run(&load)));
        let most = most_sessions(gateway, || run.is_finished());
        let report = run.join().unwrap().unwrap();
        let (full, resumed) = (report.full as usize, report.resumed as usize);
        assert!(full <= SESSIONS && full + resumed == messages, "{full} full, {resumed} resumed");
        most
    })
}

fn most_sessions(gateway: &Gateway<'_>, mut has_ended: impl FnMut() -> bool) -> f64 {
    let mut most: f64 = 0.0;
    while !has_ended() {
        most = most.max(gateway.metric("gatepost_sessions_open", &[]));
        thread::sleep(Duration::from_millis(50));
    }
    most
}

/// Waits until the log has every message; none may be there twice.
fn expect_each_once(postfix: &Postfix<'_>, recipient: &str, messages: usize) {
    until("a delivery of every message", || {
        let log = postfix.log();
        let deliveries = deliveries(&log, recipient);
        let twice: Vec<_> = deliveries.iter().filter(|(_, count)| **count > 1).collect();
        assert!(twice.is_empty(), "delivered more than once: {twice:?}");
        (deliveries.len() == messages).then_some(())
    });
}

/// The number of deliveries to each numbered `recipient`.
fn deliveries<'a>(log: &'a str, recipient: &str) -> HashMap<&'a str, usize> {
    let mut deliveries = HashMap::new();
    for line in log.lines().filter(|line| line.contains("status=sent")) {
        let delivered = line.split_once(" to=<").and_then(|(_, rest)| rest.split_once('>'));
        let (delivered, _) = delivered.expect("a recipient in a delivery");
        if delivered.ends_with(recipient) {
            *deliveries.entry(delivered).or_default() += 1;
        }
    }
    deliveries
}
