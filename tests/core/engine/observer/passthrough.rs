//! The outcome of TLS in captures from which bytes are missing: what they would show is not guessed.

use super::*;
use crate::engine::passthrough::{TLS_1_3, TLS_1_3_UNTRUSTED, flights};

const STARTTLS: &str = "S: 220 a\nC: STARTTLS\nS: 220 go\n";

/// Data of the steps of `file`, of which `missing` replaces some by their length.
fn steps(file: &str, missing: impl Fn(usize, &[u8]) -> Option<Vec<Input>>) -> Vec<Input> {
    let inputs = parse(&flights(file, 99)).into_iter().enumerate();
    inputs
        .flat_map(|(n, input)| match missing(n, input.octets()) {
            Some(parts) => parts,
            None => vec![input],
        })
        .collect()
}

#[track_caller]
fn outcome(steps: Vec<Input>, closed_by: Side) -> Outcome {
    let mut recorded = RecordedDialogue::new(STARTTLS);
    recorded.inputs.extend(steps);
    recorded.inputs.extend([Input::Closed(closed_by), Input::Closed(closed_by.other())]);
    let record = recorded.run();
    assert_eq!(record.smtp.tls, TlsState::Started);
    record.outcome
}

/// The bodies of records are not needed, so an eBPF capture, which leaves out all but the start, suffices.
#[test]
fn missing_bodies_of_records_do_not_matter() {
    for missing in [Input::Gap as fn(Side, u64) -> Input, Input::Omitted] {
        // Of the server's second record, its header of five bytes and a little more are there.
        let within = |n: usize, octets: &[u8]| {
            (n == 1).then(|| {
                let after = 5 + usize::from(u16::from_be_bytes([octets[3], octets[4]]));
                let mut parts = vec![
                    Input::Data(Side::Server, octets[..20].to_vec()),
                    missing(Side::Server, after as u64 - 20),
                    Input::Data(Side::Server, octets[after..].to_vec()),
                ];
                parts.retain(|part| !matches!(part, Input::Data(_, octets) if octets.is_empty()));
                parts
            })
        };
        assert_eq!(outcome(steps(TLS_1_3, within), Side::Client), Outcome::TlsCompleted);
        let failed = outcome(steps(TLS_1_3_UNTRUSTED, within), Side::Client);
        assert_eq!(failed, Outcome::TlsFailed);
    }
}

/// The end of the server's first flight is missing, and all that it sent later: longer than an alert.
#[test]
fn an_unseen_answer_that_is_longer_than_an_alert_completes() {
    let later = |n: usize, octets: &[u8]| {
        let count = octets.len() as u64;
        match n {
            1 => Some(vec![
                Input::Data(Side::Server, octets[..200].to_vec()),
                Input::Omitted(Side::Server, count - 200),
            ]),
            3 | 5 | 7 | 9 => Some(vec![Input::Omitted(Side::Server, count)]),
            _ => None,
        }
    };
    assert_eq!(outcome(steps(TLS_1_3, later), Side::Server), Outcome::TlsCompleted);
    let mut without_answer = steps(TLS_1_3, later);
    without_answer.truncate(4);
    without_answer.push(Input::Omitted(Side::Server, 24));
    assert_eq!(outcome(without_answer, Side::Server), Outcome::UpstreamClosed);
}

/// Whether the handshake completed is not known, so it is not reported as failed.
#[test]
fn a_gap_in_the_clients_handshake_leaves_the_outcome_open() {
    let hello = |n: usize, octets: &[u8]| {
        (n == 2).then(|| vec![Input::Gap(Side::Client, octets.len() as u64)])
    };
    let mut steps = steps(TLS_1_3, hello);
    steps.truncate(4);
    for (side, expected) in
        [(Side::Client, Outcome::ClientClosed), (Side::Server, Outcome::UpstreamClosed)]
    {
        assert_eq!(outcome(steps.clone(), side), expected);
    }
}

/// In a capture that begins later, data of both sides is enough, and a close alone proves nothing.
#[test]
fn tls_that_began_before_the_capture_completes_with_data_of_both_sides() {
    let steps = parse(&flights(TLS_1_3, 99));
    for (from, expected) in [(3, Outcome::TlsCompleted), (8, Outcome::ClientClosed)] {
        let mut recorded = RecordedDialogue::new("");
        recorded.midstream = true;
        recorded.inputs = steps[from..].to_vec();
        recorded.inputs.extend([Input::Closed(Side::Client), Input::Closed(Side::Server)]);
        assert_eq!(recorded.run().outcome, expected, "from step {from}");
    }
}
