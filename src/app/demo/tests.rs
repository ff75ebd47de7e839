//! The senders straight at the MTA, without a gateway: shows that the pieces work, and that the claims can fail.

use std::time::Duration;

use super::dialogue::Told;
use super::ports::{Reserved, ipv6_loopback};
use super::senders::{Sender, cast};
use super::stage::{Performance, Stage};
use super::table::{Style, Table, WIDTH};
use super::zone::{DOMAIN, HALF_DOMAIN};
use crate::addr::Family;

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
        let half = if family == Family::Ipv6 {
            shut.port
        } else {
            address.port()
        };
        stage.ports.set(HALF_DOMAIN, family, half);
    }
    (stage, shut, ipv6)
}

/// What each sender of that name met.
async fn all_named(name: &str) -> Vec<(Sender, Performance)> {
    let (stage, _shut, ipv6) = direct().await;
    let mut done = Vec::new();
    for sender in cast(ipv6, 0)
        .into_iter()
        .filter(|sender| sender.name == name)
    {
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
        (
            "listed host",
            "RCPT got \"250 2.1.5 Recipient ok\", not 550 5.7.1 demo: listed network",
        ),
        (
            "web client",
            "GET got \"502 5.5.2 Command not known\", not 554 5.5.1",
        ),
        (
            "early talker",
            "RCPT got \"250 2.1.5 Recipient ok\", not 550 5.",
        ),
        (
            "outsider",
            "XCLIENT got \"502 5.5.2 Command not known\", not 550 5.7.0",
        ),
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
    let plain = cast(ipv6, 0)
        .into_iter()
        .find(|s| s.claim.family == Family::Ipv4)
        .unwrap();
    let done = stage.perform(&plain).await;
    let dead_end = format!("no connection to any of 127.0.0.1:{}", shut.port);
    assert_eq!(done.differences, [dead_end]);
}

#[tokio::test]
async fn every_row_fits_and_ends_in_a_judgement() {
    let (stage, _shut, ipv6) = direct().await;
    let style = Style {
        live: false,
        colour: false,
    };
    let mut out = Vec::new();
    let mut table = Table::new(&mut out, style);
    table.head().unwrap();
    for sender in cast(ipv6, 0) {
        table.under_way(&sender).unwrap();
        let done = stage.perform(&sender).await;
        // As if the gateway had told of the session, where nothing else is amiss.
        let differences: Vec<_> = done
            .differences
            .into_iter()
            .filter(|d| d != NO_RECORD)
            .collect();
        let arrived = done.arrived.len();
        table
            .row(&sender, done.told.as_ref(), None, arrived, &differences)
            .unwrap();
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
