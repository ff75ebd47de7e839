//! Octets that the source left out on purpose: message content and TLS.

use gatepost::engine::{Direction, TranscriptItem};

use super::*;

/// Messages, the commands pipelined behind them, and the replies.
const CLEAN: &[&str] = &[
    // As Postfix does.
    "C: Subject: x\nC: \nC: ..text\nC: more.\nC: .\nC: QUIT\nS: 250 queued\nS: 221 bye\n",
    "C: .\nS: 250 queued\n",
    "C: a.\nC: .\nC: MAIL FROM:<c@a.example>\nC: RCPT TO:<d@b.example>\nS: 250 queued\nS: 250 m\nS: 251 r\n",
    "C: x\nC: .\nS: 554 5.7.1 no\nC: QUIT\nS: 221 bye\n",
];

/// The same with octets `from..to` of its message left out.
fn leaving_out(inputs: &[Input], from: usize, to: usize) -> Vec<Input> {
    let is_354 =
        |input: &Input| matches!(input, Input::Data(_, octets) if octets.starts_with(b"354"));
    let message = inputs.iter().position(is_354).unwrap() + 1;
    let mut left_out = inputs.to_vec();
    let octets = inputs[message].octets();
    let parts = [
        Input::Data(Side::Client, octets[..from].to_vec()),
        Input::Omitted(Side::Client, (to - from) as u64),
        Input::Data(Side::Client, octets[to..].to_vec()),
    ];
    left_out.splice(message..=message, parts);
    left_out
}

/// At every cut, also within the end of data: the octets behind the message decide.
#[test]
fn leaving_out_content_before_the_end_of_data_does_not_change_the_record() {
    for rest in CLEAN {
        let text = [HELLO, ENVELOPE, "C: DATA\nS: 354 go\n", rest].concat();
        let mut recorded = RecordedDialogue::new(&text);
        recorded.inputs = flights(&recorded.inputs);
        let inputs = recorded.inputs.clone();
        let whole = recorded.run();
        assert_eq!((whole.smtp.desyncs, whole.smtp.anomalies.len()), (0, 0));
        let flight = first_flight(rest);
        let last_line =
            flight.windows(5).position(|octets| octets == b"\r\n.\r\n").map_or(0, |at| at + 2);
        for from in 0..last_line {
            for to in from + 1..=last_line {
                recorded.inputs = leaving_out(&inputs, from, to);
                assert_eq!(recorded.feed(&recorded.inputs), whole, "{from}..{to} of {rest:?}");
                let single: Vec<Input> = recorded.inputs.iter().flat_map(Input::bytewise).collect();
                assert_eq!(recorded.feed(&single), whole, "{from}..{to} of {rest:?}, bytewise");
            }
        }
    }
}

/// The octets of a dialogue's first flight.
fn first_flight(text: &str) -> Vec<u8> {
    flights(&parse(text)).first().map(|flight| flight.octets().to_vec()).unwrap_or_default()
}

#[test]
fn repeated_omissions_add_up_in_the_message_size() {
    let text = "C: DATA\nS: 354 go\nC: abc\nC- 1000000\nC- 95\nC: st\nC- 2\nC: and\nC- 7\nC: .\n";
    let record = after_envelope(&[text, "S: 250 queued\n", BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 1000118"]);
    assert_eq!((record.smtp.desyncs, record.smtp.anomalies.len()), (0, 0));
    assert_eq!(record.outcome, Outcome::Quit);
}

/// A line of `.` right behind an omission may be the end of data or of a line of text: the next octets decide.
#[test]
fn later_octets_decide_whether_a_dot_behind_an_omission_is_the_end() {
    // The end of a line of text.
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
    // More lines than a client pipelines are content, even if they contain a command.
    let long = "C: QUIT\n".repeat(400);
    let text =
        format!("C: DATA\nS: 354 go\nC- 7\nC: .\n{long}C: .\nS: 250 queued\nC: QUIT\nS: 221 bye\n");
    let recorded = RecordedDialogue::new(&[HELLO, ENVELOPE, &text].concat());
    let record = recorded.feed(&recorded.inputs);
    let single: Vec<Input> = recorded.inputs.iter().flat_map(Input::bytewise).collect();
    assert_eq!(recorded.feed(&single), record);
    assert_eq!(
        (codes(&record), commands(&record).contains("QUIT 1")),
        (vec!["250 250 250 2410".into()], true)
    );
    // Without a reply it stays unknown: nothing is guessed.
    let record = after_envelope("C: DATA\nS: 354 go\nC- 7\nC: .\nC: QUIT\nS.\nC.\n");
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1");
    let record = after_envelope("C: DATA\nS: 354 go\nC- 7\nC: .\nC: QUIT\nS? 9\nS: 221 bye\n");
    assert_eq!((commands(&record).contains("QUIT"), record.smtp.desyncs), (false, 1));
    assert_eq!(codes(&record), ["250 250 - 10"]);
}

#[test]
fn the_servers_reply_ends_a_message_whose_end_was_left_out() {
    let text = "C: DATA\nS: 354 go\nC: abc\nC- 95\nS: 250 queued\n";
    let record = after_envelope(&[text, ENVELOPE, BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 97", "250 250 - 0"]);
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
    assert_eq!(record.smtp.anomalies, [], "no reply to nothing");
    // A rejection may come before the end.
    let text = "C: DATA\nS: 354 go\nC: abc\nC- 95\nS: 552 too much\nC- 5\nC: x\nC: .\n";
    let record = after_envelope(&[text, BYE].concat());
    assert_eq!((record.smtp.desyncs, record.smtp.anomalies.len()), (0, 0));
    assert_eq!(codes(&record), ["250 250 552 108"]);
}

#[test]
fn omitted_chunk_content_is_counted() {
    let text = "C: BDAT 1000\nC- 1000\nS: 250 ok\nC: BDAT 20 LAST\nC: abcde\\\nC- 10\nC: xyz\nS: 250 queued\n";
    let record = after_envelope(&[text, BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 1020"]);
    assert_eq!((record.smtp.desyncs, record.smtp.anomalies.len()), (0, 0));
    // An omission beyond the chunk loses commands.
    let text = "C: BDAT 20\nC- 30\nS: 250 ok\nS: 250 what\nC: NOOP\nS: 250 x\n";
    let record = after_envelope(&[text, BYE].concat());
    assert_eq!((record.smtp.desyncs, record.smtp.anomalies), (1, vec![Anomaly::Gap]));
}

#[test]
fn an_omission_elsewhere_is_a_gap() {
    let left_out = observe(&[HELLO, "C- 24\nS: 250 ok\nS- 8\n", ENVELOPE, BYE].concat());
    let lost = observe(&[HELLO, "C? 24\nS: 250 ok\nS? 8\n", ENVELOPE, BYE].concat());
    assert_eq!(left_out, lost);
    assert_eq!(lost.smtp.anomalies, [Anomaly::Gap]);
}

#[test]
fn a_transcript_contains_the_length_of_omissions() {
    let text =
        [HELLO, ENVELOPE, "C: DATA\nS: 354 go\nC: ab\nC- 90\nC- 5\nC: c\nC: .\nS: 250 queued\n"]
            .concat();
    let recorded = RecordedDialogue::new(&text);
    let (mut observer, mut out) = (recorded.observer(), Output::default());
    observer.keep_transcript();
    for input in flights(&recorded.inputs) {
        match input {
            Input::Data(side, octets) => observer.on_data(side, &octets, START, &mut out),
            Input::Omitted(side, length) => observer.on_omitted(side, length, START, &mut out),
            _ => {}
        }
    }
    let transcript = observer.take_transcript();
    let message: Vec<&TranscriptItem> =
        transcript.iter().rev().take(4).rev().map(|entry| &entry.item).collect();
    let content = |text: &str| TranscriptItem::Content(text.into());
    let queued = TranscriptItem::Line(b"250 queued\r\n".to_vec());
    assert_eq!(
        message,
        [&content("ab\r\n"), &TranscriptItem::Omitted(95), &content("c\r\n.\r\n"), &queued]
    );
    let octets = |side| {
        let from_side = transcript.iter().filter(|entry| entry.from == side);
        from_side.map(|entry| entry.item.len()).sum::<u64>()
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
fn omitted_tls_octets_are_no_anomalies() {
    let start =
        "C: STARTTLS\nS: 220 go\nC: \\x16\\x03\\x01\\\nC- 500\nS- 3000\nS: 250 x\nC: QUIT\nC.";
    let record = observe(&[HELLO, start].concat());
    assert_eq!((record.smtp.anomalies.len(), record.smtp.desyncs), (0, 0));
    assert_eq!(replies(&record), "220 2 250 1");
    // Within TLS records of a session whose start was not captured.
    let head = "\\x17\\x03\\x03\\x40\\0abc\\";
    let text = format!(
        "C: {head}\nC- 16381\nS: {head}\nS- 16000\nS- 381\nC- 99\nS- 99\nC: QUIT\nS: 221 no"
    );
    let record = midstream(&text);
    assert_eq!((commands(&record).as_str(), record.smtp.tls), ("", TlsState::Started));
    assert_eq!((replies(&record).as_str(), record.smtp.anomalies.len()), ("", 0));
}
