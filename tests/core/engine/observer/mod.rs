//! Observers of recorded dialogues, complete ones and those with gaps.
//!
//! Lines are `C: text` and `S: text` as in `dialogue.rs`, `C? 100` and `S? 100` for octets that are missing, `C- 100` and
//! `S- 100` for such as the source left out, `C.` and `S.` for the ends. Each is heard as told, in whole flights, one octet at a time and cut at every point: the record is the same.

mod left_out;

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
enum Heard {
    Data(Side, Vec<u8>),
    Gap(Side, u64),
    Omitted(Side, u64),
    Closed(Side),
}

fn told(text: &str) -> Vec<Heard> {
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let side = if line.starts_with('C') { Side::Client } else { Side::Server };
            match (&line[1..2], line.get(3..).unwrap_or_default()) {
                (":", text) => Heard::Data(side, unescape(text)),
                ("?", count) => Heard::Gap(side, count.parse().expect(line)),
                ("-", count) => Heard::Omitted(side, count.parse().expect(line)),
                (".", "") => Heard::Closed(side),
                _ => panic!("not a line of a recorded dialogue: {line}"),
            }
        })
        .collect()
}

/// What one side says without a word of the other between becomes one.
fn flights(told: &[Heard]) -> Vec<Heard> {
    let mut flights: Vec<Heard> = Vec::new();
    for heard in told {
        match (flights.last_mut(), heard) {
            (Some(Heard::Data(last, octets)), Heard::Data(side, more)) if last == side => {
                octets.extend(more);
            }
            _ => flights.push(heard.clone()),
        }
    }
    flights
}

/// With the first cut of everything that is said `cut` octets in.
fn cut(told: &[Heard], mut cut: usize) -> Vec<Heard> {
    let mut parts = Vec::new();
    for heard in told {
        match heard {
            Heard::Data(side, octets) if 0 < cut && cut < octets.len() => {
                let (head, tail) = octets.split_at(cut);
                parts.push(Heard::Data(*side, head.to_vec()));
                parts.push(Heard::Data(*side, tail.to_vec()));
                cut = 0;
            }
            Heard::Data(_, octets) => {
                cut = cut.saturating_sub(octets.len());
                parts.push(heard.clone());
            }
            _ => parts.push(heard.clone()),
        }
    }
    parts
}

struct Record {
    profile: Profile,
    midstream: bool,
    told: Vec<Heard>,
}

fn hear(text: &str) -> SessionRecord {
    Record::of(text).heard()
}

impl Record {
    fn of(text: &str) -> Self {
        Self { profile: Profile::default(), midstream: false, told: told(text) }
    }

    fn with(mut self, set: impl FnOnce(&mut Profile)) -> Self {
        set(&mut self.profile);
        self
    }

    #[track_caller]
    fn heard(&self) -> SessionRecord {
        let record = self.play(&self.told);
        let flights = flights(&self.told);
        assert_eq!(self.play(&flights), record, "in whole flights");
        let total: usize = flights.iter().map(|heard| heard.octets().len()).sum();
        let single: Vec<Heard> = flights.iter().flat_map(Heard::singly).collect();
        assert_eq!(self.play(&single), record, "one octet at a time");
        for at in 1..total {
            assert_eq!(self.play(&cut(&flights, at)), record, "cut at {at}");
        }
        record
    }

    fn play(&self, told: &[Heard]) -> SessionRecord {
        let mut out = Output::default();
        let mut observer = self.observer();
        for heard in told {
            match heard {
                Heard::Data(side, octets) => observer.on_data(*side, octets, START, &mut out),
                Heard::Gap(side, length) => observer.on_gap(*side, *length, START, &mut out),
                Heard::Omitted(side, length) => {
                    observer.on_omitted(*side, *length, START, &mut out)
                }
                Heard::Closed(side) => observer.on_closed(*side, START, &mut out),
            }
        }
        let mut record = observer.finish(TcpFacts::default(), START, &mut out);
        assert_eq!(out.actions, [], "a observer says nothing");
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

impl Heard {
    fn octets(&self) -> &[u8] {
        match self {
            Self::Data(_, octets) => octets,
            _ => &[],
        }
    }

    fn singly(&self) -> Vec<Self> {
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
    hear(&[HELLO, ENVELOPE, text].concat())
}

const BYE: &str = "C: QUIT\nS: 221 bye\nS.\nC.\n";

#[test]
fn a_server_may_be_any_and_is_recorded_as_it_is() {
    let record = hear(
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
fn content_that_looks_like_commands_is_content() {
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
fn data_refused_with_commands_behind_it() {
    let record = after_envelope("C: DATA\nC: RSET\nC: NOOP\nS: 554 no\nS: 250 ok\nS: 250 ok\n");
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1 RSET 1 NOOP 1");
    assert_eq!(codes(&record), ["250 250 554 0"]);
    assert_eq!(record.smtp.anomalies, [Anomaly::EarlyData]);
}

/// As in a capture of a client that does not wait: all of it said, then all of it answered.
#[test]
fn content_waits_for_the_354_in_a_flight_of_replies() {
    let record = hear(
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
fn a_line_longer_than_the_gateway_reads_is_a_command_to_its_server() {
    let long = "x".repeat(4000);
    let record = Record::of(&format!("S: 220 a\nC: EHLO {long}\nS: 250 b\n"));
    let record = record.play(&record.told);
    assert_eq!(commands(&record), "EHLO 1");
    assert_eq!(record.smtp.anomalies, [Anomaly::CommandTooLong]);
    assert_eq!(record.verdict.reason.as_deref(), Some("limit_line"));
}

#[test]
fn a_reply_to_nothing_is_counted() {
    let text = "C: DATA\nS: 354 go\nC: x\nC: .\nS: 250 queued\nS: 451 4.7.0 you are slow\nS.\nC.";
    let record = after_envelope(text);
    assert_eq!(replies(&record), "220 1 250 4 354 1 451 1");
    assert_eq!(record.smtp.anomalies, [Anomaly::UnexpectedReply]);
    assert_eq!(record.outcome, Outcome::UpstreamClosed);
    let farewell = after_envelope("S: 421 4.4.2 timeout\nS.\nC.");
    assert_eq!((farewell.smtp.anomalies.len(), farewell.smtp.desyncs), (0, 0));
}

/// A reply that answers what is not heard yet must not put every later one off by one.
#[test]
fn pairing_is_sure_again_after_one_command_and_its_reply() {
    let record = hear(
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
            action,
        }]);
    }
}

#[test]
fn refusals_are_recorded_and_the_dialogue_goes_on() {
    let text = [HELLO, ENVELOPE, "C: DATA\nS: 354 go\nC: x\nC: .\nS: 250 queued\n", BYE].concat();
    let record = Record::of(&text).with(rule(PolicyAction::Tempfail)).heard();
    assert_eq!(codes(&record), ["250 250 250 3"], "as it went");
    assert_eq!(record.verdict.action, PolicyAction::Tempfail);
    assert_eq!(record.verdict.rule.as_deref(), Some("no mail from there"));
    assert_eq!(record.verdict.reason.as_deref(), Some("access_tempfail"));

    // The gateway would have turned it away, and not have seen the bare newline.
    let text = text.replace("C: x", "C: \\n");
    let at_connect = |profile: &mut Profile| {
        rule(PolicyAction::Tempfail)(profile);
        profile.smtp.refuse_at = RefuseAt::Connect;
        profile.smtp.bare_newlines = BareNewlines::Reject;
    };
    let record = Record::of(&text).with(at_connect).heard();
    assert_eq!(record.verdict.reason.as_deref(), Some("access_tempfail"));
    let record =
        Record::of(&text).with(|profile| profile.smtp.bare_newlines = BareNewlines::Reject).heard();
    assert_eq!(record.verdict.action, PolicyAction::Reject);
    assert_eq!(record.verdict.reason.as_deref(), Some("bare_newline"));
    assert_eq!(codes(&record), ["250 250 250 3"]);
}

/// Upstream's refusals are not the gateway's verdict.
#[test]
fn a_refusal_of_the_server_is_no_verdict() {
    let record = hear(&[HELLO, "C: MAIL FROM:<a>\nS: 550 5.7.25 no PTR\n", BYE].concat());
    assert_eq!(record.verdict.action, PolicyAction::Accept);
    assert_eq!(record.verdict.reason, None);
}

#[test]
fn a_client_that_speaks_before_the_greeting() {
    let text = "C: EHLO a\nS: 220 mx\nS: 250 mx\nC: QUIT\nS: 221 bye";
    let record = Record::of(text).with(|p| p.smtp.pregreet = Pregreet::Reject).heard();
    assert_eq!(record.smtp.anomalies, [Anomaly::Pregreet]);
    assert_eq!(record.verdict.reason.as_deref(), Some("pregreet"));
    assert_eq!(commands(&record), "EHLO 1 QUIT 1");
    // With one side captured nobody knows who spoke first.
    let record = hear("C: EHLO a\nC: QUIT\nC.");
    assert_eq!((commands(&record).as_str(), record.smtp.anomalies.len()), ("EHLO 1 QUIT 1", 0));
}

#[test]
fn junk_is_judged_and_the_server_says_what_it_thinks() {
    let record = hear("S: 220 a\nC: GET / HTTP/1.1\nC: Host: x\nS: 500 what\nS.\nC.");
    assert_eq!(record.smtp.anomalies[0], Anomaly::JunkHttp);
    assert_eq!(record.verdict.reason.as_deref(), Some("junk"));
    assert_eq!(replies(&record), "220 1 500 1");
}

/// A server that takes something else for the end of data says so with its reply.
#[test]
fn a_message_that_the_server_ended_itself() {
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
fn a_gap_within_a_chunk_loses_nothing() {
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
fn a_gap_over_the_end_of_a_chunk_loses_the_thread() {
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
fn a_gap_in_content_adds_to_the_message() {
    // Its end is seen.
    let text = "C: DATA\nS: 354 go\nC: abc\nC? 95\nC: rest\nC: .\nS: 250 queued\n";
    let record = after_envelope(&[text, ENVELOPE, BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 106", "250 250 - 0"]);
    assert_eq!(record.smtp.desyncs, 0);
    // It is not, and the server tells of it.
    let text = "C: DATA\nS: 354 go\nC: abc\nC? 95\nS: 250 queued\n";
    let record = after_envelope(&[text, ENVELOPE, BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 97", "250 250 - 0"]);
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
    assert_eq!(commands(&record), "EHLO 1 MAIL 2 RCPT 2 DATA 1 QUIT 1");
}

/// Half a final line behind a gap is not taken for one; a line of text may end in `.` CRLF.
#[test]
fn what_follows_a_gap_does_not_begin_a_line() {
    let text = "C: DATA\nS: 354 go\nC? 7\nC: .\nC: more\nC: .\nS: 250 queued\n";
    let record = after_envelope(text);
    assert_eq!(record.smtp.transactions[0].bytes, 7 + 3 + 6);
}

#[test]
fn a_lost_command_is_never_guessed() {
    let record = hear(
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
        "whose the recipient and the message were is not known"
    );
    assert_eq!(replies(&record), "220 1 221 1 250 5 354 1 550 1");
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
}

#[test]
fn a_354_proves_that_content_follows() {
    let record = hear(
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
    assert_eq!(record.smtp.transactions_total, 0, "nobody knows of which envelope");
}

#[test]
fn a_lost_reply_is_of_unknown_code() {
    let record = hear(
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
fn a_lost_reply_to_data() {
    let message = "C: Subject: x\nC: QUIT\nC: .\nS: 250 queued\n";
    let record = after_envelope(&["C: DATA\nS? 10\n", message, BYE].concat());
    assert_eq!(codes(&record), ["250 250 250 18"]);
    // The client waited for the 354, so the next reply is the message's whatever is pipelined behind it.
    let lost = "C: MAIL FROM:<a@a.example>\nC: RCPT TO:<b@b.example>\nC: DATA\nS? 65\n";
    let rest = "C: Subject: x\nC: .\nC: QUIT\nS: 250 queued\nS: 221 bye\nS.\nC.\n";
    let record = hear(&[HELLO, lost, rest].concat());
    assert_eq!(codes(&record), ["- - 250 12"]);
    assert_eq!(record.outcome, Outcome::Quit);
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
    // Nobody heard when it began.
    assert_eq!((record.smtp.phases.envelope, record.smtp.phases.data), (None, None));
    let record = after_envelope(&["C: DATA\nS? 10\nC: RSET\nS: 250 ok\n", BYE].concat());
    assert_eq!(codes(&record), ["250 250 - 0"]);
    assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1 RSET 1 QUIT 1");
    // What is lost may be something before it.
    let text = "C: RSET\nC: MAIL FROM:<c@c.example>\nC: DATA\nS? 8\nS: 250 ok\nS: 354 go\n";
    let record = after_envelope(&[text, message, BYE].concat());
    assert_eq!(codes(&record), ["250 250 - 0", "-  250 18"]);
}

#[test]
fn one_direction_only() {
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
    // Whether or not acknowledgements tell of the other side.
    let alone: Vec<&str> = client.lines().filter(|line| !line.contains("S?")).collect();
    for text in [client.to_owned(), alone.join("\n")] {
        let record = hear(&text);
        assert_eq!(commands(&record), "EHLO 1 MAIL 1 RCPT 1 DATA 1 QUIT 1 AUTH 1", "{text}");
        assert_eq!(codes(&record), ["- - - 12"], "{text}");
    }
    let server = "S: 220 a\nC? 8\nS: 250-a\nS: 250 b\nC? 10\nS: 250 ok\nC? 20\nS: 354 go\nC? 1000\nS: 250 x\nC? 6\nS: 221 bye";
    let record = hear(server);
    assert_eq!(replies(&record), "220 1 221 1 250 3 354 1");
    assert_eq!((commands(&record).as_str(), record.smtp.greeting), ("", Some(220)));
    // Nor was anything of the other side told to be missing.
    let record = hear("C: EHLO a\nC: STARTTLS\nC: \\x16\\x03\\x01 hello\nC.");
    assert_eq!(
        (commands(&record).as_str(), record.smtp.tls),
        ("EHLO 1 STARTTLS 1", TlsState::Started)
    );
}

fn midstream(text: &str) -> SessionRecord {
    Record { midstream: true, ..Record::of(text) }.heard()
}

#[test]
fn a_capture_that_begins_within_the_session() {
    let text = "C: of content\nC: QUIT\nC: .\nS: 250 queued\n";
    let record = midstream(&[text, ENVELOPE, BYE].concat());
    assert_eq!(commands(&record), "MAIL 1 RCPT 1 QUIT 1");
    assert_eq!(codes(&record), ["250 250 - 0"]);
    assert_eq!((record.smtp.desyncs, record.smtp.resyncs), (1, 1));
    // A reply that nothing else is answered with.
    assert_eq!(commands(&midstream("C: QUIT\nS: 221 bye")), "QUIT 1");
    // It may be the end of a flight of commands.
    assert_eq!(commands(&midstream("C: RCPT TO:<a@b>\nS: 250 ok")), "");
    // Before anybody spoke.
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
    // The client offers suites and compressions, the server chooses of both.
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

fn opaque(said: &[(Side, Vec<u8>)], start: &str) -> SessionRecord {
    let mut record = Record::of(start);
    record.told.extend(said.iter().map(|(side, octets)| Heard::Data(*side, octets.clone())));
    let single: Vec<Heard> = record.told.iter().flat_map(Heard::singly).collect();
    let heard = record.play(&record.told);
    assert_eq!(record.play(&single), heard, "one octet at a time");
    heard
}

#[test]
fn the_hellos_of_tls_are_looked_at() {
    let start = &[HELLO, "C: STARTTLS\nS: 220 go\n"].concat();
    let client = client_hello("mx.example");
    let (head, tail) = client.split_at(700);
    // In two records, as RFC 8446 §5.1 allows.
    let client = [record_of_tls(head), record_of_tls(tail), vec![23, 3, 3]].concat();
    let v13 = record_of_tls(&hello(2, &[(43, vec![3, 4])]));
    let v12 = record_of_tls(&hello(2, &[]));
    for (server, version) in [(v13, "TLSv1.3"), (v12, "TLSv1.2")] {
        let said = [(Side::Client, client.clone()), (Side::Server, server)];
        let record = opaque(&said, start);
        assert_eq!(record.smtp.tls, TlsState::Started);
        assert_eq!(record.smtp.tls_version, Some(version));
        assert_eq!(record.smtp.sni.as_deref(), Some("mx.example"));
        assert_eq!(record.smtp.anomalies, []);
        assert_eq!(commands(&record), "EHLO 1 STARTTLS 1");
    }
}

#[test]
fn gaps_in_tls_lose_nothing() {
    let record = hear(
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
    let said = [
        (Side::Client, record_of_tls(&client_hello("mx.example"))),
        (Side::Server, record_of_tls(&hello(2, &[(43, vec![3, 4])]))),
        (Side::Client, b"QUIT\r\n".to_vec()),
    ];
    let record = opaque(&said, "");
    assert_eq!(record.smtp.anomalies, [Anomaly::JunkTls]);
    assert_eq!(record.smtp.tls_version, Some("TLSv1.3"));
    assert_eq!(record.smtp.sni.as_deref(), Some("mx.example"));
    assert_eq!(commands(&record), "");
    assert_eq!(record.verdict.reason.as_deref(), Some("junk"));
}

#[test]
fn records_of_tls_on_both_sides_prove_tls() {
    let record = midstream(
        "C: \\x17\\x03\\x03\\0\\x05abc\nS: \\x17\\x03\\x03\\0\\x05abc\nC: QUIT\nS: 221 no",
    );
    assert_eq!((commands(&record).as_str(), record.smtp.tls), ("", TlsState::Started));
    assert_eq!(replies(&record), "");
}

/// What nobody answers is not held for ever.
#[test]
fn a_client_that_does_not_wait_costs_a_bounded_memory() {
    let record = Record::of("");
    let mut observer = record.observer();
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

/// With `~` for each octet that is missing.
fn shown(told: &[Heard]) -> String {
    let mut shown = String::new();
    let mut last = None;
    for heard in told {
        let (side, octet) = match heard {
            Heard::Data(side, octets) => (*side, octets.escape_ascii().to_string()),
            Heard::Gap(side, _) | Heard::Omitted(side, _) => (*side, "~".to_owned()),
            Heard::Closed(_) => continue,
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
        let record = Record::of(&text);
        let mut cuts = cuts.iter().cycle();
        let mut parts = Vec::new();
        for heard in flights(&record.told) {
            let mut octets = heard.octets();
            if octets.is_empty() {
                parts.push(heard.clone());
            }
            while let Heard::Data(side, _) = heard && !octets.is_empty() {
                let (head, tail) = octets.split_at((*cuts.next().unwrap()).min(octets.len()));
                parts.push(Heard::Data(side, head.to_vec()));
                octets = tail;
            }
        }
        prop_assert_eq!(record.play(&parts), record.play(&record.told));
    }

    /// Whatever is missing, nothing panics and no code is told of what it does not answer: each kind has one of its own here.
    #[test]
    fn holes_anywhere(
        holes in proptest::collection::vec((any::<prop::sample::Index>(), 1usize..80, any::<bool>()), 1..6),
        midstream in any::<bool>(),
    ) {
        let one_by_one = "C: MAIL FROM:<a>\nS: 250 m\nC: RCPT TO:<b>\nS: 251 r\nC: DATA\nS: 354 go\n";
        let at_once = "C: MAIL FROM:<a>\nC: RCPT TO:<b>\nC: DATA\nS: 250 m\nS: 251 r\nS: 354 go\n";
        let message = "C: a\nC: RSET\nC: .\nS: 252 queued\n";
        let chunks = "C: MAIL FROM:<a>\nS: 250 m\nC: RCPT TO:<b>\nC: BDAT 6 LAST\nC: QUIT\nS: 251 r\nS: 252 x\n";
        let text = [HELLO, one_by_one, message, at_once, message, chunks, one_by_one, message, BYE].concat();
        let mut record = Record { midstream, ..Record::of(&text) };
        let mut told: Vec<Heard> = record.told.iter().flat_map(Heard::singly).collect();
        for (index, length, is_lost) in holes {
            let at = index.index(told.len());
            for heard in told.iter_mut().skip(at).take(length) {
                if let Heard::Data(side, _) = heard {
                    let side = *side;
                    *heard = if is_lost { Heard::Gap(side, 1) } else { Heard::Omitted(side, 1) };
                }
            }
        }
        record.told = told;
        let heard = record.play(&record.told);
        prop_assert!(heard.smtp.transactions_total <= 4);
        for transaction in &heard.smtp.transactions {
            let right = transaction.mail_code.is_none_or(|code| code == 250)
                && transaction.rcpt_to.iter().all(|r| r.code.is_none_or(|code| code == 251))
                && transaction.data_code.is_none_or(|code| code == 252)
                && transaction.rcpt_total <= 1;
            prop_assert!(right, "{transaction:?} of {}", shown(&record.told));
        }
        for (verb, count) in &heard.smtp.commands {
            let said = if *verb == gatepost::smtp::Verb::Unknown { 9 } else { 4 };
            prop_assert!(*count <= said, "{verb}");
        }
    }
}
