//! A witness of a dialogue: hears what both sides say, says nothing, and records it as the relay would have.
//!
//! It has the relay's session machine, its recorder and its judgement; what differs is what a listener cannot do. Every
//! command goes to the server as it is, and the server may be any: what the policy would have refused is recorded as the
//! verdict, and the dialogue goes on as it went. Nothing is mended, nothing is filtered.
//!
//! Captures have holes, and a guess would be worse than a hole. Where octets are missing, see [`Footing`]; what counts as
//! proof that the thread is found again stands in `resync`. A hole within a BDAT chunk or within TLS loses nothing.
//!
//! Sources leave out the content of messages but for its end, and that loses nothing either. Where what they left out
//! decides whether a line is the end of data, the octets behind it wait: the server's reply says that it was, a further
//! end among them that it was not.
//!
//! Memory: at most [`MAX_HELD`] octets of each side, the longest line and the longest reply among them, and the record.
//! Octets of messages are never copied.

mod client;
mod resync;
mod server;
mod transcript;

use std::sync::Arc;

use self::transcript::Transcript;
use super::hello::Hellos;
use super::judgement::Judgement;
use super::recorder::Recorder;
use super::{
    Anomaly, BareNewlines, Desync, Event, Outcome, Output, Profile, SessionRecord, Side, TcpFacts,
    TranscriptEntry,
};
use crate::addr::{ClientAddr, OriginalDst};
use crate::smtp::{Extensions, Session};
use crate::stream::FlowOutcome;
use crate::time::Timestamp;

/// Octets of one side that may wait for the other's, or for the end of a line or reply.
const MAX_HELD: usize = 128 * 1024;
/// Octets of one command line. Servers read longer ones than the gateway does.
const MAX_LINE: usize = 64 * 1024;
/// Octets behind an end of data that is in doubt. More than a client pipelines there is content.
const MAX_DOUBT: usize = 2048;

/// How well the dialogue is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Footing {
    /// Each reply is paired with what it answers.
    Sure,
    /// Replies were missed. The client is followed, its commands are counted, and replies are counted but not paired:
    /// codes stay unknown.
    Unpaired,
    /// Commands were missed. Neither side's octets are known to be what they look like; replies are counted.
    Resync,
}

/// What the client said since the server's last word.
#[derive(Debug, Default)]
struct Flight {
    /// Things that are answered: commands, AUTH lines, ends of data. Lines of any kind in [`Footing::Resync`].
    said: usize,
    /// It began after a word of the server's, and nothing of it is missing.
    whole: bool,
    /// Whatever was asked before it is answered: for its first word, a message, the client had to wait for the go-ahead.
    begins_with_message: bool,
    /// In [`Footing::Resync`] the last line, if it looks like a command.
    line: Vec<u8>,
}

/// Octets that are passed over, however they are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    Nothing,
    /// The rest of a line.
    Line,
    /// So many octets of a record of TLS, in [`Footing::Resync`].
    Record(usize),
}

/// Both sides of one recorded dialogue.
#[derive(Debug)]
pub struct Observer {
    session: Session,
    recorder: Recorder,
    judgement: Judgement,
    hellos: Hellos,
    footing: Footing,
    flight: Flight,
    /// What the server offers, and what it offered before an EHLO that is not answered.
    extensions: Extensions,
    offered_before: Extensions,
    /// By [`Side::index`]: octets that cannot be understood yet.
    held: [Vec<u8>; 2],
    /// Octets of the server's that are whole lines of a reply.
    reply_lines: usize,
    /// By [`Side::index`]: since when.
    since: [Timestamp; 2],
    now: Timestamp,
    transcript: Transcript,
    midstream: bool,
    opened: bool,
    /// By [`Side::index`]: anything was heard or missed.
    heard: [bool; 2],
    /// By [`Side::index`]: what is passed over without being looked at.
    passing: [Passing; 2],
    /// In [`Footing::Resync`], by [`Side::index`]: records of TLS were seen.
    tls: [bool; 2],
    /// Octets of the message are missing, and its end may be among them.
    end_uncertain: bool,
    /// Octets of the message were left out.
    left_out: bool,
    /// Since then what may be the end of data waits for the server's word, and what was said behind it with it.
    doubt: Option<Timestamp>,
    plaintext_counted: bool,
    /// An HTTP or PROXY line is recognised before it is whole.
    junk_counted: bool,
    /// The first replies to come for which the gateway would not have waited, and which are judged already.
    judged: usize,
    /// The client said QUIT and was answered: whatever it says now, nobody hears it.
    quit: bool,
    closed: Option<Side>,
}

impl Observer {
    /// A dialogue whose connection began at `at`; with `midstream` the capture does not hold its beginning.
    pub fn new(
        profile: Arc<Profile>,
        client: ClientAddr,
        server: OriginalDst,
        at: Timestamp,
        midstream: bool,
    ) -> Self {
        let mut session = Session::new(BareNewlines::Pass, MAX_LINE);
        if midstream {
            session.presume_command();
        }
        Self {
            session,
            recorder: Recorder::new(client, server, at),
            judgement: Judgement::new(profile, client.ip()),
            hellos: Hellos::default(),
            footing: if midstream { Footing::Resync } else { Footing::Sure },
            flight: Flight::default(),
            extensions: Extensions::default(),
            offered_before: Extensions::default(),
            held: [Vec::new(), Vec::new()],
            reply_lines: 0,
            since: [at; 2],
            now: at,
            transcript: Transcript::default(),
            midstream,
            opened: false,
            heard: [false; 2],
            passing: [Passing::Nothing; 2],
            tls: [false; 2],
            end_uncertain: false,
            left_out: false,
            doubt: None,
            plaintext_counted: false,
            junk_counted: false,
            judged: 0,
            quit: false,
            closed: None,
        }
    }

    /// Keeps the dialogue too, up to 64 MiB of it.
    pub const fn keep_transcript(&mut self) {
        self.transcript.want();
    }

    /// What was said, if [`Observer::keep_transcript`] came before it.
    pub fn take_transcript(&mut self) -> Vec<TranscriptEntry> {
        self.transcript.take()
    }

    /// The next octets that `from` said. Only the events of `out` are used.
    pub fn data(&mut self, from: Side, octets: &[u8], at: Timestamp, out: &mut Output) {
        self.begin(at, out);
        if octets.is_empty() {
            return;
        }
        self.recorder.bytes(from, octets.len() as u64, out);
        if from == Side::Client {
            self.note_heard(from);
        }
        self.hear(from, octets, out);
        if self.waiting(Side::Client).len() > MAX_HELD {
            // The reply that it all waits for was missed, or the client does not care for replies.
            self.replies_missed(Desync::Overflow, out);
        }
    }

    /// `length` octets of `from` are missing for good.
    pub fn gap(&mut self, from: Side, length: u64, at: Timestamp, out: &mut Output) {
        self.begin(at, out);
        if length == 0 || self.quit {
            return;
        }
        if self.session.is_opaque() {
            self.transcript.gap(from, length, at);
            return self.hellos.gap(from);
        }
        if from == Side::Client {
            self.end_was_none(out);
        }
        self.recorder.anomaly(Anomaly::Gap, out);
        let held = self.take_held(from);
        if from == Side::Server {
            self.reply_lines = 0;
        }
        self.transcript.line(from, &held, self.said_at(from));
        self.transcript.gap(from, length, at);
        self.pass(from, Passing::Nothing);
        match from {
            Side::Client => self.client_gap(length, out),
            Side::Server if self.footing == Footing::Resync => self.word_is_over(),
            Side::Server => self.replies_missed(Desync::ServerGap, out),
        }
        self.note_heard(from);
    }

    /// The next `length` octets of `from` were left out on purpose: content of a message, or TLS. Nothing is lost, unless
    /// the dialogue is elsewhere.
    pub fn omitted(&mut self, from: Side, length: u64, at: Timestamp, out: &mut Output) {
        self.begin(at, out);
        if length == 0 {
            return;
        }
        self.recorder.bytes(from, length, out);
        if self.quit {
            return;
        }
        if self.session.is_opaque() {
            self.transcript.encrypted(from, length, at);
            return self.hellos.gap(from);
        }
        let mut left = length - self.record_omitted(from, length, at);
        if from == Side::Client {
            left -= self.content_omitted(left, at, out);
        }
        self.gap(from, left, at, out);
    }

    /// Lets go of what is held, for want of room: as if it had not been captured.
    pub fn give_up(&mut self, at: Timestamp, out: &mut Output) {
        self.end_was_none(out);
        for side in Side::ALL {
            let held = self.waiting(side).len() as u64;
            self.gap(side, held, at, out);
        }
    }

    /// `from` says no more.
    pub fn closed(&mut self, from: Side, at: Timestamp, out: &mut Output) {
        self.begin(at, out);
        self.closed.get_or_insert(from);
        self.transcript.closed(from, at);
        if from == Side::Server {
            self.server_is_silent(out);
        }
    }

    /// The dialogue is over, or the capture is. `tcp` is what was seen of the connection below it.
    pub fn finish(&mut self, tcp: TcpFacts, at: Timestamp, out: &mut Output) -> SessionRecord {
        self.begin(at, out);
        self.server_is_silent(out);
        let outcome = self.outcome(&tcp);
        self.recorder.tcp(tcp);
        self.recorder.finish(outcome, self.judgement.verdict(), at, out)
    }

    /// Octets of both sides that wait to be understood.
    pub fn held(&self) -> usize {
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
            self.recorder.desync(Desync::Midstream, out);
        }
        if let Some(refusal) = self.judgement.at_connect() {
            self.judgement.refused(refusal, out);
            self.judgement.ends();
        }
    }

    fn outcome(&self, tcp: &TcpFacts) -> Outcome {
        use FlowOutcome::{Refused, Unanswered, Unreachable};
        // Without facts of TCP the calls tell; with them, those may only have told that the capture is over.
        let closed = if tcp.outcome.is_some() { tcp.closed_by } else { self.closed };
        match (tcp.outcome, closed) {
            _ if self.quit => Outcome::Quit,
            (Some(Refused | Unanswered | Unreachable), _) => Outcome::UpstreamUnavailable,
            (_, Some(Side::Client)) => Outcome::ClientClosed,
            (_, Some(Side::Server)) => Outcome::UpstreamClosed,
            (_, None) => Outcome::CaptureEnded,
        }
    }

    fn waiting(&self, side: Side) -> &[u8] {
        self.held.get(side.index()).map_or(&[], Vec::as_slice)
    }

    fn take_held(&mut self, side: Side) -> Vec<u8> {
        self.held.get_mut(side.index()).map(std::mem::take).unwrap_or_default()
    }

    /// When the octets of `side` that are looked at began to be said.
    fn said_at(&self, side: Side) -> Timestamp {
        self.since.get(side.index()).copied().unwrap_or(self.now)
    }

    fn was_heard(&self, side: Side) -> bool {
        self.heard.get(side.index()).is_some_and(|heard| *heard)
    }

    pub(super) fn note_heard(&mut self, side: Side) {
        if let Some(heard) = self.heard.get_mut(side.index()) {
            *heard = true;
        }
    }

    /// Understands what can be understood of `side`: what was held, then `fresh`. Holds the rest.
    fn hear(&mut self, side: Side, fresh: &[u8], out: &mut Output) {
        let mut held = self.take_held(side);
        if held.is_empty()
            && let Some(since) = self.since.get_mut(side.index())
        {
            *since = self.now;
        }
        let rest = if held.is_empty() {
            let used = self.understand(side, fresh, out);
            fresh.get(used..).unwrap_or_default().to_vec()
        } else {
            held.extend_from_slice(fresh);
            let used = self.understand(side, &held, out);
            held.drain(..used);
            held
        };
        if let Some(place) = self.held.get_mut(side.index()) {
            *place = rest;
        }
    }

    /// How much of `rest` is passed over.
    fn pass_over(&mut self, side: Side, rest: &[u8]) -> usize {
        let at = self.said_at(side);
        let Some(passing) = self.passing.get_mut(side.index()) else {
            return 0;
        };
        match *passing {
            Passing::Nothing => 0,
            Passing::Line => {
                let end = memchr::memchr(b'\n', rest).map(|lf| lf + 1);
                if end.is_some() {
                    *passing = Passing::Nothing;
                }
                let count = end.unwrap_or(rest.len());
                self.transcript.line(side, rest.get(..count).unwrap_or_default(), at);
                count
            }
            Passing::Record(left) => {
                let count = left.min(rest.len());
                let left = left - count;
                *passing = if left == 0 { Passing::Nothing } else { Passing::Record(left) };
                self.transcript.encrypted(side, count as u64, at);
                count
            }
        }
    }

    /// How much of `length` octets that were left out is of a record of TLS that is passed over.
    fn record_omitted(&mut self, side: Side, length: u64, at: Timestamp) -> u64 {
        let Some(Passing::Record(left)) = self.passing.get(side.index()) else {
            return 0;
        };
        let count = usize::try_from(length).unwrap_or(usize::MAX).min(*left);
        let left = left - count;
        self.pass(side, if left == 0 { Passing::Nothing } else { Passing::Record(left) });
        self.transcript.encrypted(side, count as u64, at);
        count as u64
    }

    fn pass(&mut self, side: Side, what: Passing) {
        if let Some(passing) = self.passing.get_mut(side.index()) {
            *passing = what;
        }
    }

    fn understand(&mut self, side: Side, input: &[u8], out: &mut Output) -> usize {
        match side {
            Side::Client => self.client(input, out),
            Side::Server => self.server(input, out),
        }
    }

    /// The server said something, or something of it is missing: the client's next words are a new flight.
    fn word_is_over(&mut self) {
        self.flight = Flight { whole: true, ..Flight::default() };
    }

    /// No reply will come any more. What waits for one is read as far as that goes without it.
    fn server_is_silent(&mut self, out: &mut Output) {
        self.end_was_none(out);
        if self.footing == Footing::Sure && !self.waiting(Side::Client).is_empty() {
            self.footing = Footing::Unpaired;
            self.session.replies_missed();
        }
        self.hear(Side::Client, &[], out);
    }

    /// Replies are missing, nobody knows how many: what was asked stays unanswered.
    fn replies_missed(&mut self, cause: Desync, out: &mut Output) {
        if self.end_uncertain || self.doubt.is_some() {
            return self.lose(cause, out); // The message's may be among them.
        }
        if self.footing == Footing::Sure {
            self.recorder.desync(cause, out);
            self.footing = Footing::Unpaired;
        }
        self.session.replies_missed();
        self.recorder.replies_missed(false);
        self.judged = 0;
        self.word_is_over();
        self.hear(Side::Client, &[], out);
    }

    /// The thread is lost: what the client says is not known to be what it looks like.
    fn lose(&mut self, cause: Desync, out: &mut Output) {
        if self.footing != Footing::Resync {
            self.recorder.desync(cause, out);
        }
        self.footing = Footing::Resync;
        self.session.presume_command();
        self.recorder.no_transaction();
        self.recorder.replies_missed(false);
        (self.end_uncertain, self.left_out, self.doubt) = (false, false, None);
        self.judged = 0;
        self.flight = Flight::default();
        self.tls = [false; 2];
    }

    /// The thread is found.
    fn regain(&mut self) {
        self.footing = Footing::Sure;
        self.recorder.resync();
    }
}
