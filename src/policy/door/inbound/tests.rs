//! Sessions, and what they show of the receive path.

use super::*;

fn seconds(seconds: u64) -> Timestamp {
    Timestamp::from_nanos(seconds * 1_000_000_000)
}

fn settings() -> DoorSettings {
    DoorSettings { agreeing_networks: 2, ..DoorSettings::default() }
}

/// A session that reached DATA, from second `start`, for 5 s.
fn session(client: &str, start: u64, ended_by: SessionEnd, code: Option<u16>) -> InboundSession {
    InboundSession {
        client: client.parse().unwrap(),
        destination: "[2001:db8:25::25]:25".parse().unwrap(),
        start: seconds(start),
        end: seconds(start + 5),
        accepted: (code == Some(250)).then_some(LARGE),
        received: None,
        has_envelope: false,
        content_started: true,
        content_complete: code == Some(250),
        client_bytes: 300,
        ended_by,
        last_transaction: Some(code),
        encrypted: None,
        upstream: UpstreamContact::Connected,
    }
}

fn stalls(evidence: &InboundEvidence) -> Option<(u32, u32)> {
    let stalled = evidence.of(Family::Ipv6, &settings(), seconds(100)).stalled;
    stalled.map(|stalled| (stalled.networks, stalled.sessions))
}

#[test]
fn accepted_messages_and_stalls_are_counted() {
    let mut evidence = InboundEvidence::new(Networks::new(["2001:db8:7::/64".parse().unwrap()]));
    let client = "2001:db8::1";
    for (session, expected) in [
        // From inside, exempt, or of the other family.
        (session("::1", 1, SessionEnd::Client, None), None),
        (session("2001:db8:7::1", 1, SessionEnd::Client, None), None),
        (session("192.0.2.1", 1, SessionEnd::Client, None), None),
        // Rejected, or ended by the upstream.
        (session(client, 1, SessionEnd::Client, Some(550)), None),
        (session(client, 1, SessionEnd::Other, None), None),
        (session(client, 10, SessionEnd::Timeout, Some(421)), Some((1, 1))),
        (session(client, 20, SessionEnd::Client, None), Some((1, 2))),
        // One network is no more than its part, here two of three.
        (session("2001:db8:0:9::9", 21, SessionEnd::Client, None), Some((1, 2))),
        (session("2001:db8:1::1", 22, SessionEnd::Client, None), Some((2, 3))),
        // A small message proves the path, and disproves no black hole.
        (
            InboundSession {
                accepted: Some(LARGE - 1),
                ..session(client, 25, SessionEnd::Other, Some(250))
            },
            Some((2, 3)),
        ),
        (session(client, 30, SessionEnd::Other, Some(250)), None),
        // It began before the large message was accepted.
        (session(client, 34, SessionEnd::Client, None), None),
        (session(client, 40, SessionEnd::Client, None), Some((1, 1))),
        // It sent more than fits into small segments, then broke off.
        (
            InboundSession {
                client_bytes: LARGE_ENCRYPTED,
                ..session("2001:db8:2::1", 41, SessionEnd::Client, None)
            },
            Some((1, 1)),
        ),
    ] {
        evidence.on_session(&session);
        assert_eq!(stalls(&evidence), expected, "{session:?}");
    }
    let of = |family| evidence.of(family, &settings(), seconds(100));
    assert_eq!(of(Family::Ipv6).accepted, Some(seconds(35)));
    assert_eq!(of(Family::Ipv6).large, Some(seconds(35)));
    assert_eq!(of(Family::Ipv4).accepted, None);
    // Forgotten after an hour.
    let later = evidence.of(Family::Ipv6, &settings(), seconds(3_700));
    assert_eq!(later.stalled, None);
    evidence.clear_stalled(Family::Ipv6, seconds(50));
    assert_eq!(stalls(&evidence), None);
    evidence.on_session(&session(client, 49, SessionEnd::Client, None));
    assert_eq!(stalls(&evidence), None, "it began before");
}

/// As TLS 1.3 looks: the ClientHello and its reply, then commands and replies.
const TLS: EncryptedExchange = EncryptedExchange {
    client_bytes: 1_400,
    server_bytes: 2_600,
    replies: 5,
    has_hello: true,
    is_complete: true,
    client_is_due: true,
    silence: Duration::from_millis(1),
};

fn encrypted(exchange: EncryptedExchange, ended_by: SessionEnd) -> InboundSession {
    InboundSession {
        accepted: None,
        content_started: false,
        content_complete: false,
        last_transaction: None,
        encrypted: Some(exchange),
        ..session("2001:db8::1", 10, ended_by, None)
    }
}

#[test]
fn a_completed_encrypted_session_is_proof() {
    for (exchange, ended_by, expected) in [
        (TLS, SessionEnd::Upstream, true),
        (TLS, SessionEnd::Client, true),
        (EncryptedExchange { is_complete: false, ..TLS }, SessionEnd::Timeout, false),
        // The handshake failed.
        (EncryptedExchange { is_complete: false, ..TLS }, SessionEnd::Client, false),
        (EncryptedExchange { client_bytes: 300, ..TLS }, SessionEnd::Client, false),
        (EncryptedExchange { server_bytes: 300, ..TLS }, SessionEnd::Client, false),
        // The client gave the handshake up.
        (EncryptedExchange { replies: 0, ..TLS }, SessionEnd::Client, false),
    ] {
        let mut evidence = InboundEvidence::default();
        let proof = evidence.on_session(&encrypted(exchange, ended_by));
        assert_eq!(proof, expected, "{exchange:?} {ended_by:?}");
        let found = evidence.of(Family::Ipv6, &settings(), seconds(100));
        assert_eq!(found.encrypted.is_some(), expected);
        assert_eq!(found.accepted, None);
    }
}

#[test]
fn a_message_that_arrived_in_full_is_proof_however_its_session_ended() {
    let stuck = EncryptedExchange { silence: Duration::from_secs(180), ..TLS };
    let incomplete = EncryptedExchange { is_complete: false, ..stuck };
    let (small, large) = (Some(LARGE - 1), Some(LARGE));
    for (exchange, ended_by, (received, has_envelope), expected) in [
        // proof, received, envelope, stalled, large
        (TLS, SessionEnd::Client, (None, false), [true, false, false, false, false]),
        (TLS, SessionEnd::Client, (None, true), [true, false, true, false, false]),
        (TLS, SessionEnd::Client, (small, true), [true, true, true, false, false]),
        (TLS, SessionEnd::Client, (large, true), [true, true, true, false, true]),
        // The question at DATA came before the content that stalled.
        (stuck, SessionEnd::Client, (None, true), [false, false, false, true, false]),
        (incomplete, SessionEnd::Timeout, (None, true), [false, false, false, true, false]),
        // The client was idle after its message.
        (incomplete, SessionEnd::Timeout, (small, false), [true, true, false, false, false]),
        (incomplete, SessionEnd::Timeout, (large, false), [true, true, false, false, true]),
    ] {
        let mut evidence = InboundEvidence::default();
        let session = InboundSession { received, has_envelope, ..encrypted(exchange, ended_by) };
        let is_proof = evidence.on_session(&session);
        let found = evidence.of(Family::Ipv6, &settings(), seconds(100));
        let times = [found.received, found.envelope].map(|at| at == Some(session.end));
        let stalled = found.stalled.is_some();
        let actual = [is_proof, times[0], times[1], stalled, found.large.is_some()];
        assert_eq!(actual, expected, "{session:?}");
        assert_eq!(found.accepted, None, "no reply was seen");
    }
}

#[test]
fn an_encrypted_session_stalls_where_the_client_is_due() {
    let silence = Duration::from_secs(180);
    let stuck = EncryptedExchange { silence, ..TLS };
    let nothing = EncryptedExchange {
        client_bytes: 0,
        server_bytes: 0,
        replies: 0,
        has_hello: false,
        ..stuck
    };
    for (exchange, ended_by, expected) in [
        (stuck, SessionEnd::Timeout, true),
        (stuck, SessionEnd::Client, true),
        // The ClientHello is larger than the path.
        (nothing, SessionEnd::Timeout, true),
        (nothing, SessionEnd::Client, true),
        (TLS, SessionEnd::Client, false),
        (stuck, SessionEnd::Upstream, false),
        // It never came as far as DATA.
        (EncryptedExchange { replies: 1, ..stuck }, SessionEnd::Timeout, false),
        // The server is due.
        (EncryptedExchange { client_is_due: false, ..stuck }, SessionEnd::Timeout, false),
        (EncryptedExchange { client_bytes: LARGE_ENCRYPTED, ..stuck }, SessionEnd::Timeout, false),
    ] {
        let mut evidence = InboundEvidence::default();
        evidence.on_session(&encrypted(exchange, ended_by));
        assert_eq!(stalls(&evidence).is_some(), expected, "{exchange:?} {ended_by:?}");
    }
    // Enough bytes to be sure that large segments pass.
    let mut evidence = InboundEvidence::default();
    evidence.on_session(&encrypted(stuck, SessionEnd::Timeout));
    let large = EncryptedExchange { client_bytes: LARGE_ENCRYPTED, ..TLS };
    evidence.on_session(&encrypted(large, SessionEnd::Client));
    assert_eq!(stalls(&evidence), None);
}

#[test]
fn an_upstream_is_down_if_several_networks_fail_at_it() {
    let failed = |client: &str, destination: &str, start| InboundSession {
        destination: destination.parse().unwrap(),
        upstream: UpstreamContact::Failed,
        ..session(client, start, SessionEnd::Other, None)
    };
    let (mta, unused) = ("[2001:db8:25::25]:25", "[2001:db8:25::99]:25");
    let mut evidence = InboundEvidence::default();
    let down = |evidence: &InboundEvidence, at| {
        evidence.of(Family::Ipv6, &settings(), seconds(at)).upstream_down
    };
    for host in 1..100 {
        evidence.on_session(&failed(&format!("2001:db8::{host}"), mta, host));
    }
    assert!(!down(&evidence, 100), "one network");
    evidence.on_session(&failed("2001:db8:1::1", unused, 101));
    assert!(!down(&evidence, 102), "at two destinations");
    evidence.on_session(&failed("2001:db8:1::1", mta, 103));
    assert!(down(&evidence, 104));
    assert!(!down(&evidence, 800), "long ago");
    assert!(!evidence.of(Family::Ipv4, &settings(), seconds(104)).upstream_down);
    // A session that began before the failures and ended after them.
    evidence.on_session(&session("2001:db8:2::1", 90, SessionEnd::Other, Some(250)));
    assert!(down(&evidence, 105));
    evidence.on_session(&session("2001:db8:2::1", 104, SessionEnd::Other, Some(250)));
    assert!(!down(&evidence, 106));

    // Now the server is known: one failed session is an occasion for the gateway to connect itself.
    let checks =
        |evidence: &InboundEvidence, at| evidence.upstream_checks(Family::Ipv6, seconds(at));
    evidence.on_session(&failed("2001:db8::1", unused, 110));
    assert_eq!(checks(&evidence, 111), [], "nothing is known of that destination");
    evidence.on_session(&failed("2001:db8::1", mta, 110));
    let server = mta.parse().unwrap();
    assert_eq!(checks(&evidence, 111), [server]);
    evidence.on_upstream_check(Family::Ipv6, server, false, seconds(112));
    assert!(!down(&evidence, 113), "once");
    evidence.on_upstream_check(Family::Ipv6, server, false, seconds(114));
    assert!(down(&evidence, 115));
    evidence.on_upstream_check(Family::Ipv6, server, true, seconds(116));
    assert!(!down(&evidence, 117));
    assert_eq!(checks(&evidence, 117), []);
    // A client whose own address is the fault cannot make it down.
    for start in 120..140 {
        evidence.on_session(&failed("2001:db8::1", mta, start));
        evidence.on_upstream_check(Family::Ipv6, server, true, seconds(start));
        assert!(!down(&evidence, start));
    }
}
