//! A session observed from outside, as in a capture: records it as the proxy would have, and sends nothing.
//!
//! The observer has the proxy's session machine, record builder and checks. What differs is what an observer cannot do:
//! every command goes to the server as it is, and the server may be any. What the checks would have rejected is recorded as
//! the verdict, and the dialogue goes on as it went. Nothing is normalised, nothing is filtered.
//!
//! Captures have gaps, and a guess would be worse than a gap. Where bytes are missing, see [`Tracking`]; `resync` lists the
//! proofs that the dialogue is followed again. A gap within a BDAT chunk or within TLS loses nothing.
//!
//! Sources may omit the content of messages except its end; that loses nothing either. Where the omitted bytes decide
//! whether a line is the end of data, the bytes after it wait: the server's reply proves that it was, a further end among
//! them that it was not.
//!
//! Memory: at most [`MAX_HELD`] bytes of each side, including the longest line and the longest reply, and the record. Bytes of
//! messages are never copied.

mod client;
mod message;
mod resync;
mod server;
mod transcript;

use std::collections::VecDeque;
use std::sync::Arc;

use self::message::EndedMessage;
use self::transcript::Transcript;
use super::event::{Anomaly, Desync, Event, Outcome};
use super::message_reader::MessageReader;
use super::options::{Profile, TlsMode};
use super::output::Output;
use super::policy::checks::SessionChecks;
use super::policy::decides_at_connect;
use super::record::builder::RecordBuilder;
use super::record::tls_hello::TlsHellos;
use super::record::{PolicyQuestion, SessionRecord, TcpFacts, TranscriptEntry};
use crate::addr::{ClientAddr, OriginalDst, Side};
use crate::policy::rules::PolicyStage;
use crate::smtp::{BareNewlines, ExpectedReply, Session};
use crate::stream::FlowOutcome;
use crate::time::Timestamp;

/// Bytes of one side that may wait for the other side, or for the end of a line or reply.
const MAX_HELD: usize = 128 * 1024;
/// Bytes of one command line. Servers accept longer ones than the gateway.
const MAX_LINE: usize = 64 * 1024;
/// Bytes after an ambiguous end of data. More than a client pipelines there is content.
const MAX_AMBIGUOUS: usize = 2048;

/// How well the dialogue is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracking {
    /// Each reply is paired with its command.
    Paired,
    /// Replies were missed. The client is followed and its commands are counted; replies are counted but not paired, so
    /// codes stay unknown.
    Unpaired,
    /// Commands were missed. Bytes of neither side are known to be what they look like; replies are counted.
    Resync,
}

/// What the client sent since the server's last reply.
#[derive(Debug, Default)]
struct ClientTurn {
    /// Items that expect a reply: commands, AUTH lines, ends of data. Lines of any kind in [`Tracking::Resync`].
    items: usize,
    /// It began after a reply, and nothing of it is missing.
    is_complete: bool,
    /// All earlier commands are answered: its first item is a message, for which the client had to wait for the 354.
    begins_with_message: bool,
    /// In [`Tracking::Resync`] the last line, if it looks like a command.
    line: Vec<u8>,
}

/// Bytes that are skipped, however they are segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skipping {
    Nothing,
    /// The rest of a line.
    Line,
    /// The rest of a TLS record, in bytes, in [`Tracking::Resync`].
    Record(usize),
}

impl Skipping {
    const fn record_left(self) -> usize {
        match self {
            Self::Record(left) => left,
            Self::Nothing | Self::Line => 0,
        }
    }
}

/// Both sides of one recorded dialogue.
#[derive(Debug)]
pub struct Observer {
    profile: Arc<Profile>,
    session: Session,
    record: RecordBuilder,
    checks: SessionChecks,
    tls_hellos: TlsHellos,
    tracking: Tracking,
    turn: ClientTurn,
    /// By [`Side::index`]: bytes that cannot be interpreted yet.
    held: [Vec<u8>; 2],
    /// Bytes of the server's that are whole lines of an unfinished reply.
    reply_lines: usize,
    /// By [`Side::index`]: the time of the first held byte.
    since: [Timestamp; 2],
    now: Timestamp,
    transcript: Transcript,
    midstream: bool,
    opened: bool,
    /// By [`Side::index`]: any bytes were seen or missed.
    has_sent: [bool; 2],
    /// By [`Side::index`].
    skipping: [Skipping; 2],
    /// In [`Tracking::Resync`], by [`Side::index`]: TLS records were seen.
    tls_seen: [bool; 2],
    /// Bytes of the message are missing, and its end may be among them.
    end_uncertain: bool,
    /// Bytes of the message were omitted.
    content_omitted: bool,
    /// Since then an ambiguous end of data waits for the server's reply, and what follows it with it.
    ambiguous_end: Option<Timestamp>,
    /// The current message, if the rules read it and nothing of it is missing.
    message_reader: Option<Box<MessageReader>>,
    /// Within a message that is sent by BDAT.
    in_chunks: bool,
    /// Messages without a reply, if rules are decided at their end.
    ended_messages: VecDeque<EndedMessage>,
    plaintext_counted: bool,
    /// Bytes that the client sent before the 220 to its STARTTLS.
    sent_before_tls: usize,
    /// An HTTP or PROXY line is recognised before it is complete.
    junk_counted: bool,
    /// QUIT was answered: whatever the client sends now, no server reads it.
    quit: bool,
    closed: Option<Side>,
}

impl Observer {
    /// A dialogue whose connection began at `at`; with `midstream` its beginning is not in the capture.
    pub fn new(
        profile: Arc<Profile>,
        client: ClientAddr,
        server: OriginalDst,
        at: Timestamp,
        midstream: bool,
    ) -> Self {
        let mut session = Session::new(BareNewlines::Pass, MAX_LINE);
        if midstream {
            session.assume_command();
        }
        if profile.tls == TlsMode::Implicit {
            session.on_tls_established(); // A recording of the gateway's begins decrypted.
        }
        Self {
            session,
            record: RecordBuilder::new(profile.listener.clone(), client, server, at),
            checks: SessionChecks::new(Arc::clone(&profile), client, server),
            profile,
            tls_hellos: TlsHellos::default(),
            tracking: if midstream { Tracking::Resync } else { Tracking::Paired },
            turn: ClientTurn::default(),
            held: [Vec::new(), Vec::new()],
            reply_lines: 0,
            since: [at; 2],
            now: at,
            transcript: Transcript::default(),
            midstream,
            opened: false,
            has_sent: [false; 2],
            skipping: [Skipping::Nothing; 2],
            tls_seen: [false; 2],
            end_uncertain: false,
            content_omitted: false,
            ambiguous_end: None,
            message_reader: None,
            in_chunks: false,
            ended_messages: VecDeque::new(),
            plaintext_counted: false,
            sent_before_tls: 0,
            junk_counted: false,
            quit: false,
            closed: None,
        }
    }

    /// Keeps the dialogue too, up to 64 MiB of it.
    pub const fn keep_transcript(&mut self) {
        self.transcript.keep();
    }

    /// The dialogue, if [`Observer::keep_transcript`] was called before it.
    pub fn take_transcript(&mut self) -> Vec<TranscriptEntry> {
        self.transcript.take()
    }

    /// The next bytes from `side`. Only the events of `out` are used.
    pub fn on_data(&mut self, side: Side, bytes: &[u8], at: Timestamp, out: &mut Output) {
        self.begin(at, out);
        if bytes.is_empty() {
            return;
        }
        self.record.count_bytes(side, bytes.len() as u64, out);
        if side == Side::Client {
            self.set_has_sent(side);
        }
        self.feed(side, bytes, out);
        if self.held_by(Side::Client).len() > MAX_HELD {
            // The reply that it all waits for was missed, or the client does not wait for replies.
            self.on_replies_missed(Desync::Overflow, out);
        }
    }

    /// `length` bytes from `side` are missing for good.
    pub fn on_gap(&mut self, side: Side, length: u64, at: Timestamp, out: &mut Output) {
        self.begin(at, out);
        if length == 0 || self.quit {
            return;
        }
        if self.session.is_opaque() {
            self.transcript.gap(side, length, at);
            self.record.on_unseen_tls(side, length, at);
            return self.tls_hellos.on_gap(side);
        }
        if side == Side::Client {
            self.reject_ambiguous_end(out);
        }
        self.record.anomaly(Anomaly::Gap, out);
        let held = self.take_held(side);
        if side == Side::Server {
            self.reply_lines = 0;
        }
        self.transcript.line(side, &held, self.since(side));
        self.transcript.gap(side, length, at);
        self.skip(side, Skipping::Nothing);
        match side {
            Side::Client => self.on_client_gap(length, out),
            Side::Server if self.tracking == Tracking::Resync => self.begin_turn(),
            Side::Server => self.on_replies_missed(Desync::ServerGap, out),
        }
        self.set_has_sent(side);
    }

    /// The source omitted the next `length` bytes from `side` on purpose: content of a message, or TLS. Nothing is lost, unless
    /// the dialogue is elsewhere.
    pub fn on_omitted(&mut self, side: Side, length: u64, at: Timestamp, out: &mut Output) {
        self.begin(at, out);
        if length == 0 {
            return;
        }
        self.record.count_bytes(side, length, out);
        if self.quit {
            return;
        }
        if self.session.is_opaque() {
            self.transcript.encrypted(side, length, at);
            self.record.on_unseen_tls(side, length, at);
            return self.tls_hellos.on_gap(side);
        }
        let mut left = length - self.skip_omitted_record(side, length, at);
        if side == Side::Client {
            left -= self.on_content_omitted(left, at, out);
        }
        self.on_gap(side, left, at, out);
    }

    /// Drops the held bytes, to free memory: as if they had not been captured.
    pub fn drop_held(&mut self, at: Timestamp, out: &mut Output) {
        self.reject_ambiguous_end(out);
        for side in Side::ALL {
            let held = self.held_by(side).len() as u64;
            self.on_gap(side, held, at, out);
        }
    }

    /// `side` sends no more.
    pub fn on_closed(&mut self, side: Side, at: Timestamp, out: &mut Output) {
        self.begin(at, out);
        self.closed.get_or_insert(side);
        self.transcript.closed(side, at);
        if side == Side::Server {
            self.on_server_silent(out);
        }
    }

    /// The dialogue is over, or the capture is. `tcp` describes the connection below it.
    pub fn finish(&mut self, tcp: TcpFacts, at: Timestamp, out: &mut Output) -> SessionRecord {
        self.begin(at, out);
        self.on_server_silent(out);
        self.note_unanswered(false);
        let outcome = self.outcome(&tcp);
        self.record.set_tcp(tcp);
        self.record.finish(outcome, self.checks.verdict(), &mut self.session, at, out)
    }

    /// Bytes of both sides that are held.
    pub fn held_bytes(&self) -> usize {
        self.held.iter().map(Vec::len).sum()
    }

    fn begin(&mut self, at: Timestamp, out: &mut Output) {
        self.now = at;
        if self.opened {
            return;
        }
        self.opened = true;
        out.event(Event::SessionOpened);
        if self.midstream {
            self.record.on_desync(Desync::Midstream, out);
        }
        if let Some(refusal) = self.checks.at_connect() {
            self.checks.on_refusal(refusal, out);
            self.checks.end();
        }
        if decides_at_connect(&self.profile) {
            self.record.on_question(PolicyQuestion::at_connect());
        }
    }

    fn outcome(&self, tcp: &TcpFacts) -> Outcome {
        use FlowOutcome::{Refused, Unanswered, Unreachable};
        // Without TCP facts the calls decide; with them, a call may only mean that the capture is over.
        let closed = if tcp.outcome.is_some() { tcp.closed_by } else { self.closed };
        match (tcp.outcome, closed) {
            _ if self.quit => Outcome::Quit,
            (Some(Refused | Unanswered | Unreachable), _) => Outcome::UpstreamUnavailable,
            (_, Some(Side::Client)) => Outcome::ClientClosed,
            (_, Some(Side::Server)) => Outcome::UpstreamClosed,
            (_, None) => Outcome::CaptureEnded,
        }
    }

    fn held_by(&self, side: Side) -> &[u8] {
        self.held.get(side.index()).map_or(&[], Vec::as_slice)
    }

    fn take_held(&mut self, side: Side) -> Vec<u8> {
        self.held.get_mut(side.index()).map(std::mem::take).unwrap_or_default()
    }

    /// The time of the first byte from `side` that is interpreted now.
    fn since(&self, side: Side) -> Timestamp {
        self.since.get(side.index()).copied().unwrap_or(self.now)
    }

    fn has_sent(&self, side: Side) -> bool {
        self.has_sent.get(side.index()).is_some_and(|has_sent| *has_sent)
    }

    fn set_has_sent(&mut self, side: Side) {
        if let Some(has_sent) = self.has_sent.get_mut(side.index()) {
            *has_sent = true;
        }
    }

    /// Interprets the held bytes of `side`, then `fresh`, as far as possible. Holds the rest.
    fn feed(&mut self, side: Side, fresh: &[u8], out: &mut Output) {
        let mut held = self.take_held(side);
        if held.is_empty()
            && let Some(since) = self.since.get_mut(side.index())
        {
            *since = self.now;
        }
        let rest = if held.is_empty() {
            let used = self.interpret(side, fresh, out);
            fresh.get(used..).unwrap_or_default().to_vec()
        } else {
            held.extend_from_slice(fresh);
            let used = self.interpret(side, &held, out);
            held.drain(..used);
            held
        };
        if let Some(place) = self.held.get_mut(side.index()) {
            *place = rest;
        }
    }

    fn interpret(&mut self, side: Side, input: &[u8], out: &mut Output) -> usize {
        match side {
            Side::Client => self.on_client_bytes(input, out),
            Side::Server => self.on_server_bytes(input, out),
        }
    }

    /// How much of `rest` is skipped.
    fn skipped(&mut self, side: Side, rest: &[u8]) -> usize {
        let at = self.since(side);
        let Some(skipping) = self.skipping.get_mut(side.index()) else {
            return 0;
        };
        match *skipping {
            Skipping::Nothing => 0,
            Skipping::Line => {
                let end = memchr::memchr(b'\n', rest).map(|lf| lf + 1);
                if end.is_some() {
                    *skipping = Skipping::Nothing;
                }
                let count = end.unwrap_or(rest.len());
                self.transcript.line(side, rest.get(..count).unwrap_or_default(), at);
                count
            }
            Skipping::Record(left) => {
                let count = left.min(rest.len());
                let left = left - count;
                *skipping = if left == 0 { Skipping::Nothing } else { Skipping::Record(left) };
                self.transcript.encrypted(side, count as u64, at);
                count
            }
        }
    }

    /// How many of `length` omitted bytes belong to a TLS record that is skipped.
    fn skip_omitted_record(&mut self, side: Side, length: u64, at: Timestamp) -> u64 {
        let Some(Skipping::Record(left)) = self.skipping.get(side.index()) else {
            return 0;
        };
        let count = usize::try_from(length).unwrap_or(usize::MAX).min(*left);
        let left = left - count;
        self.skip(side, if left == 0 { Skipping::Nothing } else { Skipping::Record(left) });
        self.transcript.encrypted(side, count as u64, at);
        count as u64
    }

    fn skip(&mut self, side: Side, what: Skipping) {
        if let Some(skipping) = self.skipping.get_mut(side.index()) {
            *skipping = what;
        }
    }

    /// The server sent something, or something of it is missing: the client's next bytes are a new turn.
    fn begin_turn(&mut self) {
        self.turn = ClientTurn { is_complete: true, ..ClientTurn::default() };
    }

    /// The oldest pending command is about to be answered, or never will be. Notes the question that the gateway would have
    /// put to the policy, from what the earlier replies confirmed.
    fn note_question(&mut self) {
        let state = self.session.state();
        let question = match self.session.oldest_pending() {
            Some(ExpectedReply::Rcpt { recipient, is_question: true }) => {
                let Some(current) = state.current() else { return };
                let sender = Some(&current.sender);
                PolicyQuestion::new(PolicyStage::Rcpt, state, sender, Some(recipient))
            }
            Some(ExpectedReply::Starttls { is_question: true }) => {
                PolicyQuestion::new(PolicyStage::Helo, state, None, None)
            }
            Some(ExpectedReply::Message { .. }) => match self.question_at_end() {
                Some(question) => question,
                None => return,
            },
            _ => return,
        };
        self.record.on_question(question);
    }

    /// The pending commands, with `but_last` all but the last, will never be seen answered.
    fn note_unanswered(&mut self, but_last: bool) {
        loop {
            if self.session.pending_count() > usize::from(but_last) {
                self.note_question();
            }
            if self.session.pop_unanswered(but_last).is_none() {
                return;
            }
        }
    }

    /// No reply comes any more. Held client bytes are interpreted as far as possible without.
    fn on_server_silent(&mut self, out: &mut Output) {
        self.reject_ambiguous_end(out);
        if self.tracking == Tracking::Paired && !self.held_by(Side::Client).is_empty() {
            self.tracking = Tracking::Unpaired;
            self.forget_replies();
        }
        self.feed(Side::Client, &[], out);
    }

    /// Replies were missed. The one that the client waits for may still come; no other will.
    fn forget_replies(&mut self) {
        self.note_unanswered(self.session.wait().is_some());
    }

    /// An unknown number of replies is missing: the commands before stay unanswered.
    fn on_replies_missed(&mut self, cause: Desync, out: &mut Output) {
        if self.end_uncertain || self.ambiguous_end.is_some() {
            return self.lose(cause, out); // The message's reply may be among them.
        }
        if self.tracking == Tracking::Paired {
            self.record.on_desync(cause, out);
            self.tracking = Tracking::Unpaired;
        }
        self.forget_replies();
        self.begin_turn();
        self.feed(Side::Client, &[], out);
    }

    /// The client's bytes are not known to be what they look like any more.
    fn lose(&mut self, cause: Desync, out: &mut Output) {
        if self.tracking != Tracking::Resync {
            self.record.on_desync(cause, out);
        }
        self.tracking = Tracking::Resync;
        self.note_unanswered(false);
        self.session.abandon_transaction();
        self.session.assume_command();
        self.lose_message();
        self.in_chunks = false;
        self.ended_messages.clear();
        (self.end_uncertain, self.content_omitted, self.ambiguous_end) = (false, false, None);
        self.turn = ClientTurn::default();
        self.tls_seen = [false; 2];
    }

    /// The dialogue is followed again.
    fn regain(&mut self) {
        self.tracking = Tracking::Paired;
        self.record.on_resync();
    }
}
