//! The mail log of a real Postfix beside what the destinations of its mail saw.

pub(crate) mod destinations;
pub(crate) mod journal;
pub(crate) mod server;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::SystemTime;

use gatepost::outbound::{OutboundAttempt, OutboundOutcome};
use gatepost::postfix::mail_log::{LogZone, MailLogCounts, MailLogEvent, MailLogParser};
use gatepost::time::Timestamp;

use self::destinations::DESTINATIONS;
use self::server::Seen;
use crate::harness::tests;
use crate::support::{Lab, Postfix, port, sites, until};

tests!(
    Parallel: attempts_are_those_that_the_destinations_saw;
    OnRequest: corpus_is_recorded;
);

/// Short, so that the test is.
pub(crate) const TIMEOUTS: &str = "\
smtp_connect_timeout = 2s
smtp_helo_timeout = 2s
smtp_starttls_timeout = 2s
smtp_mail_timeout = 2s
smtp_rcpt_timeout = 2s
smtp_data_init_timeout = 2s
smtp_data_done_timeout = 2s
smtp_quit_timeout = 2s
minimal_backoff_time = 1h
maximal_backoff_time = 2h
queue_run_delay = 1h
";

/// Messages to the destination that connections are kept open to (`smtp_connection_cache_destinations`).
const CACHED: usize = 3;

/// Sends a message to each destination; returns the sender's log and what the destinations saw.
fn send_to_all(lab: &Lab) -> (String, Vec<(IpAddr, OutboundOutcome)>) {
    let seen = Seen::default();
    let zones = [("dest.example", destinations::zone()), ("sender.example", String::new())];
    let _knot = sites::dns_with(lab, &zones.each_ref().map(|(zone, text)| (*zone, text.as_str())));
    destinations::start(lab, &seen);
    let encrypted = DESTINATIONS.iter().filter(|destination| destination.needs_tls);
    let policies: Vec<String> =
        encrypted.map(|destination| format!("{{ {} = encrypt }}", destination.domain())).collect();
    let main_cf = format!(
        "myhostname = mta.sender.example
virtual_mailbox_domains =
disable_dns_lookups = no
smtp_host_lookup = dns
smtp_address_preference = ipv6
smtp_tls_security_level = may
smtp_tls_loglevel = 1
smtp_tls_policy_maps = inline:{{ {} }}
smtp_connection_cache_destinations = healthy.dest.example
transport_maps = inline:{{ {{ sender.example = discard: }} }}
{TIMEOUTS}",
        policies.join(", ")
    );
    let postfix = Postfix::start(lab, &lab.client, "sender", None, &main_cf);
    let mut last = 0;
    for destination in DESTINATIONS {
        let domain = destination.domain();
        let to = |local: &&str| format!("{local}@{domain}");
        let recipients: Vec<String> = destination.recipients.iter().map(to).collect();
        submit(lab, &recipients);
        last += recipients.len();
    }
    wait_for_deliveries(&postfix, last);
    for _ in 1..CACHED {
        submit(lab, &["carol@healthy.dest.example".to_owned()]);
        last += 1;
        wait_for_deliveries(&postfix, last);
    }
    // scache(8) closes what it holds within 2 s, and smtp(8) all others with the delivery.
    let expected = |log: &str| count_attempts(log) == seen.lock().unwrap().len();
    until("the end of all connections", || expected(&postfix.log()).then_some(()));
    let seen = seen.lock().unwrap().clone();
    (postfix.log(), seen)
}

fn submit(lab: &Lab, recipients: &[String]) {
    let mut smtp = lab.client.smtp(SocketAddr::new([127, 0, 0, 1].into(), port::DIRECT));
    smtp.greeting();
    smtp.ask("EHLO desk.sender.example");
    smtp.ask("MAIL FROM:<alice@sender.example>");
    for recipient in recipients {
        assert_eq!(smtp.ask(&format!("RCPT TO:<{recipient}>")).code, 250, "{recipient}");
    }
    assert_eq!(smtp.data(&sites::message(1000)).code, 250);
    smtp.ask("QUIT");
}

/// Waits for so many lines about recipients.
fn wait_for_deliveries(postfix: &Postfix<'_>, count: usize) {
    until(format_args!("{count} deliveries in Postfix's log"), || {
        let log = postfix.log();
        let lines = log.lines().filter(|line| line.contains("/smtp[") && line.contains("]: "));
        (lines.filter(|line| line.contains(" status=")).count() >= count).then_some(())
    });
}

fn parse(log: &str) -> (Vec<OutboundAttempt>, MailLogCounts) {
    let reference = Timestamp::from_system_time(SystemTime::now());
    let mut parser = MailLogParser::new(LogZone::system(), reference);
    let mut events = Vec::new();
    parser.on_bytes(log.as_bytes(), &mut events);
    parser.finish(&mut events);
    let attempts = events.into_iter().filter_map(|event| match event {
        MailLogEvent::Attempt(attempt) => Some(attempt),
        MailLogEvent::Delivery(_) => None,
    });
    (attempts.collect(), parser.counts())
}

/// Those with a connection that a server sees.
fn count_attempts(log: &str) -> usize {
    use OutboundOutcome::{Refused, TimedOut, Unreachable};
    let (attempts, _) = parse(log);
    let connected =
        |attempt: &&OutboundAttempt| !matches!(attempt.outcome, TimedOut | Refused | Unreachable);
    attempts.iter().filter(connected).count()
}

fn counted(
    outcomes: impl IntoIterator<Item = (IpAddr, OutboundOutcome)>,
) -> BTreeMap<(IpAddr, OutboundOutcome), u32> {
    let mut counts = BTreeMap::new();
    for outcome in outcomes {
        *counts.entry(outcome).or_default() += 1;
    }
    counts
}

fn attempts_are_those_that_the_destinations_saw() {
    use OutboundOutcome::{Refused, TimedOut, Unreachable};
    let lab = Lab::new();
    let (log, mut seen) = send_to_all(&lab);
    let (attempts, counts) = parse(&log);
    assert_eq!(counts.not_understood, 0, "{log}");
    seen.extend(destinations::unseen());
    let found =
        attempts.iter().map(|attempt| (attempt.address.ip().to_canonical(), attempt.outcome));
    assert_eq!(counted(found), counted(seen), "{log}");
    for attempt in &attempts {
        assert!(attempt.queue_id.is_some(), "{attempt:?}");
        assert_eq!(attempt.address.port(), port::SMTP);
        let Some(domain) = &attempt.domain else {
            // The line with its recipient may come too late, after another server that stalls.
            let has_waited = matches!(attempt.outcome, TimedOut | Refused | Unreachable);
            assert!(has_waited, "{attempt:?}");
            continue;
        };
        let host = attempt.host.as_ref().map(ToString::to_string);
        assert_eq!(host, Some(format!("mx.{domain}")));
    }
}

/// `tests/core/mail_log.rs` writes what is expected of it.
fn corpus_is_recorded() {
    let lab = Lab::new();
    let (log, _) = send_to_all(&lab);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mail_log");
    fs::write(folder.join("postfix-3.7.log"), log).unwrap();
}
