//! Recorded clients against recorded servers: of the same capture, and of one with other replies.

use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::addr::Side;
use crate::engine::{TranscriptEntry, TranscriptItem};
use crate::time::Timestamp;

/// `C:` and `S:` lines; `C=` is content. `\n` within a line stands for CRLF.
fn transcript(dialogue: &str) -> Vec<TranscriptEntry> {
    let lines = dialogue.lines().map(str::trim).filter(|line| !line.is_empty());
    let entries = lines.enumerate().map(|(n, line)| {
        let (kind, text) = line.split_at(2);
        let from = if kind.starts_with('C') { Side::Client } else { Side::Server };
        let bytes = format!("{}\r\n", text.trim_start().replace("\\n", "\r\n")).into_bytes();
        let what = match kind {
            "C:" | "S:" => TranscriptItem::Line(bytes),
            "C=" => TranscriptItem::Content(bytes),
            "C~" | "S~" => TranscriptItem::Encrypted(100),
            "C?" | "S?" => TranscriptItem::Gap(100),
            "C." | "S." => TranscriptItem::Closed,
            _ => panic!("{line}"),
        };
        TranscriptEntry { at: Timestamp::from_nanos(n as u64), from, item: what }
    });
    entries.collect()
}

fn scenario(dialogue: &str) -> Scenario {
    Scenario::new(&transcript(dialogue), false).unwrap()
}

async fn server_on_loopback() -> RecordedServer {
    RecordedServer::listen("[::1]:0".parse().unwrap()).await.unwrap()
}

fn client_of(server: &RecordedServer, pace: Pace) -> RecordedClient {
    RecordedClient {
        server: server.address().unwrap(),
        pace,
        timeout: Duration::from_secs(10),
        proxy_header: None,
        tls: Arc::new(
            ClientConfig::builder()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth(),
        ),
        tls_first: false,
    }
}

/// Runs the client of one dialogue against the server of another.
async fn run(client: &str, server: &str) -> RunReport {
    let recorded = server_on_loopback().await;
    let (client, server) = (scenario(client), scenario(server));
    let run = client_of(&recorded, Pace::Reply);
    recorded.serve(&server, run.run(&client)).await.unwrap().unwrap()
}

const ACCEPTED: &str = "
    S: 220 mx.example ESMTP
    C: EHLO a.example
    S: 250-mx.example\\n250 PIPELINING
    C: MAIL FROM:<a@a.example>
    C: RCPT TO:<b@b.example>
    C: DATA
    S: 250 2.1.0 Ok
    S: 250 2.1.5 Ok
    S: 354 go on
    C= Subject: x\\n\\nQUIT\\n.
    S: 250 2.0.0 queued
    C: QUIT
    S: 221 bye";

/// The command, the recorded class and the live class of each difference.
fn differences(report: &RunReport) -> Vec<(&str, u16, u16)> {
    let differences = report.differences.iter();
    differences.map(|d| (d.after.as_str(), d.recorded.class(), d.now.class())).collect()
}

#[tokio::test]
async fn client_and_server_of_one_capture_agree() {
    let report = run(ACCEPTED, ACCEPTED).await;
    assert_eq!(report, RunReport { replies: 7, ..RunReport::default() });
}

#[tokio::test]
async fn chunks_and_auth_are_sent_again() {
    let chunked = "
        S: 220 mx.example ESMTP
        C: EHLO a.example
        S: 250-mx.example\\n250-CHUNKING\\n250 AUTH LOGIN
        C: AUTH LOGIN
        S: 334 VXNlcm5hbWU6
        C: dQ==
        S: 334 UGFzc3dvcmQ6
        C: cA==
        S: 235 2.7.0 welcome
        C: MAIL FROM:<a@a.example>
        S: 250 Ok
        C: RCPT TO:<b@b.example>
        S: 250 Ok
        C: BDAT 5 LAST
        C= abc
        S: 250 queued";
    let report = run(chunked, chunked).await;
    assert_eq!(differences(&report), [], "{report:?}");
    assert_eq!(report.replies, 8);
}

#[tokio::test]
async fn a_recipient_rejected_now_is_reported() {
    let rejected = ACCEPTED.replace("250 2.1.5 Ok", "550 5.1.1 unknown");
    let report = run(ACCEPTED, &rejected).await;
    assert_eq!(differences(&report), [("RCPT TO:<b@b.example>", 2, 5)]);
}

#[tokio::test]
async fn content_after_a_rejected_data_is_skipped() {
    let rejected = "
        S: 220 mx.example ESMTP
        C: EHLO a.example
        S: 250 mx.example
        C: MAIL FROM:<a@a.example>
        S: 250 2.1.0 Ok
        C: RCPT TO:<b@b.example>
        S: 250 2.1.5 Ok
        C: DATA
        S: 451 4.3.0 later
        C: QUIT
        S: 221 bye";
    // Sent, its third line would be read as QUIT and the last reply would be missing.
    let report = run(ACCEPTED, rejected).await;
    assert_eq!(differences(&report), [("DATA", 3, 4)]);
    assert_eq!(report.cut_short, None);
    // Conversely, there is no message for a DATA that was rejected in the capture.
    let report = run(rejected, ACCEPTED).await;
    assert_eq!(differences(&report), [("DATA", 4, 3)]);
    assert!(report.cut_short.is_some());
}

#[tokio::test]
async fn a_server_lost_after_the_dot_is_lost_again() {
    let lost = format!("{}S.", ACCEPTED.split("S: 250 2.0.0").next().unwrap());
    assert_eq!(differences(&run(&lost, &lost).await), []);
    assert_eq!(differences(&run(&lost, ACCEPTED).await), [("the end of data", 0, 2)]);
    assert_eq!(differences(&run(ACCEPTED, &lost).await), [("the end of data", 2, 0)]);
}

#[tokio::test]
async fn a_run_ends_where_the_capture_holds_no_more_replies() {
    // The reply was lost, or the client closed before it came.
    for ending in ["", "C."] {
        let unanswered = format!("{}{ending}", ACCEPTED.split("S: 250 2.0.0").next().unwrap());
        let report = run(&unanswered, ACCEPTED).await;
        assert_eq!((differences(&report), report.replies), (vec![], 5));
        assert!(report.cut_short.unwrap().contains("no answer"));
    }
}

#[tokio::test]
async fn nothing_is_sent_after_starttls() {
    let tls = "
        S: 220 mx.example ESMTP
        C: EHLO a.example
        S: 250-mx.example\\n250 STARTTLS
        C: STARTTLS
        S: 220 go ahead
        C~
        S~";
    let report = run(tls, tls).await;
    assert_eq!(differences(&report), []);
    assert_eq!(report.replies, 3);
    assert!(report.cut_short.unwrap().contains("encrypted"));
}

const DECRYPTED: &str = "
    S: 220 mx.example ESMTP
    C: EHLO a.example
    S: 250-mx.example\\n250 STARTTLS
    C: STARTTLS
    S: 220 go ahead
    C: EHLO a.example
    S: 250 mx.example
    C: QUIT
    S: 221 bye";

#[tokio::test]
async fn what_was_recorded_inside_tls_is_never_sent_in_plaintext() {
    let refused = DECRYPTED.replace("220 go ahead", "454 4.7.0 not now");
    let report = run(DECRYPTED, &refused).await;
    assert_eq!(differences(&report), [("STARTTLS", 2, 4)]);
    assert_eq!(report.cut_short, Some("the server starts no TLS and the capture does"));

    // The recorded server has no TLS to go on with, and closes.
    let report = run(DECRYPTED, DECRYPTED).await;
    assert_eq!(differences(&report), [("the TLS handshake after STARTTLS", 2, 0)]);
    assert_eq!((report.replies, report.cut_short), (3, Some("the TLS handshake failed")));
}

#[test]
fn an_incomplete_capture_is_not_replayable() {
    let error = |dialogue, midstream| Scenario::new(&transcript(dialogue), midstream).unwrap_err();
    assert_eq!(error("", false), NotReplayable::Empty);
    assert_eq!(error("C: EHLO a", false), NotReplayable::OneSided);
    assert_eq!(error("S: 220 a\nC?", false), NotReplayable::Gaps);
    assert_eq!(error(ACCEPTED, true), NotReplayable::Midstream);
}

#[tokio::test]
async fn recorded_pauses_are_kept_on_request() {
    let pause = Duration::from_millis(10);
    let mut transcript = transcript(ACCEPTED);
    for (n, entry) in transcript.iter_mut().enumerate() {
        entry.at = Timestamp::from_nanos(n as u64 * 10_000_000);
    }
    let scenario = Scenario::new(&transcript, false).unwrap();
    let server = server_on_loopback().await;
    let client = client_of(&server, Pace::Recorded);
    let start = std::time::Instant::now();
    let report = server.serve(&scenario, client.run(&scenario)).await.unwrap().unwrap();
    assert_eq!((differences(&report), report.replies), (vec![], 7));
    // EHLO, MAIL, RCPT, DATA, content, QUIT.
    assert!(start.elapsed() >= 6 * pause);
}
