//! The whole demo in this process; and the clients directly at the MTA, without a gateway, where they must fail.

use std::time::Duration;

use super::clients::{DemoClient, all};
use super::environment::Environment;
use super::ports::{ReservedPort, ipv6_loopback};
use super::result::ClientResult;
use super::table::{DemoTable, Style};
use super::zone::{DOMAIN, HALF_DOMAIN};
use crate::addr::Family;
use crate::report::columns::WIDTH;

const NO_RECORD: &str = "reason: noted: no record, expected -";

#[tokio::test]
async fn every_row_passes_and_fits_its_columns() {
    let style = Style { live: false, colour: false };
    let mut out = Vec::new();
    let passed = super::show(&mut DemoTable::new(&mut out, style), true).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(passed, "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "too wide: {line}");
        assert!(!line.contains('\u{2026}'), "truncated: {line}");
    }
}

/// An environment whose MX records lead to the MTA itself. The second part keeps the half site's port closed.
async fn without_gateway() -> (Environment, ReservedPort, bool) {
    let ipv6 = ipv6_loopback();
    if !ipv6 {
        println!("NOT TESTED: this host has no IPv6 loopback address");
    }
    let mut environment = Environment::start(ipv6).await.unwrap();
    environment.record_timeout = Duration::ZERO;
    let closed = ReservedPort::new(ipv6).unwrap();
    for address in environment.mta.addresses.clone() {
        let family = Family::of(address.ip());
        environment.ports.set(DOMAIN, family, address.port());
        let half = if family == Family::Ipv6 { closed.port } else { address.port() };
        environment.ports.set(HALF_DOMAIN, family, half);
    }
    (environment, closed, ipv6)
}

/// The result of each client of that name.
async fn run_all_named(name: &str) -> Vec<(DemoClient, ClientResult)> {
    let (mut environment, _closed, ipv6) = without_gateway().await;
    let mut results = Vec::new();
    for client in all(ipv6, 0).into_iter().filter(|client| client.name == name) {
        let result = environment.run(&client).await;
        results.push((client, result));
    }
    assert!(!results.is_empty() || !ipv6, "no client has the name {name}");
    results
}

/// What differs besides TLS, which the MTA does not offer.
fn differences_besides_tls(client: &DemoClient, result: &ClientResult) -> Vec<String> {
    let all = client.expected.differences(result);
    let (of_tls, others): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|one| one.starts_with("TLS of"));
    let expected: &[&str] = match client.expected.tls {
        true => &["TLS of the client: no, expected yes", "TLS of the gateway: no, expected yes"],
        false => &[],
    };
    assert_eq!(of_tls, expected, "{client:?}");
    others
}

#[tokio::test]
async fn legitimate_mail_arrives_byte_for_byte() {
    for name in ["plain", "pipelining", "binary", "dual stack"] {
        for (client, result) in run_all_named(name).await {
            let differences = differences_besides_tls(&client, &result);
            let expected = match name {
                "pipelining" => "reason: 550 5.1.1 no record, expected 550 5.1.1 by the MTA",
                _ => NO_RECORD,
            };
            assert_eq!(differences, [expected], "{client:?}");
            assert_eq!(result.arrived.len(), 1, "{client:?}");
        }
    }
}

#[tokio::test]
async fn without_a_gateway_smuggling_succeeds() {
    for (client, result) in run_all_named("smuggler").await {
        assert_eq!(result.arrived.len(), 2, "{client:?}");
        assert_eq!(result.arrived[0].mail_from, "ann@sender.test");
        assert_eq!(result.arrived[1].mail_from, "chief@demo.test");
        assert_eq!(result.arrived[1].rcpt_to, ["payroll@demo.test"]);
        assert_eq!(
            differences_besides_tls(&client, &result),
            [
                "reply to QUIT: \"250 2.1.0 Sender ok\", expected 221",
                "arrived: 2, expected 1",
                "\"MAIL FROM:<chief@demo.test>\\r\\n\" is missing from the message that arrived",
                "\"The second, forged.\" is missing from the message that arrived",
            ]
        );
        // The first message's 250; then the forged MAIL, RCPT, DATA and message; then QUIT.
        let replies = &result.view.unwrap().replies;
        let codes: Vec<_> = replies.iter().filter_map(|reply| reply.code()).collect();
        assert_eq!(codes[5..], [250, 250, 250, 354, 250, 221]);
    }
}

#[tokio::test]
async fn without_a_gateway_nothing_is_rejected() {
    for (name, difference) in [
        (
            "listed host",
            "reply to RCPT: \"250 2.1.5 Recipient ok\", expected 550 5.7.1 demo: listed network",
        ),
        ("web client", "reply to GET: \"502 5.5.2 Command not known\", expected 554 5.5.1"),
        ("early talker", "reply to RCPT: \"250 2.1.5 Recipient ok\", expected 550 5.5.1"),
        ("outsider", "reply to XCLIENT: \"502 5.5.2 Command not known\", expected 550 5.7.0"),
    ] {
        for (client, result) in run_all_named(name).await {
            assert_eq!(client.expected.differences(&result)[0], difference);
            assert!(result.arrived.is_empty());
        }
    }
}

#[tokio::test]
async fn an_unreachable_site_is_a_difference() {
    let (mut environment, closed, ipv6) = without_gateway().await;
    environment.ports.set(DOMAIN, Family::Ipv4, closed.port);
    let mut clients = all(ipv6, 0).into_iter();
    let plain = clients.find(|client| client.expected.family == Family::Ipv4).unwrap();
    let result = environment.run(&plain).await;
    let unreachable = format!("no connection to any of 127.0.0.1:{}", closed.port);
    assert_eq!(plain.expected.differences(&result), [unreachable]);
}
