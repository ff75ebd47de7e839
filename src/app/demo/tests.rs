//! The senders straight at the MTA, without a gateway: shows that the pieces work, and that the claims can fail.

use std::time::Duration;

use super::audit::Sums;
use super::dialogue::Told;
use super::ports::{Reserved, ipv6_loopback};
use super::scrape::Samples;
use super::senders::{Sender, cast};
use super::stage::{Performance, Stage};
use super::table::{Style, Table};
use super::zone::{DOMAIN, HALF_DOMAIN};
use crate::addr::Family;
use crate::engine::{
    Anomaly, Event, Observe as _, Outcome, RecipientRecord, Refusal, SessionRecord, SmtpFacts,
    TcpFacts, TransactionRecord, VerdictRecord,
};
use crate::policy::PolicyAction;
use crate::report::columns::WIDTH;
use crate::time::Timestamp;

const NO_RECORD: &str = "session record: none, not one";

/// A stage on which the MTA itself is what the MX records lead to. The second part keeps the half site's port shut.
async fn direct() -> (Stage, Reserved, bool) {
    let ipv6 = ipv6_loopback();
    if !ipv6 {
        println!("NOT TESTED: this host has no IPv6 loopback address, so nothing is shown of IPv6");
    }
    let mut stage = Stage::set(ipv6).await.unwrap();
    stage.record_patience = Duration::ZERO;
    let shut = Reserved::new(ipv6).unwrap();
    for address in stage.mta.addresses.clone() {
        let family = Family::of(address.ip());
        stage.ports.set(DOMAIN, family, address.port());
        let half = if family == Family::Ipv6 { shut.port } else { address.port() };
        stage.ports.set(HALF_DOMAIN, family, half);
    }
    (stage, shut, ipv6)
}

/// What each sender of that name met.
async fn all_named(name: &str) -> Vec<(Sender, Performance)> {
    let (stage, _shut, ipv6) = direct().await;
    let mut done = Vec::new();
    for sender in cast(ipv6, 0).into_iter().filter(|sender| sender.name == name) {
        let performance = stage.perform(&sender).await;
        done.push((sender, performance));
    }
    assert!(!done.is_empty() || !ipv6, "nobody is called {name}");
    done
}

fn codes(told: &Told) -> Vec<u16> {
    told.replies.iter().map(|reply| reply.code).collect()
}

#[tokio::test]
async fn honest_mail_arrives_octet_for_octet() {
    for name in ["plain", "pipelining", "binary", "dual stack"] {
        for (sender, done) in all_named(name).await {
            // All is as claimed, but for the gateway that is not there.
            assert_eq!(done.differences, [NO_RECORD], "{sender:?}");
            assert_eq!(done.arrived.len(), 1, "{sender:?}");
        }
    }
}

#[tokio::test]
async fn without_a_gateway_smuggling_works() {
    for (sender, done) in all_named("smuggler").await {
        assert_eq!(done.arrived.len(), 2, "{sender:?}");
        assert_eq!(done.arrived[0].mail_from, "ann@sender.test");
        assert_eq!(done.arrived[1].mail_from, "chief@demo.test");
        assert_eq!(done.arrived[1].rcpt_to, ["payroll@demo.test"]);
        let differences = done.differences.join("\n");
        assert!(differences.contains("arrived: 2, not 1"), "{differences}");
        // The first message's 250; then the forged MAIL, RCPT, DATA, message; then QUIT.
        let codes = codes(done.told.as_ref().unwrap());
        assert_eq!(codes[5..], [250, 250, 250, 354, 250, 221]);
    }
}

#[tokio::test]
async fn without_a_gateway_nobody_is_refused() {
    let expected = [
        ("listed host", "RCPT got \"250 2.1.5 Recipient ok\", not 550 5.7.1 demo: listed network"),
        ("web client", "GET got \"502 5.5.2 Command not known\", not 554 5.5.1"),
        ("early talker", "RCPT got \"250 2.1.5 Recipient ok\", not 550 5.5.1"),
        ("outsider", "XCLIENT got \"502 5.5.2 Command not known\", not 550 5.7.0"),
    ];
    for (name, difference) in expected {
        for (_, done) in all_named(name).await {
            assert_eq!(done.differences[0], difference);
            assert!(done.arrived.is_empty());
        }
    }
}

#[tokio::test]
async fn a_dead_end_is_told() {
    let (mut stage, shut, ipv6) = direct().await;
    stage.ports.set(DOMAIN, Family::Ipv4, shut.port);
    let plain = cast(ipv6, 0).into_iter().find(|s| s.claim.family == Family::Ipv4).unwrap();
    let done = stage.perform(&plain).await;
    let dead_end = format!("no connection to any of 127.0.0.1:{}", shut.port);
    assert_eq!(done.differences, [dead_end]);
}

/// The record that the gateway would give if all were as `sender` claims.
fn as_claimed(sender: &Sender, told: &Told) -> SessionRecord {
    let claim = &sender.claim;
    let rcpt_to = claim.rcpt_to.iter().map(|(address, code)| RecipientRecord {
        address: (*address).to_owned(),
        code: Some(*code),
        enhanced: None,
    });
    let transaction = TransactionRecord {
        mail_from: claim.mail_from.to_owned(),
        rcpt_to: rcpt_to.collect(),
        data_code: (claim.messages() == 1).then_some(250),
        ..TransactionRecord::default()
    };
    SessionRecord {
        start: Timestamp::default(),
        duration: Duration::ZERO,
        family: claim.family,
        client: told.local.into(),
        server: told.peer.into(),
        upstream: None,
        outcome: claim.outcome,
        tcp: TcpFacts::default(),
        smtp: SmtpFacts {
            helo: claim.helo.map(str::to_owned),
            transactions: vec![transaction],
            anomalies: claim.anomalies.to_vec(),
            ..SmtpFacts::default()
        },
        facts: None,
        verdict: VerdictRecord {
            action: PolicyAction::Accept,
            rule: claim.rule.map(str::to_owned),
            reason: None,
            shadow: Vec::new(),
        },
    }
}

/// What the gateway would report in that case.
fn tell(stage: &Stage, sender: &Sender, told: &Told) {
    let (ledger, family) = (&stage.ledger, sender.claim.family);
    if let Some(refusal) = sender.claim.refusal {
        ledger.event(family, Event::Refusal(refusal));
    }
    for _ in 0..sender.claim.messages() {
        ledger.event(family, Event::Message { code: 250, bytes: 1 });
    }
    ledger.event(family, Event::SessionClosed(sender.claim.outcome));
    ledger.session(&as_claimed(sender, told));
}

#[tokio::test]
async fn a_record_that_differs_is_told() {
    type Change = fn(&mut SessionRecord);
    let changes: [(Change, &str); 8] = [
        (|_| {}, ""),
        (|r| r.outcome = Outcome::Timeout, "record: outcome: timeout, not quit"),
        (|r| r.smtp.helo = None, "record: HELO: none, not plain.sender.test"),
        (|r| r.family = Family::Ipv6, "record: family: ipv6, not ipv4"),
        (|r| r.verdict.rule = Some("x".into()), "record: rule: x, not none"),
        (|r| r.smtp.anomalies = vec![Anomaly::BareLf], "record: anomalies: bare_lf, not none"),
        (|r| r.smtp.transactions[0].data_code = Some(451), "record: messages: 0, not 1"),
        (
            |r| r.smtp.transactions[0].rcpt_to.clear(),
            "record: recipients: , not info@demo.test 250",
        ),
    ];
    let (stage, _shut, _) = direct().await;
    for (run, (change, difference)) in changes.into_iter().enumerate() {
        let plain = super::senders::plain(Family::Ipv4, run as u64);
        let told = stage.send(&plain).await.unwrap();
        let mut record = as_claimed(&plain, &told);
        change(&mut record);
        stage.ledger.session(&record);
        let before = stage.ledger.refusals();
        let done = stage.judge(&plain, told.clone(), &before).await;
        assert_eq!(done.differences.join("; "), difference);

        // A refusal that nobody claimed, and a record that is gone already.
        stage.ledger.event(Family::Ipv4, Event::Refusal(Refusal::Junk));
        let done = stage.judge(&plain, told, &before).await;
        assert_eq!(done.differences, [NO_RECORD, "refusals counted: junk, not none"]);
    }
}

#[tokio::test]
async fn sums_that_differ_are_told() {
    let (stage, _shut, _) = direct().await;
    let plain = super::senders::plain(Family::Ipv4, 0);
    let told = stage.send(&plain).await.unwrap();
    tell(&stage, &plain, &told);
    let done = stage.judge(&plain, told, &stage.ledger.refusals()).await;
    let mut sums = Sums::default();
    sums.add(&plain, &done);

    let served = "gatepost_sessions_total{family=\"ipv4\",outcome=\"quit\"} 1\n\
                  gatepost_sessions_total{family=\"ipv6\",outcome=\"quit\"} 0\n\
                  gatepost_messages_total{class=\"2xx\",family=\"ipv4\"} 1\n\
                  gatepost_messages_total{class=\"2xx\",family=\"ipv6\"} 0\n";
    let differences = |total, served: &str| {
        let samples = Samples::parse(served).unwrap();
        sums.compare(&stage.ledger, total, &samples)
    };
    assert!(differences(1, served).is_empty());
    assert_eq!(differences(2, served), ["messages at the MTA: 2, not 1"]);
    let two = served.replacen("} 1", "} 2", 1);
    assert_eq!(differences(1, &two), ["gatepost_sessions_total of ipv4: 2, not 1"]);
    let none = served.replace("messages", "letters");
    assert_eq!(differences(1, &none).len(), 2);
    stage.ledger.event(Family::Ipv6, Event::SessionClosed(Outcome::Quit));
    assert_eq!(differences(1, served), ["ipv6 sessions told of: 1, not 0"]);
}

#[tokio::test]
async fn every_row_fits_and_ends_in_a_judgement() {
    let (stage, _shut, ipv6) = direct().await;
    let style = Style { live: false, colour: false };
    let mut out = Vec::new();
    let mut table = Table::new(&mut out, style);
    table.head().unwrap();
    for sender in cast(ipv6, 0) {
        table.under_way(&sender).unwrap();
        let before = stage.ledger.refusals();
        let told = stage.send(&sender).await.unwrap();
        tell(&stage, &sender, &told);
        let done = stage.judge(&sender, told, &before).await;
        table.row(&sender, &done).unwrap();
    }
    let text = String::from_utf8(out).unwrap();
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "too wide: {line}");
        assert!(!line.contains('\u{2026}'), "cut: {line}");
    }
    if ipv6 {
        insta::assert_snapshot!(text);
    }
}
