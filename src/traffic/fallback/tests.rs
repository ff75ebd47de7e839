//! Tables of attempts; a row is one flow of a capture.

use std::net::IpAddr;
use std::time::Duration;

use super::detector::MAX_KEPT;
use super::*;
use crate::time::Timestamp;
use crate::traffic::MailDirection;

/// Client, server, start and end in milliseconds, outcome, HELO. Attempts are numbered from 1 in this order.
type AttemptRow = (&'static str, &'static str, (u64, u64), DeliveryOutcome, &'static str);

const NO_HELO: &str = "";
const A6: &str = "2001:db8:a::1";
const A4: &str = "192.0.2.1";
const B6: &str = "2001:db8:b::1";
const B4: &str = "192.0.2.2";
const MX6: &str = "[2001:db8:ff::25]:25";
const MX4: &str = "198.51.100.25:25";
const OTHER4: &str = "203.0.113.25:25";

fn at(ms: u64) -> Timestamp {
    Timestamp::from_nanos(1_767_323_045_000_000_000) + Duration::from_millis(ms)
}

fn attempts(rows: &[AttemptRow]) -> Vec<Attempt> {
    let attempt =
        |(i, &(client, server, (start, end), ended, helo)): (usize, &AttemptRow)| Attempt {
            number: i as u64 + 1,
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
            start: at(start),
            end: at(end),
            direction: MailDirection::Inbound,
            outcome: ended,
            helo: (!helo.is_empty()).then(|| helo.to_owned()),
        };
    rows.iter().enumerate().map(attempt).collect()
}

fn describe(found: &[Fallback]) -> Vec<String> {
    let one = |f: &Fallback| {
        let code = f.code.map_or_else(String::new, |code| format!(" {code}"));
        let by = if f.by == ServerMatch::Names { "names" } else { "window" };
        format!("{} to {} after {} ms: {}{code}, by {by}", f.from, f.to, f.after.as_millis(), f.why)
    };
    found.iter().map(one).collect()
}

fn fallbacks(attempts: Vec<Attempt>, shares_name: SharesName<'_>) -> Vec<String> {
    let (mut detector, mut found) = (FallbackDetector::new(), Vec::new());
    for attempt in attempts {
        detector.push(attempt);
    }
    detector.finish(shares_name, &mut |fallback| found.push(fallback));
    describe(&found)
}

fn unnamed(rows: &[AttemptRow]) -> Vec<String> {
    fallbacks(attempts(rows), &|_, _| None)
}

/// By DNS answers, MX6 and MX4 are `mx`, and OTHER4 is `other`.
fn named(rows: &[AttemptRow]) -> Vec<String> {
    let name = |ip: IpAddr| match ip.to_string().as_str() {
        "2001:db8:ff::25" | "198.51.100.25" => Some("mx"),
        "203.0.113.25" => Some("other"),
        _ => None,
    };
    fallbacks(attempts(rows), &|a, b| Some(name(a)? == name(b)?))
}

use DeliveryOutcome::{
    Accepted, EnvelopeRefused, GreetingRefused, Other, Refused, Reset, Unanswered,
};

#[test]
fn the_reason_is_the_outcome_of_ipv6() {
    for (ended, start, expected) in [
        (Unanswered, 3200, "unanswered"),
        (Refused, 3200, "refused"),
        (DeliveryOutcome::Unreachable, 3200, "unreachable"),
        (DeliveryOutcome::BlackHole, 3200, "black_hole"),
        (Reset, 3200, "reset"),
        (GreetingRefused(554), 3200, "greeting 554"),
        (EnvelopeRefused(550), 3200, "envelope 550"),
    ] {
        let rows = [
            (A6, MX6, (0, 3000), ended, NO_HELO),
            (A4, MX4, (start, start + 400), Accepted, "a.example"),
        ];
        let after = format!("1 to 2 after {start} ms: {expected}, by");
        assert_eq!(unnamed(&rows), [format!("{after} window")]);
        assert_eq!(named(&rows), [format!("{after} names")]);
    }
}

#[test]
fn success_and_invisible_outcomes_are_no_fallback() {
    for ended in [Accepted, Other] {
        let rows = [
            (A6, MX6, (0, 3000), ended, "a.example"),
            (A4, MX4, (3200, 3600), Accepted, "a.example"),
        ];
        assert!(named(&rows).is_empty());
    }
    // IPv4 first.
    let rows = [
        (A4, MX4, (0, 400), EnvelopeRefused(550), "a.example"),
        (A6, MX6, (500, 900), EnvelopeRefused(550), "a.example"),
    ];
    assert!(named(&rows).is_empty());
}

#[test]
fn an_answered_attempt_is_left_only_after_its_answer() {
    // A concurrent session is not a consequence of the first.
    let beside = |ended| {
        let rows = [
            (A6, MX6, (0, 8000), ended, "a.example"),
            (A4, MX4, (2000, 2400), Accepted, "a.example"),
        ];
        named(&rows)
    };
    assert!(beside(EnvelopeRefused(550)).is_empty());
    // Retransmissions continue long after the client gave up.
    assert_eq!(beside(DeliveryOutcome::BlackHole), ["1 to 2 after 2000 ms: black_hole, by names"]);
    // The last packets may overlap.
    let rows = [
        (A6, MX6, (0, 900), EnvelopeRefused(450), "a.example"),
        (A4, MX4, (600, 1000), Accepted, "a.example"),
    ];
    assert_eq!(named(&rows), ["1 to 2 after 600 ms: envelope 450, by names"]);
}

#[test]
fn the_window_begins_when_the_client_gave_up() {
    // SYNs at 0, 1, 3, 7 and 15 s; Postfix gives up at 30 s. The kernel sends its last at 63 s and gives up at 127 s.
    for (last_syn, retry) in [(15_000, 30_000), (63_000, 127_000), (0, 500)] {
        let rows = [
            (A6, MX6, (0, last_syn), Unanswered, NO_HELO),
            (A4, MX4, (retry, retry + 400), Accepted, "a.example"),
        ];
        assert_eq!(unnamed(&rows), [format!("1 to 2 after {retry} ms: unanswered, by window")]);
    }
    let retry_at = |start| {
        [
            (A6, MX6, (0, 400), EnvelopeRefused(550), "a.example"),
            (A4, MX4, (start, start + 400), Accepted, "a.example"),
        ]
    };
    assert_eq!(unnamed(&retry_at(10_400)).len(), 1);
    assert_eq!(unnamed(&retry_at(10_401)).len(), 0, "too late without names");
    assert_eq!(named(&retry_at(300_400)).len(), 1);
    assert_eq!(named(&retry_at(300_401)).len(), 0, "too late with names");
}

#[test]
fn names_select_one_of_many_servers() {
    let rows = [
        (A6, MX6, (0, 15_000), Unanswered, NO_HELO),
        (A4, OTHER4, (2000, 2400), Accepted, "a.example"),
        (A4, MX4, (30_000, 30_400), Accepted, "a.example"),
    ];
    assert_eq!(named(&rows), ["1 to 3 after 30000 ms: unanswered, by names"]);
    assert!(unnamed(&rows).is_empty(), "a busy sender: two candidates");
    let another_port = [
        (A6, MX6, (0, 0), Unanswered, NO_HELO),
        (A4, "198.51.100.25:587", (200, 400), Accepted, "a.example"),
    ];
    assert!(named(&another_port).is_empty());
}

#[test]
fn helo_matches_clients() {
    let two_clients = |helo6, helo_a| {
        [
            (A6, MX6, (0, 400), EnvelopeRefused(550), helo6),
            (B4, MX4, (500, 900), Accepted, "b.example"),
            (A4, MX4, (1000, 1400), Accepted, helo_a),
        ]
    };
    let expected = ["1 to 3 after 1000 ms: envelope 550, by window"];
    assert_eq!(unnamed(&two_clients("a.example", "A.Example")), expected);
    assert!(unnamed(&two_clients("a.example", "c.example")).is_empty());
    // Any host may be localhost.
    for common in ["localhost", "localhost.localdomain", "friend", "[127.0.0.1]"] {
        let mut rows = two_clients(common, common);
        rows[1].4 = common;
        assert!(unnamed(&rows).is_empty(), "{common}");
    }
}

#[test]
fn names_match_clients_and_separate_them() {
    let rows = [
        (A6, MX6, (0, 0), Unanswered, NO_HELO),
        (B4, MX4, (500, 900), Accepted, "b.example"),
        (A4, MX4, (1000, 1400), Accepted, "a.example"),
    ];
    let clients = |a: IpAddr, b: IpAddr| {
        let name = |ip: IpAddr| match ip.to_string().as_str() {
            A6 | A4 => Some("a"),
            B6 | B4 => Some("b"),
            _ => None,
        };
        Some(name(a)? == name(b)?)
    };
    let found = fallbacks(attempts(&rows), &clients);
    assert_eq!(found, ["1 to 3 after 1000 ms: unanswered, by window"]);
}

#[test]
fn without_helo_there_must_be_one_client_only() {
    let second_ipv4 = [
        (A6, MX6, (0, 0), Unanswered, NO_HELO),
        (A4, MX4, (500, 900), Accepted, "a.example"),
        (B4, MX4, (600, 900), Accepted, "b.example"),
    ];
    assert!(named(&second_ipv4).is_empty());
    assert!(unnamed(&second_ipv4).is_empty());
    let second_ipv6 = [
        (A6, MX6, (0, 0), Unanswered, NO_HELO),
        (B6, MX6, (100, 100), Unanswered, NO_HELO),
        (A4, MX4, (500, 900), Accepted, "a.example"),
    ];
    assert!(named(&second_ipv6).is_empty());
    assert!(unnamed(&second_ipv6).is_empty());
}

#[test]
fn several_ipv6_addresses_may_fail_first() {
    let rows = [
        (A6, MX6, (0, 15_000), Unanswered, NO_HELO),
        (A6, "[2001:db8:ff::26]:25", (30_000, 45_000), Unanswered, NO_HELO),
        (A4, MX4, (60_000, 60_400), Accepted, "a.example"),
    ];
    let expected = [
        "1 to 3 after 60000 ms: unanswered, by names",
        "2 to 3 after 30000 ms: unanswered, by window",
    ];
    assert_eq!(named(&rows), expected);
}

#[test]
fn a_race_is_not_a_failure() {
    let race = |start4, ended4, ended6| {
        [(A6, MX6, (0, 280), ended6, NO_HELO), (A4, MX4, (start4, 900), ended4, "a.example")]
    };
    let found = ["1 to 2 after 250 ms: race, by names"];
    assert_eq!(named(&race(250, Accepted, Other)), found);
    assert!(named(&race(281, Accepted, Other)).is_empty(), "IPv6 ended before");
    assert!(named(&race(250, Refused, Other)).is_empty(), "no winner");
    // Never answered, however fast the client was.
    let found = ["1 to 2 after 250 ms: unanswered, by names"];
    assert_eq!(named(&race(250, Accepted, Unanswered)), found);
}

#[test]
fn the_order_of_input_does_not_matter() {
    let rows = [
        (A6, MX6, (0, 15_000), Unanswered, NO_HELO),
        (A4, MX4, (30_000, 30_400), Accepted, "a.example"),
        (B6, MX6, (700_000, 700_400), EnvelopeRefused(550), "b.example"),
        (B4, MX4, (700_500, 700_900), Accepted, "b.example"),
    ];
    let expected = fallbacks(attempts(&rows), &|_, _| None);
    assert_eq!(expected.len(), 2);
    for rotated in 0..4 {
        let mut attempts = attempts(&rows);
        attempts.rotate_left(rotated);
        let mut found = fallbacks(attempts, &|_, _| None);
        found.sort();
        assert_eq!(found, expected);
    }
}

#[test]
fn fallbacks_are_reported_when_certain() {
    let rows =
        [(A6, MX6, (0, 0), Unanswered, NO_HELO), (A4, MX4, (500, 900), Accepted, "a.example")];
    let (mut detector, mut found) = (FallbackDetector::new(), Vec::new());
    for attempt in attempts(&rows) {
        detector.push(attempt);
    }
    detector.advance(at(600_000), &|_, _| None, &mut |fallback| found.push(fallback));
    assert_eq!(found.len(), 0);
    detector.advance(at(602_000), &|_, _| None, &mut |fallback| found.push(fallback));
    assert_eq!(found.len(), 1);
    detector.advance(at(902_000), &|_, _| None, &mut |fallback| found.push(fallback));
    assert_eq!((detector.pending.len(), detector.ipv4.len(), found.len()), (0, 0, 1));
}

#[test]
fn memory_is_bounded() {
    let mut detector = FallbackDetector::new();
    for number in 0..MAX_KEPT as u64 + 10 {
        for (client, server) in [(A6, MX6), (A4, MX4)] {
            let row = (client, server, (number, number), Unanswered, NO_HELO);
            let helo = Some("x".repeat(10_000));
            detector.push(Attempt { number, helo, ..attempts(&[row]).remove(0) });
        }
    }
    assert_eq!((detector.pending.len(), detector.ipv4.len()), (MAX_KEPT, MAX_KEPT));
    assert_eq!(detector.forgotten(), 10);
    assert!(detector.ipv4.values().all(|kept| kept.helo.as_ref().unwrap().is_empty()));
}
