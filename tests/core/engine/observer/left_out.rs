//! Octets that the source left out on purpose: content of messages, and TLS.

use gatepost::engine::{Direction, TranscriptItem};

use super::*;

/// Messages, what is pipelined behind them, and the replies.
const CLEAN: &[&str] = &[
    // As Postfix does.
    "C: Subject: x\nC: \nC: ..text\nC: more.\nC: .\nC: QUIT\nS: 250 queued\nS: 221 bye\n",
    "C: .\nS: 250 queued\n",
    "C: a.\nC: .\nC: MAIL FROM:<c@a.example>\nC: RCPT TO:<d@b.example>\nS: 250 queued\nS: 250 m\nS: 251 r\n",
    "C: x\nC: .\nS: 554 5.7.1 no\nC: QUIT\nS: 221 bye\n",
];

/// The same with octets `from..to` of its message left out.
fn leaving_out(told: &[Heard], from: usize, to: usize) -> Vec<Heard> {
    let is_354 =
        |heard: &Heard| matches!(heard, Heard::Data(_, octets) if octets.starts_with(b"354"));
    let message = told.iter().position(is_354).unwrap() + 1;
    let mut left_out = told.to_vec();
    let octets = told[message].octets();
    let parts = [
        Heard::Data(Side::Client, octets[..from].to_vec()),
        Heard::Omitted(Side::Client, (to - from) as u64),
        Heard::Data(Side::Client, octets[to..].to_vec()),
    ];
    left_out.splice(message..=message, parts);
    left_out
}

/// Wherever it is cut, also within the end of data: the octets behind tell.
#[test]
fn a_message_of_which_all_but_the_end_is_left_out_is_recorded_as_if_it_were_not() {
    for rest in CLEAN {
        let mut record = Record::of(&[HELLO, ENVELOPE, "C: DATA\nS: 354 go\n", rest].concat());
        record.told = flights(&record.told);
        let told = record.told.clone();
        let whole = record.heard();
        assert_eq!((whole.smtp.desyncs, whole.smtp.anomalies.len()), (0, 0));
        let flight = said_at_once(rest);
        let last_line =
            flight.windows(5).position(|octets| octets == b"\r\n.\r\n").map_or(0, |at| at + 2);
        for from in 0..last_line {
            for to in from + 1..=last_line {
                record.told = leaving_out(&told, from, to);
                assert_eq!(record.play(&record.told), whole, "{from}..{to} of {rest:?}");
                let single: Vec<Heard> = record.told.iter().flat_map(Heard::singly).collect();
                assert_eq!(record.play(&single), whole, "{from}..{to} of {rest:?}, singly");
            }
        }
    }
}

/// The first flight of a dialogue.
fn said_at_once(text: &str) -> Vec<u8> {
    flights(&told(text)).first().map(|flight| flight.octets().to_vec()).unwrap_or_default()
}

#[test]
fn what_is_left_out_again_and_again_adds_up() {
    let text = "C: DATA\nS: 354 go\nC: abc\nC- 1000000\nC- 95\nC: st\nC- 2\nC: and\nC- 7\nC: .\n";
    let record = after_envelope(&[text, "S: 250 queued\n", BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 1000118"]);
    assert_eq!((record.smtp.desyncs, record.smtp.anomalies.len()), (0, 0));
    assert_eq!(record.outcome, Outcome::Quit);
}

/// A line of `.` right behind what was left out is the end, or is not: what follows tells.
#[test]
fn a_line_that_may_be_the_end_waits_for_the_servers_word() {
    // A sentence ended there.
    let text = "C: DATA\nS: 354 go\nC- 7\nC: .\nC: QUIT\nC: .\nC: RSET\nS: 250 queued\nS: 250 ok\n";
    let record = after_envelope(&[text, BYE].concat());
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1 RSET 1 QUIT 1");
    assert_eq!(codes(&record), ["250 250 250 16"]);
    // More is left out behind it.
    let text = "C: DATA\nS: 354 go\nC- 7\nC: .\nC: QUIT\nC- 3\nC: x\nC: .\nS: 250 queued\n";
    let record = after_envelope(&[text, BYE].concat());
    assert_eq!(
        (codes(&record), commands(&record).contains("QUIT 1")),
        (vec!["250 250 250 22".into()], true)
    );
    // More than anybody pipelines is content, though a command is in it.
    let long = "C: QUIT\n".repeat(400);
    let text =
        format!("C: DATA\nS: 354 go\nC- 7\nC: .\n{long}C: .\nS: 250 queued\nC: QUIT\nS: 221 bye\n");
    let record = Record::of(&[HELLO, ENVELOPE, &text].concat());
    let heard = record.play(&record.told);
    let single: Vec<Heard> = record.told.iter().flat_map(Heard::singly).collect();
    assert_eq!(record.play(&single), heard);
    assert_eq!(
        (codes(&heard), commands(&heard).contains("QUIT 1")),
        (vec!["250 250 250 2410".into()], true)
    );
    // Nobody will ever know: nothing is guessed.
    let record = after_envelope("C: DATA\nS: 354 go\nC- 7\nC: .\nC: QUIT\nS.\nC.\n");
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1");
    let record = after_envelope("C: DATA\nS: 354 go\nC- 7\nC: .\nC: QUIT\nS? 9\nS: 221 bye\n");
    assert_eq!((commands(&record).contains("QUIT"), record.smtp.desyncs), (false, 1));
    assert_eq!(codes(&record), ["250 250 - 10"]);
}

#[test]
fn an_end_that_was_left_out_is_told_by_the_server() {
    let text = "C: DATA\nS: 354 go\nC: abc\nC- 95\nS: 250 queued\n";
    let record = after_envelope(&[text, ENVELOPE, BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 97", "250 250 - 0"]);
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
    assert_eq!(record.smtp.anomalies, [], "no reply to nothing");
    // A refusal may come before the end.
    let text = "C: DATA\nS: 354 go\nC: abc\nC- 95\nS: 552 too much\nC- 5\nC: x\nC: .\n";
    let record = after_envelope(&[text, BYE].concat());
    assert_eq!((record.smtp.desyncs, record.smtp.anomalies.len()), (0, 0));
    assert_eq!(codes(&record), ["250 250 552 108"]);
}

#[test]
fn chunks_may_be_left_out() {
    let text = "C: BDAT 1000\nC- 1000\nS: 250 ok\nC: BDAT 20 LAST\nC: abcde\\\nC- 10\nC: xyz\nS: 250 queued\n";
    let record = after_envelope(&[text, BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 1020"]);
    assert_eq!((record.smtp.desyncs, record.smtp.anomalies.len()), (0, 0));
    // What is behind the chunk is lost.
    let text = "C: BDAT 20\nC- 30\nS: 250 ok\nS: 250 what\nC: NOOP\nS: 250 x\n";
    let record = after_envelope(&[text, BYE].concat());
    assert_eq!((record.smtp.desyncs, record.smtp.anomalies), (1, vec![Anomaly::Gap]));
}

#[test]
fn what_is_left_out_elsewhere_is_lost() {
    let left_out = hear(&[HELLO, "C- 24\nS: 250 ok\nS- 8\n", ENVELOPE, BYE].concat());
    let lost = hear(&[HELLO, "C? 24\nS: 250 ok\nS? 8\n", ENVELOPE, BYE].concat());
    assert_eq!(left_out, lost);
    assert_eq!(lost.smtp.anomalies, [Anomaly::Gap]);
}

#[test]
fn a_transcript_tells_what_was_left_out() {
    let text =
        [HELLO, ENVELOPE, "C: DATA\nS: 354 go\nC: ab\nC- 90\nC- 5\nC: c\nC: .\nS: 250 queued\n"]
            .concat();
    let record = Record::of(&text);
    let (mut observer, mut out) = (record.observer(), Output::default());
    observer.keep_transcript();
    for heard in flights(&record.told) {
        match heard {
            Heard::Data(side, octets) => observer.on_data(side, &octets, START, &mut out),
            Heard::Omitted(side, length) => observer.on_omitted(side, length, START, &mut out),
            _ => {}
        }
    }
    let said = observer.take_transcript();
    let message: Vec<&TranscriptItem> =
        said.iter().rev().take(4).rev().map(|said| &said.item).collect();
    let content = |text: &str| TranscriptItem::Content(text.into());
    let queued = TranscriptItem::Line(b"250 queued\r\n".to_vec());
    assert_eq!(
        message,
        [&content("ab\r\n"), &TranscriptItem::Omitted(95), &content("c\r\n.\r\n"), &queued]
    );
    let octets = |side| {
        said.iter().filter(|said| said.from == side).map(|said| said.item.len()).sum::<u64>()
    };
    let counted = |direction| {
        let bytes = out.events.iter().filter_map(|event| match event {
            Event::Bytes { direction: way, count } if *way == direction => Some(*count),
            _ => None,
        });
        bytes.sum::<u64>()
    };
    assert_eq!(counted(Direction::ClientToUpstream), octets(Side::Client));
    assert_eq!(counted(Direction::UpstreamToClient), octets(Side::Server));
}

#[test]
fn tls_may_be_left_out() {
    let start =
        "C: STARTTLS\nS: 220 go\nC: \\x16\\x03\\x01\\\nC- 500\nS- 3000\nS: 250 x\nC: QUIT\nC.";
    let record = hear(&[HELLO, start].concat());
    assert_eq!((record.smtp.anomalies.len(), record.smtp.desyncs), (0, 0));
    assert_eq!(replies(&record), "220 2 250 1");
    // Within records of a session whose beginning was not seen.
    let head = "\\x17\\x03\\x03\\x40\\0abc\\";
    let text = format!(
        "C: {head}\nC- 16381\nS: {head}\nS- 16000\nS- 381\nC- 99\nS- 99\nC: QUIT\nS: 221 no"
    );
    let record = midstream(&text);
    assert_eq!((commands(&record).as_str(), record.smtp.tls), ("", TlsState::Started));
    assert_eq!((replies(&record).as_str(), record.smtp.anomalies.len()), ("", 0));
}
