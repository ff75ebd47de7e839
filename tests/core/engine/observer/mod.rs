//! Observers of recorded dialogues, complete ones and those with gaps.
//!
//! Lines are `C: text` and `S: text` as in `dialogue.rs`, `C? 100` and `S? 100` for missing octets, `C- 100` and
//! `S- 100` for octets that the source left out, `C.` and `S.` for the ends. The observer gets each dialogue as written,
//! in whole flights, one octet at a time and cut at every point: the record must be the same.

mod left_out;
mod passthrough;

use proptest::prelude::*;

use gatepost::addr::{ClientAddr, Networks, OriginalDst};
use gatepost::engine::{
    Anomaly, BareNewlines, Event, Observer, Outcome, Output, Pregreet, Profile, RefuseAt,
    SessionRecord, Side, TcpFacts, TlsState,
};
use gatepost::policy::{AccessRule, AccessRules, PolicyAction};

use crate::engine::dialogue::unescape;
use crate::engine::driver::START;

#[derive(Clone, Debug)]
enum Input {
    Data(Side, Vec<u8>),
    Gap(Side, u64),
    Omitted(Side, u64),
    Closed(Side),
}

fn parse(text: &str) -> Vec<Input> {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let side = if line.starts_with('C') { Side::Client } else { Side::Server };
            match (&line[1..2], line.get(3..).unwrap_or_default()) {
                (":", text) => Input::Data(side, unescape(text)),
                ("?", count) => Input::Gap(side, count.parse().expect(line)),
                ("-", count) => Input::Omitted(side, count.parse().expect(line)),
                (".", "") => Input::Closed(side),
                _ => panic!("not a line of a recorded dialogue: {line}"),
            }
        })
        .collect()
}

/// Joins consecutive data of one side.
fn flights(inputs: &[Input]) -> Vec<Input> {
    let mut flights: Vec<Input> = Vec::new();
    for input in inputs {
        match (flights.last_mut(), input) {
            (Some(Input::Data(last, octets)), Input::Data(side, more)) if last == side => {
                octets.extend(more);
            }
            _ => flights.push(input.clone()),
        }
    }
    flights
}

/// The inputs with one more cut, after the first `cut` octets of data.
fn cut(inputs: &[Input], mut cut: usize) -> Vec<Input> {
    let mut parts = Vec::new();
    for input in inputs {
        match input {
            Input::Data(side, octets) if 0 < cut && cut < octets.len() => {
                let (head, tail) = octets.split_at(cut);
                parts.push(Input::Data(*side, head.to_vec()));
                parts.push(Input::Data(*side, tail.to_vec()));
                cut = 0;
            }
            Input::Data(_, octets) => {
                cut = cut.saturating_sub(octets.len());
                parts.push(input.clone());
            }
            _ => parts.push(input.clone()),
        }
    }
    parts
}

struct RecordedDialogue {
    profile: Profile,
    midstream: bool,
    inputs: Vec<Input>,
}

fn observe(text: &str) -> SessionRecord {
    RecordedDialogue::new(text).run()
}

impl RecordedDialogue {
    fn new(text: &str) -> Self {
        Self { profile: Profile::default(), midstream: false, inputs: parse(text) }
    }

    fn with(mut self, set: impl FnOnce(&mut Profile)) -> Self {
        set(&mut self.profile);
        self
    }

    #[track_caller]
    fn run(&self) -> SessionRecord {
        let record = self.feed(&self.inputs);
        let flights = flights(&self.inputs);
        assert_eq!(self.feed(&flights), record, "in whole flights");
        let total: usize = flights.iter().map(|input| input.octets().len()).sum();
        let single: Vec<Input> = flights.iter().flat_map(Input::bytewise).collect();
        assert_eq!(self.feed(&single), record, "one octet at a time");
        for at in 1..total {
            assert_eq!(self.feed(&cut(&flights, at)), record, "cut at {at}");
        }
        record
    }

    fn feed(&self, inputs: &[Input]) -> SessionRecord {
        let mut out = Output::default();
        let mut observer = self.observer();
        for input in inputs {
            match input {
                Input::Data(side, octets) => observer.on_data(*side, octets, START, &mut out),
                Input::Gap(side, length) => observer.on_gap(*side, *length, START, &mut out),
                Input::Omitted(side, length) => {
                    observer.on_omitted(*side, *length, START, &mut out)
                }
                Input::Closed(side) => observer.on_closed(*side, START, &mut out),
            }
        }
        let mut record = observer.finish(TcpFacts::default(), START, &mut out);
        assert_eq!(out.actions, [], "an observer emits no actions");
        let count = |event| out.events.iter().filter(|e| **e == event).count();
        assert_eq!(count(Event::SessionOpened), 1);
        assert_eq!(count(Event::SessionClosed(record.outcome)), 1);
        let desyncs = out.events.iter().filter(|e| matches!(e, Event::Desync(_))).count();
        assert_eq!(desyncs as u64, record.smtp.desyncs);
        record.smtp.anomalies.sort_unstable();
        record
    }

    fn observer(&self) -> Observer {
        let client = ClientAddr::new("[2001:db8::1]:40000".parse().unwrap());
        let server = OriginalDst::new("[2001:db8::25]:25".parse().unwrap());
        Observer::new(self.profile.clone().into(), client, server, START, self.midstream)
    }
}

impl Input {
    fn octets(&self) -> &[u8] {
        match self {
            Self::Data(_, octets) => octets,
            _ => &[],
        }
    }

    fn bytewise(&self) -> Vec<Self> {
        match self {
            Self::Data(side, octets) => {
                octets.iter().map(|&octet| Self::Data(*side, vec![octet])).collect()
            }
            _ => vec![self.clone()],
        }
    }
}

/// `EHLO 1 MAIL 2`, in the order of verbs.
fn commands(record: &SessionRecord) -> String {
    let counts = record.smtp.commands.iter().map(|(verb, count)| format!("{verb} {count}"));
    counts.collect::<Vec<_>>().join(" ")
}

fn replies(record: &SessionRecord) -> String {
    let counts = record.smtp.replies.iter().map(|(code, count)| format!("{code} {count}"));
    counts.collect::<Vec<_>>().join(" ")
}

/// Each transaction's codes: MAIL, recipients, message, and its octets.
fn codes(record: &SessionRecord) -> Vec<String> {
    let code = |code: Option<u16>| code.map_or("-".to_owned(), |code| code.to_string());
    let transaction = |t: &gatepost::engine::TransactionRecord| {
        let rcpt: Vec<String> = t.rcpt_to.iter().map(|r| code(r.code)).collect();
        let (mail, rcpt, data) = (code(t.mail_code), rcpt.join(","), code(t.data_code));
        format!("{mail} {rcpt} {data} {}", t.bytes)
    };
    record.smtp.transactions.iter().map(transaction).collect()
}

const HELLO: &str = r"S: 220 mx.example ESMTP
    C: EHLO a.example
    S: 250-mx.example
    S: 250-PIPELINING
    S: 250-CHUNKING
    S: 250-X-NEW with words
    S: 250 STARTTLS
";

const ENVELOPE: &str = r"C: MAIL FROM:<a@a.example>
    S: 250 2.1.0 Ok
    C: RCPT TO:<b@b.example>
    S: 250 2.1.5 Ok
";

fn after_envelope(text: &str) -> SessionRecord {
    observe(&[HELLO, ENVELOPE, text].concat())
}

const BYE: &str = "C: QUIT\nS: 221 bye\nS.\nC.\n";

#[test]
fn unusual_extensions_and_replies_are_recorded_unchanged() {
    let record = observe(
        r"S: 220-mx.example says
        S: 220 hello
        C: ehlo a.example
        S: 250-mx.example
        S: 250-xclient name
        S: 250-X-EXPS GSSAPI
        S: 250-AUTH=LOGIN
        S: 250 AUTH LOGIN
        C: auth login
        S: 334 VXNlcm5hbWU6
        C: QUIT
        S: 334 UGFzc3dvcmQ6
        C: *
        S: 501 5.7.0 cancelled
        C: X-EXPS GSSAPI
        S: 334 go
        C: RCPT
        S: 235 2.7.0 yes
        C: FROB
        S: 250 as you like
        C: XCLIENT ADDR=::1
        S: 220 mx.example again
        C: HELP
        S: 214-commands
        S: 214 EHLO
        C: QUIT
        S: 221 bye
        S.
        C.",
    );
    assert_eq!(commands(&record), "EHLO 1 QUIT 1 HELP 1 AUTH 1 XCLIENT 1 unknown 2");
    assert_eq!(replies(&record), "214 1 220 2 221 1 235 1 250 2 334 3 501 1");
    assert_eq!(record.smtp.extensions.as_deref().unwrap(), ["XCLIENT", "X-EXPS", "AUTH"]);
    assert_eq!(record.smtp.anomalies, [Anomaly::UnknownCommand, Anomaly::Xclient]);
    assert_eq!(record.verdict.reason.as_deref(), Some("xclient"), "refused in shadow");
    assert_eq!((record.smtp.auth, record.smtp.desyncs), (true, 0));
    assert_eq!(record.outcome, Outcome::Quit);
}

#[test]
fn commands_inside_content_are_not_counted() {
    let record = after_envelope(
        r"C: DATA
        S: 354 go
        C: QUIT
        C: MAIL FROM:<x@y>
        C: 250 ok
        C: ..
        C: .
        S: 250 queued
        C: BDAT 18
        C: RCPT TO:<x@y.zz>
        S: 503 5.5.1 MAIL first
        C: RSET
        S: 250 ok
        C: QUIT
        S: 221 bye",
    );
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1 BDAT 1 RSET 1 QUIT 1");
    assert_eq!(codes(&record), ["250 250 250 35"]);
}

#[test]
fn commands_behind_rejected_data_are_counted() {
    let record = after_envelope("C: DATA\nC: RSET\nC: NOOP\nS: 554 no\nS: 250 ok\nS: 250 ok\n");
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1 RSET 1 NOOP 1");
    assert_eq!(codes(&record), ["250 250 554 0"]);
    assert_eq!(record.smtp.anomalies, [Anomaly::EarlyData]);
}

/// As in a capture of a client that does not wait: all commands, then all replies.
#[test]
fn content_begins_at_the_354_in_a_flight_of_replies() {
    let record = observe(
        r"S: 220 a
        C: HELO b
        C: MAIL FROM:<a@a.example>
        C: RCPT TO:<b@b.example>
        C: DATA
        C: text
        C: .
        C: QUIT
        S: 250 a
        S: 250 b
        S: 250 c
        S: 354 go
        S: 250 queued
        S: 221 bye",
    );
    assert_eq!(commands(&record), "HELO 1 MAIL 1 RCPT 1 DATA 1 QUIT 1");
    assert_eq!(codes(&record), ["250 250 250 6"]);
    assert_eq!(record.smtp.anomalies, [Anomaly::EarlyData, Anomaly::UnauthorizedPipelining]);
}

#[test]
fn an_over_long_line_is_still_recorded_as_a_command() {
    let long = "x".repeat(4000);
    let recorded = RecordedDialogue::new(&format!("S: 220 a\nC: EHLO {long}\nS: 250 b\n"));
    let record = recorded.feed(&recorded.inputs);
    assert_eq!(commands(&record), "EHLO 1");
    assert_eq!(record.smtp.anomalies, [Anomaly::CommandTooLong]);
    assert_eq!(record.verdict.reason.as_deref(), Some("limit_line"));
}

#[test]
fn an_unexpected_reply_is_counted() {
    let text = "C: DATA\nS: 354 go\nC: x\nC: .\nS: 250 queued\nS: 451 4.7.0 you are slow\nS.\nC.";
    let record = after_envelope(text);
    assert_eq!(replies(&record), "220 1 250 4 354 1 451 1");
    assert_eq!(record.smtp.anomalies, [Anomaly::UnexpectedReply]);
    assert_eq!(record.outcome, Outcome::UpstreamClosed);
    let farewell = after_envelope("S: 421 4.4.2 timeout\nS.\nC.");
    assert_eq!((farewell.smtp.anomalies.len(), farewell.smtp.desyncs), (0, 0));
}

/// A reply to a command that is not captured yet must not shift all later replies by one.
#[test]
fn pairing_resumes_after_one_command_and_its_reply() {
    let record = observe(
        r"S: 220 a
        S: 250 too early
        C: EHLO b
        S: 250 c
        C: MAIL FROM:<a@a.example>
        C: RCPT TO:<b@b.example>
        S: 250 d
        S: 550 e",
    );
    assert_eq!(codes(&record), ["250 550 - 0"]);
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
}

fn rule(action: PolicyAction) -> impl FnOnce(&mut Profile) {
    move |profile| {
        profile.access = AccessRules::new(vec![AccessRule {
            name: "no mail from there".into(),
            family: None,
            networks: Networks::default(),
            listeners: Default::default(),
            action,
        }]);
    }
}

#[test]
fn verdicts_are_recorded_and_the_dialogue_is_followed() {
    let text = [HELLO, ENVELOPE, "C: DATA\nS: 354 go\nC: x\nC: .\nS: 250 queued\n", BYE].concat();
    let record = RecordedDialogue::new(&text).with(rule(PolicyAction::Tempfail)).run();
    assert_eq!(codes(&record), ["250 250 250 3"], "the codes that the client received");
    assert_eq!(record.verdict.action, PolicyAction::Tempfail);
    assert_eq!(record.verdict.rule.as_deref(), Some("no mail from there"));
    assert_eq!(record.verdict.reason.as_deref(), Some("access_tempfail"));

    // The gateway would have rejected the connection before the bare newline.
    let text = text.replace("C: x", "C: \\n");
    let at_connect = |profile: &mut Profile| {
        rule(PolicyAction::Tempfail)(profile);
        profile.smtp.refuse_at = RefuseAt::Connect;
        profile.smtp.bare_newlines = BareNewlines::Reject;
    };
    let record = RecordedDialogue::new(&text).with(at_connect).run();
    assert_eq!(record.verdict.reason.as_deref(), Some("access_tempfail"));
    let record = RecordedDialogue::new(&text)
        .with(|profile| profile.smtp.bare_newlines = BareNewlines::Reject)
        .run();
    assert_eq!(record.verdict.action, PolicyAction::Reject);
    assert_eq!(record.verdict.reason.as_deref(), Some("bare_newline"));
    assert_eq!(codes(&record), ["250 250 250 3"]);
}

/// A rejection by upstream is not a verdict of the gateway.
#[test]
fn a_rejection_by_the_server_is_no_verdict() {
    let record =
        observe(&[HELLO, "C: MAIL FROM:<a@a.example>\nS: 550 5.7.25 no PTR\n", BYE].concat());
    assert_eq!(record.verdict.action, PolicyAction::Accept);
    assert_eq!(record.verdict.reason, None);
}

#[test]
fn early_talk_is_an_anomaly_if_both_sides_are_captured() {
    let text = "C: EHLO a\nS: 220 mx\nS: 250 mx\nC: QUIT\nS: 221 bye";
    let record = RecordedDialogue::new(text).with(|p| p.smtp.pregreet = Pregreet::Reject).run();
    assert_eq!(record.smtp.anomalies, [Anomaly::Pregreet]);
    assert_eq!(record.verdict.reason.as_deref(), Some("pregreet"));
    assert_eq!(commands(&record), "EHLO 1 QUIT 1");
    // With one side captured the order is unknown.
    let record = observe("C: EHLO a\nC: QUIT\nC.");
    assert_eq!((commands(&record).as_str(), record.smtp.anomalies.len()), ("EHLO 1 QUIT 1", 0));
}

#[test]
fn junk_gets_a_verdict_and_the_servers_reply_is_recorded() {
    let record = observe("S: 220 a\nC: GET / HTTP/1.1\nC: Host: x\nS: 500 what\nS.\nC.");
    assert_eq!(record.smtp.anomalies[0], Anomaly::JunkHttp);
    assert_eq!(record.verdict.reason.as_deref(), Some("junk"));
    assert_eq!(replies(&record), "220 1 500 1");
}

/// The server's reply shows that it took another sequence for the end of data.
#[test]
fn an_end_of_data_that_only_the_server_sees_is_recorded() {
    let text = r"C: DATA
        S: 354 go
        C: text\n.\n\
        S: 250 queued
        C: MAIL FROM:<a@b>
        S: 250 ok
        C: QUIT
        S: 221 bye";
    let record = after_envelope(text);
    assert_eq!(commands(&record), "EHLO 1 MAIL 2 RCPT 1 DATA 1 QUIT 1");
    assert_eq!(record.smtp.transactions[0].data_code, Some(250));
    assert_eq!(record.smtp.transactions[1].mail_code, Some(250));
    assert!(record.smtp.anomalies.contains(&Anomaly::Smuggling));
}

#[test]
fn a_gap_within_a_chunk_does_not_desynchronize() {
    let record = after_envelope(
        r"C: BDAT 1000
        C? 1000
        S: 250 ok
        C: BDAT 20 LAST
        C: abcde\
        C? 10
        C: xyz
        S: 250 queued
        C: QUIT
        S: 221 bye",
    );
    assert_eq!(codes(&record), ["250 250 250 1020"]);
    assert_eq!(record.smtp.anomalies, [Anomaly::Gap]);
    assert_eq!((record.smtp.desyncs, record.outcome), (0, Outcome::Quit));
}

#[test]
fn a_gap_over_the_end_of_a_chunk_desynchronizes() {
    let text = [
        "C: BDAT 20\nC? 30\nC: of something\nS: 250 ok\nS: 250 what\n",
        "C: NOOP\nS: 250 x\nC: FOO\nS: 500 y\n",
        BYE,
    ]
    .concat();
    let record = after_envelope(&text);
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 BDAT 1 NOOP 1 QUIT 1 unknown 1");
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
}

#[test]
fn a_gap_in_content_counts_towards_the_message_size() {
    // The end of data is captured.
    let text = "C: DATA\nS: 354 go\nC: abc\nC? 95\nC: rest\nC: .\nS: 250 queued\n";
    let record = after_envelope(&[text, ENVELOPE, BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 106", "250 250 - 0"]);
    assert_eq!(record.smtp.desyncs, 0);
    // The end of data is in the gap; the server's reply reveals it.
    let text = "C: DATA\nS: 354 go\nC: abc\nC? 95\nS: 250 queued\n";
    let record = after_envelope(&[text, ENVELOPE, BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 97", "250 250 - 0"]);
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
    assert_eq!(commands(&record), "EHLO 1 MAIL 2 RCPT 2 DATA 1 QUIT 1");
}

/// `.` CRLF right behind a gap may be the end of a line of text, so it does not end the message.
#[test]
fn a_dot_right_behind_a_gap_does_not_end_the_message() {
    let text = "C: DATA\nS: 354 go\nC? 7\nC: .\nC: more\nC: .\nS: 250 queued\n";
    let record = after_envelope(text);
    assert_eq!(record.smtp.transactions[0].bytes, 7 + 3 + 6);
}

#[test]
fn a_lost_command_is_never_guessed() {
    let record = observe(
        &[
            HELLO,
            r"C: MAIL FROM:<a@a.example>
            S: 250 ok
            C? 24
            C: RCPT TO:<half@b.example>
            S: 250 one of the two
            S: 250 the other
            C: RCPT TO:<c@b.example>
            S: 550 no
            C: DATA
            S: 354 go
            C: x
            C: .
            S: 250 queued
            ",
            BYE,
        ]
        .concat(),
    );
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1 QUIT 1");
    assert_eq!(
        codes(&record),
        ["250  - 0"],
        "the transaction of the recipient and the message is unknown"
    );
    assert_eq!(replies(&record), "220 1 221 1 250 5 354 1 550 1");
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
}

#[test]
fn a_354_proves_that_content_follows() {
    let record = observe(
        &[
            HELLO,
            r"C? 60
            S: 250 ok
            S: 250 ok
            S: 354 go
            C: QUIT
            C: .
            S: 250 queued
            ",
            BYE,
        ]
        .concat(),
    );
    assert_eq!(commands(&record), "EHLO 1 QUIT 1");
    assert_eq!(record.smtp.transactions_total, 0, "the envelope is unknown");
}

#[test]
fn the_code_of_a_lost_reply_is_unknown() {
    let record = observe(
        &[
            HELLO,
            r"C: MAIL FROM:<a@a.example>
            S? 8
            C: RCPT TO:<b@b.example>
            S: 250 ok
            C: RCPT TO:<c@b.example>
            S? 3
            S: ok
            C: DATA
            S: 354 go
            C: x
            C: .
            S? 12
            C: NOOP
            S: 250 ok
            ",
            BYE,
        ]
        .concat(),
    );
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 2 DATA 1 NOOP 1 QUIT 1");
    assert_eq!(codes(&record), ["- 250,- - 3"]);
    assert_eq!(replies(&record), "220 1 221 1 250 3 354 1");
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (3, 3));
}

#[test]
fn content_is_found_after_a_lost_354() {
    let message = "C: Subject: x\nC: QUIT\nC: .\nS: 250 queued\n";
    let record = after_envelope(&["C: DATA\nS? 10\n", message, BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 18"]);
    // The client waited for the 354, so the next reply is the one to the message, even with commands pipelined behind it.
    let lost = "C: MAIL FROM:<a@a.example>\nC: RCPT TO:<b@b.example>\nC: DATA\nS? 65\n";
    let rest = "C: Subject: x\nC: .\nC: QUIT\nS: 250 queued\nS: 221 bye\nS.\nC.\n";
    let record = observe(&[HELLO, lost, rest].concat());
    assert_eq!(codes(&record), ["- - 250 12"]);
    assert_eq!(record.outcome, Outcome::Quit);
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
    // The times of both phases are unknown.
    assert_eq!((record.smtp.phases.envelope, record.smtp.phases.data), (None, None));
    let record = after_envelope(&["C: DATA\nS? 10\nC: RSET\nS: 250 ok\n", BYE].concat());
    assert_eq!(codes(&record), ["250 250 - 0"]);
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1 RSET 1 QUIT 1");
    // The lost reply may belong to an earlier command.
    let text = "C: RSET\nC: MAIL FROM:<c@c.example>\nC: DATA\nS? 8\nS: 250 ok\nS: 354 go\n";
    let record = after_envelope(&[text, message, BYE].concat());
    assert_eq!(codes(&record), ["250 250 - 0", "-  250 18"]);
}

#[test]
fn a_capture_of_one_direction_is_recorded() {
    let client = r"C: EHLO a.example
        S? 120
        C: AUTH PLAIN
        S? 4
        C: AGEAYg==
        S? 10
        C: MAIL FROM:<a@a.example>
        C: RCPT TO:<b@b.example>
        C: DATA
        S? 50
        C: Subject: x
        C: .
        S? 8
        C: QUIT
        C.";
    // With and without gaps that the acknowledgements show.
    let alone: Vec<&str> = client.lines().filter(|line| !line.contains("S?")).collect();
    for text in [client.to_owned(), alone.join("\n")] {
        let record = observe(&text);
        assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1 QUIT 1 AUTH 1", "{text}");
        assert_eq!(codes(&record), ["- - - 12"], "{text}");
    }
    let server = "S: 220 a\nC? 8\nS: 250-a\nS: 250 b\nC? 10\nS: 250 ok\nC? 20\nS: 354 go\nC? 1000\nS: 250 x\nC? 6\nS: 221 bye";
    let record = observe(server);
    assert_eq!(replies(&record), "220 1 221 1 250 3 354 1");
    assert_eq!((commands(&record).as_str(), record.smtp.greeting), ("", Some(220)));
    // Nor is a gap of the other side reported.
    let record = observe("C: EHLO a\nC: STARTTLS\nC: \\x16\\x03\\x01 hello\nC.");
    assert_eq!(
        (commands(&record).as_str(), record.smtp.tls),
        ("EHLO 1 STARTTLS 1", TlsState::Started)
    );
}

fn midstream(text: &str) -> SessionRecord {
    RecordedDialogue { midstream: true, ..RecordedDialogue::new(text) }.run()
}

#[test]
fn a_midstream_capture_is_followed_from_the_first_certain_pair() {
    let text = "C: of content\nC: QUIT\nC: .\nS: 250 queued\n";
    let record = midstream(&[text, ENVELOPE, BYE].concat());
    assert_eq!(commands(&record), "MAIL 1 RCPT 1 QUIT 1");
    assert_eq!(codes(&record), ["250 250 - 0"]);
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
    // 221 answers only QUIT.
    assert_eq!(commands(&midstream("C: QUIT\nS: 221 bye")), "QUIT 1");
    // The command may be the last of several.
    assert_eq!(commands(&midstream("C: RCPT TO:<a@b>\nS: 250 ok")), "");
    // Before the greeting.
    let record = midstream(&[HELLO, BYE].concat());
    assert_eq!((commands(&record).as_str(), record.smtp.greeting), ("EHLO 1 QUIT 1", Some(220)));
}

/// `CONTENT_TYPE 3.3 LENGTH` and the octets.
fn record_of_tls(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap();
    [&[22, 3, 1][..], &length.to_be_bytes(), content].concat()
}

/// A hello of a client (1) or server (2), with extensions.
fn hello(kind: u8, extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = [&[3, 3][..], &[7; 32], &[0]].concat();
    // The client offers lists of suites and compressions, the server chooses one of each.
    body.extend(if kind == 1 { &[0, 2, 0x13, 1, 1, 0][..] } else { &[0x13, 1, 0][..] });
    let mut all = Vec::new();
    for (number, content) in extensions {
        all.extend(number.to_be_bytes());
        all.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
        all.extend(content);
    }
    body.extend(u16::try_from(all.len()).unwrap().to_be_bytes());
    body.extend(all);
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[kind], &length[1..], &body].concat()
}

fn client_hello(name: &str) -> Vec<u8> {
    let length = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
    let entry = [&[0][..], &length(name.len()), name.as_bytes()].concat();
    let list = [&length(entry.len())[..], &entry].concat();
    hello(1, &[(0, list), (0xfe0d, vec![9; 1500])])
}

fn opaque(sent: &[(Side, Vec<u8>)], start: &str) -> SessionRecord {
    let mut recorded = RecordedDialogue::new(start);
    recorded.inputs.extend(sent.iter().map(|(side, octets)| Input::Data(*side, octets.clone())));
    let single: Vec<Input> = recorded.inputs.iter().flat_map(Input::bytewise).collect();
    let record = recorded.feed(&recorded.inputs);
    assert_eq!(recorded.feed(&single), record, "one octet at a time");
    record
}

#[test]
fn tls_version_and_sni_are_recorded_from_the_hellos() {
    let start = &[HELLO, "C: STARTTLS\nS: 220 go\n"].concat();
    let client = client_hello("mx.example");
    let (head, tail) = client.split_at(700);
    // In two records, as RFC 8446 §5.1 allows.
    let client = [record_of_tls(head), record_of_tls(tail), vec![23, 3, 3]].concat();
    let v13 = record_of_tls(&hello(2, &[(43, vec![3, 4])]));
    let v12 = record_of_tls(&hello(2, &[]));
    for (server, version) in [(v13, "TLSv1.3"), (v12, "TLSv1.2")] {
        let sent = [(Side::Client, client.clone()), (Side::Server, server)];
        let record = opaque(&sent, start);
        assert_eq!(record.smtp.tls, TlsState::Started);
        assert_eq!(record.smtp.tls_version, Some(version));
        assert_eq!(record.smtp.sni.as_deref(), Some("mx.example"));
        assert_eq!(record.smtp.anomalies, []);
        assert_eq!(commands(&record), "EHLO 1 STARTTLS 1");
    }
}

#[test]
fn gaps_in_tls_are_no_anomalies() {
    let record = observe(
        &[
            HELLO,
            "C: STARTTLS\nS: 220 go\nC: \\x16\\x03\\x01\\\nC? 500\nS? 3000\nS: 250 x\nC: QUIT\nC.",
        ]
        .concat(),
    );
    assert_eq!((record.smtp.anomalies.len(), record.smtp.desyncs), (0, 0));
    assert_eq!(replies(&record), "220 2 250 1");
    assert_eq!((record.smtp.tls_version, record.smtp.sni), (None, None));
}

#[test]
fn tls_from_the_start_is_an_anomaly_and_opaque() {
    let sent = [
        (Side::Client, record_of_tls(&client_hello("mx.example"))),
        (Side::Server, record_of_tls(&hello(2, &[(43, vec![3, 4])]))),
        (Side::Client, b"QUIT\r\n".to_vec()),
    ];
    let record = opaque(&sent, "");
    assert_eq!(record.smtp.anomalies, [Anomaly::JunkTls]);
    assert_eq!(record.smtp.tls_version, Some("TLSv1.3"));
    assert_eq!(record.smtp.sni.as_deref(), Some("mx.example"));
    assert_eq!(commands(&record), "");
    assert_eq!(record.verdict.reason.as_deref(), Some("junk"));
}

#[test]
fn tls_records_on_both_sides_are_recognised_midstream() {
    let record = midstream(
        "C: \\x17\\x03\\x03\\0\\x05abc\nS: \\x17\\x03\\x03\\0\\x05abc\nC: QUIT\nS: 221 no",
    );
    assert_eq!((commands(&record).as_str(), record.smtp.tls), ("", TlsState::Started));
    assert_eq!(replies(&record), "");
}

/// Unanswered input is not held forever.
#[test]
fn unanswered_input_takes_bounded_memory() {
    let mut observer = RecordedDialogue::new("").observer();
    let mut out = Output::default();
    let open = b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
    observer.on_data(Side::Client, open, START, &mut out);
    let line = [b"x".repeat(70), b"\r\n".to_vec()].concat().repeat(100);
    for _ in 0..100 {
        observer.on_data(Side::Client, &line, START, &mut out);
    }
    observer.on_data(Side::Client, b".\r\nQUIT\r\n", START, &mut out);
    let record = observer.finish(TcpFacts::default(), START, &mut out);
    assert_eq!(codes(&record), ["- - - 720000"]);
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1 QUIT 1");
}

/// With `~` for each missing octet.
fn shown(inputs: &[Input]) -> String {
    let mut shown = String::new();
    let mut last = None;
    for input in inputs {
        let (side, octet) = match input {
            Input::Data(side, octets) => (*side, octets.escape_ascii().to_string()),
            Input::Gap(side, _) | Input::Omitted(side, _) => (*side, "~".to_owned()),
            Input::Closed(_) => continue,
        };
        if last.replace(side) != Some(side) {
            shown.push_str(&format!("\n{}: ", side.as_str()));
        }
        shown.push_str(&octet);
    }
    shown
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any segmentation, across both sides in causal order, gives the same record.
    #[test]
    fn the_record_does_not_depend_on_segments(
        cuts in proptest::collection::vec(1usize..40, 1..30),
    ) {
        let text = [
            HELLO,
            ENVELOPE,
            "C: RCPT TO:<c@b.example>\nC: BDAT 5\nC: abc\nC: BDAT 0 LAST\nC: NOOP\nS: 550 no\nS: 250 a\nS: 250 b\nS: 250 c\n",
            ENVELOPE,
            "C: DATA\nS: 354 go\nC: a\\nb\nC: ..\nC: .\nS: 250 queued\nC: AUTH LOGIN\nS: 334 a\nC: x\nS: 535 no\n",
            BYE,
        ].concat();
        let recorded = RecordedDialogue::new(&text);
        let mut cuts = cuts.iter().cycle();
        let mut parts = Vec::new();
        for input in flights(&recorded.inputs) {
            let mut octets = input.octets();
            if octets.is_empty() {
                parts.push(input.clone());
            }
            while let Input::Data(side, _) = input && !octets.is_empty() {
                let (head, tail) = octets.split_at((*cuts.next().unwrap()).min(octets.len()));
                parts.push(Input::Data(side, head.to_vec()));
                octets = tail;
            }
        }
        prop_assert_eq!(recorded.feed(&parts), recorded.feed(&recorded.inputs));
    }

    /// With any gaps nothing panics, and no code is recorded for a command that it does not answer: each kind of
    /// command has a code of its own here.
    #[test]
    fn gaps_never_move_a_reply_to_another_command(
        gaps in proptest::collection::vec((any::<prop::sample::Index>(), 1usize..80, any::<bool>()), 1..6),
        midstream in any::<bool>(),
    ) {
        let one_by_one = "C: MAIL FROM:<a@a.example>\nS: 250 m\nC: RCPT TO:<b@b.example>\nS: 251 r\nC: DATA\nS: 354 go\n";
        let at_once = "C: MAIL FROM:<a@a.example>\nC: RCPT TO:<b@b.example>\nC: DATA\nS: 250 m\nS: 251 r\nS: 354 go\n";
        let message = "C: a\nC: RSET\nC: .\nS: 252 queued\n";
        let chunks = "C: MAIL FROM:<a@a.example>\nS: 250 m\nC: RCPT TO:<b@b.example>\nC: BDAT 6 LAST\nC: QUIT\nS: 251 r\nS: 252 x\n";
        let text = [HELLO, one_by_one, message, at_once, message, chunks, one_by_one, message, BYE].concat();
        let mut recorded = RecordedDialogue { midstream, ..RecordedDialogue::new(&text) };
        let mut inputs: Vec<Input> = recorded.inputs.iter().flat_map(Input::bytewise).collect();
        for (index, length, is_lost) in gaps {
            let at = index.index(inputs.len());
            for input in inputs.iter_mut().skip(at).take(length) {
                if let Input::Data(side, _) = input {
                    let side = *side;
                    *input = if is_lost { Input::Gap(side, 1) } else { Input::Omitted(side, 1) };
                }
            }
        }
        recorded.inputs = inputs;
        let record = recorded.feed(&recorded.inputs);
        prop_assert!(record.smtp.transactions_total <= 4);
        for transaction in &record.smtp.transactions {
            let right = transaction.mail_code.is_none_or(|code| code == 250)
                && transaction.rcpt_to.iter().all(|r| r.code.is_none_or(|code| code == 251))
                && transaction.data_code.is_none_or(|code| code == 252)
                && transaction.rcpt_total <= 1;
            prop_assert!(right, "{transaction:?} of {}", shown(&recorded.inputs));
        }
        for (verb, count) in &record.smtp.commands {
            let sent = if *verb == gatepost::smtp::Verb::Unknown { 9 } else { 4 };
            prop_assert!(*count <= sent, "{verb}");
        }
    }
}
