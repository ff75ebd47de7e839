//! TLS that passes through: its outcome, live and observed, under every segmentation. The flights are OpenSSL's, see
//! `tls_flights/README.md`.

use gatepost::engine::{SessionRecord, Side, TlsState};

use crate::engine::dialogue::dialogue;

const STARTTLS: &str = "S: 220 a\nC: STARTTLS\nS: 220 go\n";

/// The steps of the dialogue's script for the flights of a file, at most `count`.
pub(crate) fn flights(file: &str, count: usize) -> String {
    let escaped = |hex: &str| -> String {
        let pairs = (0..hex.len()).step_by(2);
        pairs.map(|at| format!("\\x{}", &hex[at..at + 2])).collect()
    };
    let lines = file.lines().take(count).map(|line| {
        let (side, hex) = line.split_once(' ').unwrap();
        format!("{side}: {}\\\n", escaped(hex))
    });
    lines.collect()
}

macro_rules! tls {
    ($name:literal) => {
        include_str!(concat!("tls_flights/", $name, ".txt"))
    };
}
pub(crate) const TLS_1_3: &str = tls!("tls13");
pub(crate) const TLS_1_3_UNTRUSTED: &str = tls!("tls13-untrusted");

#[track_caller]
fn ends(file: &str, count: usize, end: &str) -> SessionRecord {
    let record = dialogue(&[STARTTLS, &flights(file, count), end].concat());
    assert_eq!(record.smtp.tls, TlsState::Started);
    record
}

const CLIENT_CLOSES: &str = "C.\nS.\n";
const SERVER_CLOSES: &str = "S.\nC.\n";

#[test]
fn a_completed_handshake_is_the_outcome_whoever_closes() {
    for (file, version) in [(tls!("tls13"), "TLSv1.3"), (tls!("tls12"), "TLSv1.2")] {
        for (closes, by) in [(CLIENT_CLOSES, Side::Client), (SERVER_CLOSES, Side::Server)] {
            let record = ends(file, 99, &format!("{closes}= tls_completed"));
            assert_eq!(record.smtp.tls_version, Some(version));
            assert_eq!(record.tcp.closed_by, Some(by));
        }
    }
    ends(tls!("tls13-retry"), 99, "C.\nS.\n= tls_completed");
}

/// As a test of the certificate does: the tickets, or the server's Finished, show that the server accepted the handshake.
#[test]
fn a_handshake_without_data_completes() {
    ends(tls!("tls13-no-data"), 99, "C.\nS.\n= tls_completed");
    ends(tls!("tls12-no-data"), 99, "C.\nS.\n= tls_completed");
}

/// Nothing shows whether the server accepted the client's Finished, and the client left of itself.
#[test]
fn without_an_answer_to_its_finished_a_client_that_leaves_is_only_that() {
    ends(tls!("tls13-no-data-no-tickets"), 99, "C.\nS.\n= client_closed");
    ends(tls!("tls13-no-data-no-tickets"), 99, "S.\nC.\n= tls_failed");
}

#[test]
fn a_rejected_handshake_fails() {
    for file in [
        tls!("tls13-untrusted"),
        tls!("tls13-retry-untrusted"),
        tls!("tls12-untrusted"),
        tls!("version"),
        tls!("tls12-client-certificate-missing"),
        tls!("tls13-client-certificate-missing"),
    ] {
        ends(file, 99, "C.\nS.\n= tls_failed");
    }
}

/// OpenSSL sends the alert in plaintext, others under the keys of the handshake: a record of 19 bytes.
#[test]
fn a_protected_alert_in_place_of_the_finished_fails() {
    let alert = format!("C: \\x17\\x03\\x03\\0\\x13{}\\\n", "x".repeat(19));
    ends(tls!("tls13-untrusted"), 2, &format!("{alert}C.\nS.\n= tls_failed"));
}

#[test]
fn a_handshake_that_is_broken_off_fails() {
    for count in 0..3 {
        ends(tls!("tls12"), count, "C.\nS.\n= tls_failed");
    }
    ends(tls!("tls13"), 2, "S.\nC.\n= tls_failed");
    // After the Finished and EHLO the server stays silent.
    ends(tls!("tls13-no-tickets"), 4, "C.\nS.\n= tls_failed");
}

#[test]
fn plaintext_in_place_of_tls_fails() {
    let hello = flights(tls!("tls13"), 1);
    for answer in ["S: 454 4.7.0 TLS not available\n", "S: \\x16 not TLS\n"] {
        dialogue(&[STARTTLS, &hello, answer, "C.\nS.\n= tls_failed"].concat());
    }
    dialogue(&[STARTTLS, "S- 500 what\nS.\nC.\n= tls_failed"].concat());
}

#[test]
fn the_gateway_keeps_its_own_outcomes() {
    let script = [STARTTLS, &flights(tls!("tls13"), 6)].concat();
    dialogue(&format!("{script}abort\n= shutdown"));
    dialogue(&format!("{script}T 300s\n= timeout"));
    let silent = [STARTTLS, &flights(tls!("tls13"), 1), "T 600s\n= timeout"].concat();
    dialogue(&silent);
    // One that ends while the gateway drains ends as any other.
    dialogue(&format!("{script}drain\nC.\nS.\n= tls_completed"));
}
