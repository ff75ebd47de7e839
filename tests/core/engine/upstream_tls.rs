//! TLS of the gateway's own with upstream. Upstream's lines after its `220 go` are what the gateway decrypted.

use std::time::Duration;

use gatepost::engine::{
    Anomaly, Event, Outcome, Profile, Refusal, SessionRecord, SmtpOptions, Timeouts, TlsMode,
    UpstreamTls, UpstreamTlsResult,
};

use super::dialogue::Dialogue;
use super::driver::Driver;

/// Until the handshake is complete and upstream has the client's EHLO.
const TLS: &str = r"S: 220 mx.example
    C- EHLO client.example
    +S EHLO gate.example
    S- 250-mx.example
    S- 250-XCLIENT ADDR
    S- 250 STARTTLS
    +S STARTTLS
    --
    S- 220 go
    +S EHLO client.example
    --
    ";
const LEVELS: [UpstreamTls; 3] =
    [UpstreamTls::Opportunistic, UpstreamTls::Require, UpstreamTls::Verify];

fn terminate(profile: &mut Profile) {
    profile.tls = TlsMode::Terminate { required: false };
}

#[track_caller]
fn run(level: UpstreamTls, parts: &[&str]) -> SessionRecord {
    Dialogue::new(&parts.concat()).with(terminate).upstream_tls(level).run()
}

fn driver(level: UpstreamTls) -> Driver {
    let mut profile = Profile {
        smtp: SmtpOptions { hostname: "gate.example".to_owned(), ..SmtpOptions::default() },
        ..Profile::default()
    };
    terminate(&mut profile);
    let (client, server) = ("[2001:db8::1]:40000", "[2001:db8::2]:25");
    let mut driver = Driver::new(profile, Timeouts::RFC_5321, client, server, false);
    driver.use_upstream_tls(level);
    driver
}

/// Until STARTTLS is answered.
fn starting(level: UpstreamTls) -> Driver {
    let mut driver = driver(level);
    driver.hold_handshake();
    driver.upstream_sends(b"220 mx.example\r\n");
    driver.client_sends(b"EHLO client.example\r\n");
    driver.upstream_sends(b"250-mx.example\r\n250 STARTTLS\r\n");
    driver.upstream_sends(b"220 go\r\n");
    driver
}

#[test]
fn the_clients_commands_wait_for_tls_with_upstream() {
    for level in LEVELS {
        let record = run(
            level,
            &[
                TLS,
                r"S- 250-mx.example
                S- 250 PIPELINING
                +C 250-mx.example
                +C 250-PIPELINING
                +C 250 STARTTLS
                C: MAIL FROM:<a@client.example>
                S: 250 ok
                C: RCPT TO:<b@mx.example>
                S: 250 ok
                C: DATA
                S: 354 go
                C: text
                C: .
                S: 250 accepted
                C: QUIT
                S: 221 bye
                S.
                = quit",
            ],
        );
        assert_eq!(record.upstream_tls, Some("TLSv1.3"));
        assert_eq!(record.smtp.transactions[0].data_code, Some(250));
        assert_eq!(record.smtp.replies[&220], 1, "the greeting alone");
    }
}

/// The same password crosses the client's leg: the gateway's TLS with upstream does not protect it there.
#[test]
fn auth_that_upstream_offers_inside_tls_only_needs_tls_of_the_client() {
    run(
        UpstreamTls::Opportunistic,
        &[
            TLS,
            r"S- 250-mx.example
            S- 250 AUTH PLAIN
            +C 250-mx.example
            +C 250 STARTTLS
            C- AUTH PLAIN abc
            +C 538 5.7.11 encryption is required for AUTH: STARTTLS comes first
            C- STARTTLS
            +C 220 2.0.0 ready to start TLS
            --
            C: EHLO client.example
            S: 250-mx.example
            S: 250 AUTH PLAIN
            C: AUTH PLAIN abc
            S: 235 ok
            ",
        ],
    );
}

#[test]
fn auth_that_upstream_offers_in_plaintext_too_is_offered_as_without_the_gateway() {
    run(
        UpstreamTls::Require,
        &[r"S: 220 mx.example
            C- EHLO client.example
            +S EHLO gate.example
            S- 250-mx.example
            S- 250-AUTH PLAIN
            S- 250 STARTTLS
            +S STARTTLS
            --
            S- 220 go
            +S EHLO client.example
            --
            S- 250-mx.example
            S- 250 AUTH PLAIN
            +C 250-mx.example
            +C 250-AUTH PLAIN
            +C 250 STARTTLS
            C: AUTH PLAIN abc
            S: 235 ok
            "],
    );
}

/// CVE-2011-0411 and its kind, towards the gateway as a client: replies behind the 220 count for nothing.
#[test]
fn replies_behind_the_220_are_discarded() {
    let mut driver = driver(UpstreamTls::Verify);
    driver.upstream_sends(b"220 mx.example\r\n");
    driver.client_sends(b"EHLO client.example\r\n");
    driver.upstream_sends(b"250-mx.example\r\n250 STARTTLS\r\n");
    driver.upstream_sends(b"220 go\r\n250-injected\r\n250 AUTH PLAIN\r\n");
    assert_eq!(driver.to_client, b"220 mx.example\r\n");
    driver.upstream_sends(b"250 mx.example\r\n");
    assert_eq!(driver.to_client, b"220 mx.example\r\n250-mx.example\r\n250 STARTTLS\r\n");
    let record = driver.finish();
    assert_eq!(record.smtp.anomalies, [Anomaly::StarttlsPlaintext]);
}

#[test]
fn xclient_follows_inside_tls() {
    let text = [r"S: 220 mx.example
        C- EHLO client.example
        +S EHLO gate.example
        S- 250-mx.example
        S- 250 STARTTLS
        +S STARTTLS
        --
        S- 220 go
        +S EHLO gate.example
        --
        S- 250-mx.example
        S- 250 XCLIENT ADDR PORT
        +S XCLIENT ADDR=IPV6:2001:db8::1 PORT=40000
        --
        S- 220 mx.example
        +S EHLO client.example
        --
        S- 250 mx.example
        +C 250-mx.example
        +C 250 STARTTLS
        "];
    let identity = |profile: &mut Profile| {
        terminate(profile);
        profile.xclient = true;
    };
    Dialogue::new(&text.concat()).with(identity).upstream_tls(UpstreamTls::Require).run();
}

const WITHOUT: [(&str, &str, UpstreamTlsResult); 3] = [
    ("S- 250 mx.example\n", "", UpstreamTlsResult::NotOffered),
    ("S- 500 what\n", "", UpstreamTlsResult::NotOffered),
    (
        "S- 250-mx.example\nS- 250 STARTTLS\n+S STARTTLS\n--\n",
        "S- 454 4.7.0 not now\n",
        UpstreamTlsResult::Refused,
    ),
];

#[test]
fn without_the_offer_preferred_tls_is_plaintext() {
    for (offer, answer, _) in WITHOUT {
        let start = "S: 220 mx\nC- EHLO client.example\n+S EHLO gate.example\n";
        let rest = "+S EHLO client.example\n--\nS- 250 mx\n+C 250-mx\n+C 250 STARTTLS\n";
        let record = run(UpstreamTls::Opportunistic, &[start, offer, answer, rest]);
        assert_eq!((record.upstream_tls, record.upstream_error), (None, None));
    }
}

#[test]
fn without_the_offer_required_tls_is_no_mail() {
    for level in [UpstreamTls::Require, UpstreamTls::Verify] {
        for (offer, answer, _) in WITHOUT {
            let start = "S: 220 mx\nC- EHLO client.example\n+S EHLO gate.example\n";
            let end = "+C 421 4.7.5 gate.example no TLS with the mail server; try again later\n\
                = upstream_unavailable";
            let record = run(level, &[start, offer, answer, end]);
            assert_eq!(record.verdict.reason.as_deref(), Some("upstream_tls"));
            assert!(record.upstream_error.is_some(), "the reason");
        }
    }
}

#[test]
fn every_attempt_is_counted_by_its_result() {
    for (offer, answer, result) in WITHOUT {
        let mut driver = driver(UpstreamTls::Opportunistic);
        driver.upstream_sends(b"220 mx.example\r\n");
        driver.client_sends(b"EHLO client.example\r\n");
        for script in [offer, answer] {
            let lines = script.lines().filter_map(|line| line.strip_prefix("S- "));
            lines.for_each(|line| driver.upstream_sends(format!("{line}\r\n").as_bytes()));
        }
        assert!(driver.events.contains(&Event::UpstreamTls(result)), "{result}");
    }
}

/// The connection is useless after a failed handshake: the client tries again, then without TLS where it is only preferred.
#[test]
fn a_failed_handshake_ends_the_session_and_is_remembered_if_tls_is_only_preferred() {
    for (level, avoided) in
        [(UpstreamTls::Opportunistic, 1), (UpstreamTls::Require, 0), (UpstreamTls::Verify, 0)]
    {
        let ways: [fn(&mut Driver); 3] = [
            |driver| driver.fail_handshake(UpstreamTlsResult::Certificate),
            Driver::upstream_closes,
            |driver| driver.wait(Duration::from_secs(31)),
        ];
        for way in ways {
            let mut driver = starting(level);
            way(&mut driver);
            assert!(driver.closed);
            assert!(driver.to_client.ends_with(
                b"\r\n421 4.7.5 gate.example no TLS with the mail server; try again later\r\n"
            ));
            assert_eq!(driver.to_upstream, b"EHLO gate.example\r\nSTARTTLS\r\n");
            assert_eq!(driver.avoided_tls, avoided);
            let record = driver.finish();
            assert_eq!(record.outcome, Outcome::UpstreamUnavailable);
            assert!(driver.events.contains(&Event::Refusal(Refusal::UpstreamTls)));
            assert!(record.upstream_error.is_some(), "the reason");
        }
    }
}

/// A record that cannot be decrypted: nothing is known about the message.
#[test]
fn broken_tls_later_is_a_lost_connection() {
    let mut driver = driver(UpstreamTls::Require);
    driver.upstream_sends(b"220 mx.example\r\n");
    driver.client_sends(b"EHLO client.example\r\n");
    driver.upstream_sends(b"250-mx.example\r\n250 STARTTLS\r\n");
    driver.upstream_sends(b"220 go\r\n");
    driver.upstream_sends(b"250 mx.example\r\n");
    driver.fail_handshake(UpstreamTlsResult::Protocol);
    assert!(driver.closed);
    let end = b"421 4.4.2 gate.example connection to the mail server was lost; try again later\r\n";
    assert!(driver.to_client.ends_with(end));
    let handshakes = driver.events.iter().filter(|event| matches!(event, Event::UpstreamTls(_)));
    assert_eq!(handshakes.count(), 1, "the handshake that succeeded");
    assert_eq!(driver.finish().outcome, Outcome::UpstreamClosed);
}

/// Rule 1 of ARCHITECTURE.md: upstream's own test notices the client, whose commands wait for TLS all the same.
#[test]
fn a_client_that_does_not_wait_for_the_greeting_is_announced_by_noop() {
    run(
        UpstreamTls::Opportunistic,
        &[r"C- EHLO client.example
            +S NOOP
            --
            S: 220 mx.example
            +S EHLO gate.example
            --
            S- 250 ok
            S- 250-mx.example
            S- 250 STARTTLS
            +S STARTTLS
            --
            S- 220 go
            +S EHLO client.example
            --
            S- 250 mx.example
            +C 250-mx.example
            +C 250 STARTTLS
            "],
    );
}

#[test]
fn a_shutdown_does_not_wait_for_the_handshake() {
    let mut driver = starting(UpstreamTls::Require);
    driver.drain();
    assert!(driver.closed);
    assert_eq!(driver.finish().outcome, Outcome::Shutdown);
}
