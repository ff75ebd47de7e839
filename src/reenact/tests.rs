//! Recorded clients and servers play to each other, and to servers that have changed their mind.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;
use crate::addr::Side;
use crate::engine::{TranscriptEntry, TranscriptItem};
use crate::time::Timestamp;

/// `C:` and `S:` lines; `C=` is content. `\n` within a line stands for CRLF.
fn said(dialogue: &str) -> Vec<TranscriptEntry> {
    let lines = dialogue.lines().map(str::trim).filter(|line| !line.is_empty());
    let said = lines.enumerate().map(|(n, line)| {
        let (who, text) = line.split_at(2);
        let from = if who.starts_with('C') { Side::Client } else { Side::Server };
        let octets = format!("{}\r\n", text.trim_start().replace("\\n", "\r\n")).into_bytes();
        let what = match who {
            "C:" | "S:" => TranscriptItem::Line(octets),
            "C=" => TranscriptItem::Content(octets),
            "C~" | "S~" => TranscriptItem::Encrypted(100),
            "C?" | "S?" => TranscriptItem::Gap(100),
            "C." | "S." => TranscriptItem::Closed,
            _ => panic!("{line}"),
        };
        TranscriptEntry { at: Timestamp::from_nanos(n as u64), from, what }
    });
    said.collect()
}

fn script(dialogue: &str) -> Script {
    Script::new(&said(dialogue), false).unwrap()
}

/// The client of one dialogue and the server of another.
async fn performed(client: &str, server: &str) -> Performance {
    let any: SocketAddr = "[::1]:0".parse().unwrap();
    let stage = Server::listen(any).await.unwrap();
    let client_of = Client {
        to: stage.address().unwrap(),
        pace: Pace::Reply,
        patience: Duration::from_secs(10),
        introduce: None,
    };
    let (client, server) = (script(client), script(server));
    stage.perform(&server, client_of.perform(&client)).await.unwrap().unwrap()
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

fn differs(performance: &Performance) -> Vec<(&str, u16, u16)> {
    let each = |d: &'_ Difference| (d.recorded.class(), d.now.class());
    performance.differences.iter().map(|d| (d.after.as_str(), each(d).0, each(d).1)).collect()
}

#[tokio::test]
async fn both_ends_of_one_capture_agree() {
    let performance = performed(ACCEPTED, ACCEPTED).await;
    assert_eq!(performance, Performance { replies: 7, ..Performance::default() });
}

#[tokio::test]
async fn chunks_and_auth_are_said_again() {
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
    let performance = performed(chunked, chunked).await;
    assert_eq!(differs(&performance), [], "{performance:?}");
    assert_eq!(performance.replies, 8);
}

#[tokio::test]
async fn a_recipient_refused_now_is_told() {
    let refused = ACCEPTED.replace("250 2.1.5 Ok", "550 5.1.1 unknown");
    let performance = performed(ACCEPTED, &refused).await;
    assert_eq!(differs(&performance), [("RCPT TO:<b@b.example>", 2, 5)]);
}

#[tokio::test]
async fn content_after_a_refused_data_is_left_out() {
    let refused = "
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
    let performance = performed(ACCEPTED, refused).await;
    assert_eq!(differs(&performance), [("DATA", 3, 4)]);
    assert_eq!(performance.cut_short, None);
    // And a message that was refused is not made up.
    let performance = performed(refused, ACCEPTED).await;
    assert_eq!(differs(&performance), [("DATA", 4, 3)]);
    assert!(performance.cut_short.is_some());
}

#[tokio::test]
async fn a_server_lost_after_the_dot_is_lost_again() {
    let lost = format!("{}S.", ACCEPTED.split("S: 250 2.0.0").next().unwrap());
    assert_eq!(differs(&performed(&lost, &lost).await), []);
    assert_eq!(differs(&performed(&lost, ACCEPTED).await), [("the end of data", 0, 2)]);
    assert_eq!(differs(&performed(ACCEPTED, &lost).await), [("the end of data", 2, 0)]);
}

#[tokio::test]
async fn a_play_ends_where_the_capture_holds_no_more_answers() {
    // The path swallowed the message; or the client had no patience.
    for ending in ["", "C."] {
        let unanswered = format!("{}{ending}", ACCEPTED.split("S: 250 2.0.0").next().unwrap());
        let performance = performed(&unanswered, ACCEPTED).await;
        assert_eq!((differs(&performance), performance.replies), (vec![], 5));
        assert!(performance.cut_short.unwrap().contains("no answer"));
    }
}

#[tokio::test]
async fn nothing_is_said_after_starttls() {
    let tls = "
        S: 220 mx.example ESMTP
        C: EHLO a.example
        S: 250-mx.example\\n250 STARTTLS
        C: STARTTLS
        S: 220 go ahead
        C~
        S~";
    let performance = performed(tls, tls).await;
    assert_eq!(differs(&performance), []);
    assert_eq!(performance.replies, 3);
    assert!(performance.cut_short.unwrap().contains("encrypted"));
}

#[test]
fn what_was_not_captured_cannot_be_said() {
    let unplayable = |dialogue, midstream| Script::new(&said(dialogue), midstream).unwrap_err();
    assert_eq!(unplayable("", false), Unplayable::Empty);
    assert_eq!(unplayable("C: EHLO a", false), Unplayable::OneSided);
    assert_eq!(unplayable("S: 220 a\nC?", false), Unplayable::Holes);
    assert_eq!(unplayable(ACCEPTED, true), Unplayable::Midstream);
}

#[tokio::test]
async fn recorded_pauses_are_kept_where_wanted() {
    // Ten milliseconds between one thing said and the next.
    let pause = Duration::from_millis(10);
    let mut said = said(ACCEPTED);
    for (n, said) in said.iter_mut().enumerate() {
        said.at = Timestamp::from_nanos(n as u64 * 10_000_000);
    }
    let script = Script::new(&said, false).unwrap();
    let stage = Server::listen("[::1]:0".parse().unwrap()).await.unwrap();
    let client = Client {
        to: stage.address().unwrap(),
        pace: Pace::Recorded,
        patience: Duration::from_secs(10),
        introduce: None,
    };
    let began = std::time::Instant::now();
    let performance = stage.perform(&script, client.perform(&script)).await.unwrap().unwrap();
    assert_eq!((differs(&performance), performance.replies), (vec![], 7));
    // EHLO, MAIL, RCPT, DATA, content, QUIT; how much longer it takes is the machine's.
    assert!(began.elapsed() >= 6 * pause);
}
