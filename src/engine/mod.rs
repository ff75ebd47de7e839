//! One conversation: bytes, time and answers in; actions and events out. Knows no socket, clock or metric library.
//!
//! Layer 3. Two may have it: the [`Engine`] takes part in it, as the live relay does; a [`Observer`] only hears it, as from a
//! capture.
//!
//! The engine's driver feeds what each side says to [`Engine::client`] and
//! [`Engine::upstream`], carries out the [`Action`]s in order and passes the [`Event`]s on. What the engine did not consume
//! the driver keeps and offers again, in front of what came since, after anything else happened.
//!
//! The engine's rules, in short: a reply that upstream did not give is never a 2xx to a message; replies leave in command
//! order; nothing that a laxer server could read differently leaves at all; when in doubt 421, so that nothing is lost.

mod client;
mod commands;
mod content;
mod envelope;
mod event;
mod hello;
mod identity;
mod inquiry;
mod judgement;
mod options;
mod output;
mod record;
mod recorder;
mod review;
mod rulings;
mod said;
mod tagging;
mod upstream;
mod waiting;
mod witness;

use std::sync::Arc;
use std::time::Duration;

pub use self::event::{
    Anomaly, AttemptOutcome, Desync, Direction, Event, Observe, Outcome, Phase, Refusal,
    ReplySource, Starttls,
};
pub use self::options::{Limits, Pregreet, Profile, RefuseAt, SmtpOptions, Timeouts};
pub use self::output::{Action, Output};
pub use self::record::{
    Endpoint, Phases, RecipientRecord, SessionRecord, ShadowRecord, SmtpFacts, TcpFacts, Tls,
    TransactionRecord, VerdictRecord,
};
pub use self::review::{Reviewed, review};
pub use self::rulings::PolicyOutcome;
pub use self::said::{TranscriptEntry, TranscriptItem};
pub use self::witness::Observer;
pub use crate::smtp::BareNewlines;

use self::hello::Hellos;
use self::identity::Identity;
use self::inquiry::Inquiry;
use self::judgement::Judgement;
use self::recorder::Recorder;
pub use crate::addr::Side;
use crate::addr::{ClientAddr, Family, OriginalDst, UpstreamAddr};
use crate::smtp::{EnhancedCode, ExpectedReply, Extensions, OwnReply, Session, Wait};
use crate::time::Timestamp;

/// How long upstream may take to close after its 221, before we do.
const LEAVING: Duration = Duration::from_secs(5);

/// What a client hears that speaks first, if that is refused.
const PREGREET: &str = "you spoke before the greeting (RFC 5321 section 3.1)";

/// Where the conversation as a whole stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Refused in place of the greeting; only QUIT is still obeyed (RFC 5321 §3.1).
    TurnedAway,
    /// A message was refused in the middle of it, and upstream is gone: the rest of it is read and dropped.
    Dropping,
    /// The refusal was told, and only QUIT is still obeyed.
    Refused,
    /// The client read its 221; upstream closes first, so that the TIME_WAIT is not ours.
    Leaving,
    Closing(Outcome),
}

/// The transaction that the client's commands belong to now.
#[derive(Clone, Copy, Debug, Default)]
struct Current {
    /// MAIL was forwarded and the message's fate is not known.
    open: bool,
    /// MAIL came while another transaction was open: if upstream refuses this one, that one goes on.
    nested: bool,
    /// Recipients that upstream was asked about, and that we refused ourselves.
    asked: u32,
    refused: u32,
}

/// One client's conversation with an upstream.
#[derive(Debug)]
pub struct Engine {
    profile: Arc<Profile>,
    timeouts: Timeouts,
    session: Session,
    recorder: Recorder,
    judgement: Judgement,
    /// What the policy rules want to know; `None` without rules.
    inquiry: Option<Box<Inquiry>>,
    /// Upstream's greeting waits for the rules.
    greeting_held: bool,
    /// Upstream closed while its greeting was held back.
    closed_early: bool,
    hellos: Hellos,
    identity: Identity,
    stage: Stage,
    current: Current,
    /// What the chunk asks that upstream does not get.
    unwanted: ExpectedReply,
    extensions: Extensions,
    /// The time of what is happening.
    now: Timestamp,
    /// When either side last brought the conversation forward.
    active: Timestamp,
    /// Bytes that came while nothing may come were counted already.
    impatience_counted: bool,
    /// Upstream's last reply was one after which it closes, and the client knows.
    said_farewell: bool,
    /// Octets of the client wait for a reply to be understood.
    held_back: bool,
    client_closed: bool,
    /// Upstream was told that no more comes.
    upstream_told: bool,
    upstream_closed: bool,
    draining: bool,
}

impl Engine {
    /// A session that was accepted at `at`. What the access rules say of the client is decided here.
    pub fn new(
        profile: Arc<Profile>,
        timeouts: Timeouts,
        client: ClientAddr,
        destination: OriginalDst,
        at: Timestamp,
    ) -> Self {
        Self {
            session: Session::new(profile.smtp.bare_newlines, profile.limits.line_length),
            recorder: Recorder::new(client, destination, at),
            identity: Identity::new(profile.xclient, client, destination),
            judgement: Judgement::new(Arc::clone(&profile), client.ip()),
            inquiry: Inquiry::new(&profile, client, destination),
            greeting_held: false,
            closed_early: false,
            profile,
            timeouts,
            hellos: Hellos::default(),
            stage: Stage::Running,
            current: Current::default(),
            unwanted: ExpectedReply::Other,
            extensions: Extensions::default(),
            now: at,
            active: at,
            impatience_counted: false,
            said_farewell: false,
            held_back: false,
            client_closed: false,
            upstream_told: false,
            upstream_closed: false,
            draining: false,
        }
    }

    /// Before any upstream is involved. `over` is a limit that spans sessions, or what must come first and did not. Returns
    /// whether an upstream is needed: not for a client that is turned away in place of the greeting.
    pub fn open(&mut self, over: Option<Refusal>, out: &mut Output) -> bool {
        out.event(Event::SessionOpened);
        match (over, self.judgement.at_connect()) {
            (Some(refusal), _) => self.turn_away_at_once(refusal, out),
            (None, Some(refusal)) => self.turn_away(refusal, out),
            (None, None) => self.inquire(out),
        }
        self.needs_upstream()
    }

    /// An upstream took the connection; its greeting comes next.
    pub fn connected(&mut self, upstream: UpstreamAddr, at: Timestamp, out: &mut Output) {
        self.recorder.connected(upstream, at, out);
        (self.now, self.active) = (at, at);
    }

    /// No upstream took the connection.
    pub fn unavailable(&mut self, out: &mut Output) {
        if self.stage == Stage::TurnedAway {
            return; // The client was told already, and something else.
        }
        let code = EnhancedCode::new(4, 3, 2);
        let text = "the mail server behind this gateway is not available; try again later";
        self.fail(code, text, Refusal::UpstreamUnavailable, Outcome::UpstreamUnavailable, out);
    }

    /// `side` will send no more; everything it sent was offered, and what is left was not consumed.
    pub fn closed(&mut self, side: Side, out: &mut Output) {
        match side {
            Side::Client => {
                self.client_closed = true;
                self.client_is_closed(out);
            }
            Side::Server => self.upstream_is_closed(out),
        }
    }

    /// When [`Engine::tick`] has something to do, unless something happens before.
    pub fn deadline(&self) -> Option<Timestamp> {
        let patience = match self.stage {
            Stage::Closing(_) => return None,
            Stage::Leaving => LEAVING,
            Stage::TurnedAway | Stage::Refused => self.timeouts.command,
            Stage::Dropping => self.timeouts.data,
            Stage::Running if self.session.is_opaque() => self.timeouts.opaque,
            Stage::Running if self.session.in_content() => self.timeouts.data,
            Stage::Running => match self.session.owed() {
                Some(ExpectedReply::Greeting) => self.timeouts.greeting,
                Some(ExpectedReply::Message { .. }) => self.timeouts.acceptance,
                Some(_) => self.timeouts.reply,
                None => self.timeouts.command,
            },
        };
        let due = self.active + patience;
        Some(match self.verdict_due() {
            // The client waits for us, and not we for it.
            Some(verdict) if self.session.owed().is_none() => verdict,
            Some(verdict) => due.min(verdict),
            None => due,
        })
    }

    /// Time has passed; does nothing before the [`Engine::deadline`]. As after [`Engine::answered`], both sides' octets are to
    /// be offered again.
    pub fn tick(&mut self, at: Timestamp, out: &mut Output) {
        if self.deadline().is_none_or(|deadline| at < deadline) {
            return;
        }
        self.now = at;
        if self.verdict_due().is_some_and(|due| at >= due) {
            return self.give_up_waiting(out);
        }
        match self.stage {
            Stage::Leaving => return self.close(Outcome::Quit, out),
            Stage::Running if self.session.is_opaque() => {
                return self.close(Outcome::Timeout, out);
            }
            _ => {}
        }
        let upstream_is_late = self.stage == Stage::Running
            && !self.session.in_content()
            && self.session.owed().is_some();
        let text = if upstream_is_late {
            "the mail server behind this gateway did not answer in time; try again later"
        } else {
            "you were silent for too long"
        };
        self.fail(EnhancedCode::new(4, 4, 2), text, Refusal::Timeout, Outcome::Timeout, out);
    }

    /// The gateway shuts down: a session that is idle ends now, one in a transaction ends after it.
    pub fn drain(&mut self, out: &mut Output) {
        self.draining = true;
        self.end_if_drained(out);
    }

    /// The gateway's patience is over.
    pub fn abort(&mut self, outcome: Outcome, out: &mut Output) {
        if self.session.is_opaque() {
            return self.close(outcome, out);
        }
        let (text, refusal) = match outcome {
            Outcome::Shutdown => {
                ("the service is shutting down; try again later", Refusal::Shutdown)
            }
            _ => ("internal error; try again later", Refusal::UpstreamUnavailable),
        };
        self.fail(EnhancedCode::new(4, 3, 2), text, refusal, outcome, out);
    }

    /// Octets that the driver may pass from `side` without showing them: all of an opaque session, the rest of a chunk.
    pub fn passable(&self, side: Side) -> u64 {
        match (self.stage, side) {
            (Stage::Running, _) if self.session.is_encrypted() => u64::MAX,
            (Stage::Running, Side::Client) => self.session.chunk_remaining(),
            _ => 0,
        }
    }

    /// The driver passed `count` octets from `side` on, no more than [`Engine::passable`] allowed.
    pub fn passed(&mut self, side: Side, count: u64, at: Timestamp, out: &mut Output) {
        (self.now, self.active) = (at, at);
        self.recorder.bytes(side, count, out);
        if side == Side::Client && !self.session.is_opaque() {
            self.chunk_passed(count, out);
        }
    }

    /// The client's plaintext that was read and thrown away after [`Action::DiscardClient`].
    pub fn discarded(&mut self, count: usize, out: &mut Output) {
        if count > 0 {
            self.recorder.bytes(Side::Client, count as u64, out);
            self.plaintext_after_starttls(out);
        }
    }

    fn plaintext_after_starttls(&mut self, out: &mut Output) {
        if !self.impatience_counted {
            self.impatience_counted = true;
            self.recorder.anomaly(Anomaly::StarttlsPlaintext, out);
        }
    }

    pub const fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Closing(_))
    }

    /// The client said QUIT and read the reply.
    pub const fn has_quit(&self) -> bool {
        matches!(self.stage, Stage::Leaving | Stage::Closing(Outcome::Quit))
    }

    /// Whether the conversation still wants an upstream: not after the client was refused in place of the greeting.
    pub const fn needs_upstream(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    /// Before the greeting was relayed.
    pub fn awaits_greeting(&self) -> bool {
        self.session.owed() == Some(ExpectedReply::Greeting)
    }

    /// The conversation is over; the record is complete.
    pub fn finish(&mut self, at: Timestamp, out: &mut Output) -> SessionRecord {
        let outcome = match self.stage {
            Stage::Closing(outcome) => outcome,
            Stage::Leaving => Outcome::Quit,
            _ if self.upstream_closed => Outcome::UpstreamClosed,
            _ => Outcome::ClientClosed,
        };
        let verdict = self.judgement.verdict();
        let (verdict, facts) = match &mut self.inquiry {
            Some(inquiry) => inquiry.finish(verdict, out),
            None => (verdict, None),
        };
        SessionRecord { facts, ..self.recorder.finish(outcome, verdict, at, out) }
    }

    /// 421 in place of the greeting, and the end.
    fn turn_away_at_once(&mut self, refusal: Refusal, out: &mut Output) {
        let (subject, detail, text, outcome) = match refusal {
            Refusal::LimitSessions => (3, 2, "too many sessions; try again later", Outcome::Limit),
            Refusal::LimitClientSessions => {
                (7, 0, "too many sessions from your network", Outcome::Limit)
            }
            Refusal::LimitClientRate => {
                (7, 0, "too many new sessions from your network; slow down", Outcome::Limit)
            }
            Refusal::Door => {
                let text = match self.recorder.family() {
                    Family::Ipv4 => "mail is not accepted over IPv4 for now; try IPv6",
                    Family::Ipv6 => "mail is not accepted over IPv6 for now; try IPv4",
                };
                (3, 2, text, Outcome::Refused)
            }
            Refusal::ProxyHeader => (7, 0, "PROXY protocol header expected", Outcome::Protocol),
            _ => (3, 2, "service not available", Outcome::UpstreamUnavailable),
        };
        self.fail(EnhancedCode::new(4, subject, detail), text, refusal, outcome, out);
    }

    /// 554 or 421 in place of the greeting.
    fn turn_away(&mut self, refusal: Refusal, out: &mut Output) {
        let reason = self.rule().to_owned();
        match refusal {
            Refusal::AccessReject => {
                self.instead_of_greeting(refusal, EnhancedCode::new(5, 7, 1), &reason, out);
            }
            Refusal::Pregreet => {
                let code = EnhancedCode::new(5, 5, 1);
                self.instead_of_greeting(refusal, code, PREGREET, out);
                out.act(Action::AbandonUpstream);
            }
            _ => self.fail(EnhancedCode::new(4, 7, 1), &reason, refusal, Outcome::Refused, out),
        }
    }

    fn instead_of_greeting(
        &mut self,
        refusal: Refusal,
        code: EnhancedCode,
        text: &str,
        out: &mut Output,
    ) {
        self.stage = Stage::TurnedAway;
        self.judgement.refused(refusal, out);
        self.send(ExpectedReply::Other, OwnReply::new(554, code, text), out);
    }

    /// 421 now, whatever is pending, and the end. Upstream does not get to finish what it has.
    fn fail(
        &mut self,
        code: EnhancedCode,
        text: &str,
        refusal: Refusal,
        outcome: Outcome,
        out: &mut Output,
    ) {
        self.fail_instead(ExpectedReply::Other, code, text, refusal, outcome, out);
    }

    /// The same in place of the reply to `asked`, which the client said last.
    fn fail_instead(
        &mut self,
        asked: ExpectedReply,
        code: EnhancedCode,
        text: &str,
        refusal: Refusal,
        outcome: Outcome,
        out: &mut Output,
    ) {
        match self.stage {
            Stage::Closing(_) => return,
            Stage::Leaving => return self.close(Outcome::Quit, out),
            Stage::Running | Stage::TurnedAway | Stage::Dropping | Stage::Refused => {}
        }
        self.judgement.refused(refusal, out);
        let text = format!("{} {text}", self.profile.smtp.hostname);
        // To the client it answers what it waits for.
        let asked = match self.session.unanswered() {
            Some(ExpectedReply::Greeting | ExpectedReply::Own(_)) | None => asked,
            Some(owed) => owed,
        };
        self.send(asked, OwnReply::new(421, code, &text), out);
        out.act(Action::AbandonUpstream);
        self.close(outcome, out);
    }

    /// Answers the client's last command ourselves, in its turn.
    fn answer(
        &mut self,
        asked: ExpectedReply,
        code: u16,
        enhanced: EnhancedCode,
        text: &str,
        out: &mut Output,
    ) {
        if let Some(reply) = self.session.answer(OwnReply::new(code, enhanced, text), asked) {
            self.send(asked, reply, out);
        }
    }

    fn send(&mut self, asked: ExpectedReply, reply: OwnReply, out: &mut Output) {
        self.recorder.reply(reply.code, ReplySource::Gateway, out);
        self.recorder.answered(asked, reply.code, Some(reply.enhanced), self.now, out);
        self.judgement.replied(reply.code);
        out.act(Action::ToClient(reply.line));
    }

    /// The hellos of TLS tell its version and who was asked for; the rest passes unseen.
    fn hear_hello(&mut self, side: Side, octets: &[u8]) {
        if let Some(told) = self.hellos.hear(side, octets) {
            self.recorder.hello(told);
        }
    }

    fn close(&mut self, outcome: Outcome, out: &mut Output) {
        if !self.is_closing() {
            self.stage = Stage::Closing(outcome);
            out.act(Action::Close);
        }
    }

    fn end_if_drained(&mut self, out: &mut Output) {
        let idle = match self.stage {
            Stage::TurnedAway | Stage::Refused => true,
            Stage::Running => {
                let busy = self.session.has_pending() || self.session.in_content();
                !busy && !self.current.open && !self.session.is_opaque()
            }
            Stage::Dropping | Stage::Leaving | Stage::Closing(_) => false,
        };
        if self.draining && idle {
            let text = "the service is shutting down; try again later";
            let code = EnhancedCode::new(4, 3, 2);
            self.fail(code, text, Refusal::Shutdown, Outcome::Shutdown, out);
        }
    }

    /// The client speaks although it has to wait for a reply.
    fn impatient(&mut self, wait: Wait, out: &mut Output) {
        let anomaly = match wait {
            Wait::Greeting => Anomaly::Pregreet,
            Wait::Data => Anomaly::EarlyData,
            Wait::Starttls => Anomaly::StarttlsPlaintext,
            Wait::Own | Wait::Auth | Wait::Room => return,
        };
        if self.impatience_counted {
            return;
        }
        self.impatience_counted = true;
        self.recorder.anomaly(anomaly, out);
        if wait == Wait::Greeting
            && let Some(refusal) = self.judgement.pregreet()
        {
            self.turn_away(refusal, out);
        }
    }
}
