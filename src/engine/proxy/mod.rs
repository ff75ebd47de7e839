//! The session between a client and an upstream, as the relay proxies it.
//!
//! The driver feeds each side's bytes to [`Proxy::on_client_data`] and [`Proxy::on_server_data`], carries out the
//! [`Action`]s in order and passes the [`Event`]s on. Bytes that the proxy did not consume the driver keeps, and feeds again
//! in front of later ones after any other input.
//!
//! The rules, in short: only upstream accepts a message; replies leave in command order; nothing leaves that a lax server
//! could parse differently; when in doubt 421, so that no mail is lost.

mod client;
mod client_name;
mod commands;
mod data;
mod deadline;
mod end_of_data;
mod policy;
mod server;
mod tls;
mod trace_header;
mod upstream_tls;
mod xclient;

use std::net::IpAddr;
use std::sync::Arc;

use self::deadline::MessagePace;
use self::trace_header::TraceHeader;
use self::upstream_tls::UpstreamTlsExchange;
use self::xclient::ClientIdentity;
use super::canary_reader::CanaryReader;
use super::event::{Anomaly, Event, Outcome, Refusal, ReplySource, UpstreamFailure};
use super::message_reader::MessageReader;
use super::options::{Profile, Timeouts, TlsMode};
use super::output::{Action, Output};
use super::policy::checks::SessionChecks;
use super::policy::evaluator::PolicyEvaluator;
use super::policy::header::HeaderTagger;
use super::record::SessionRecord;
use super::record::builder::RecordBuilder;
use super::record::tls_hello::TlsHellos;
use crate::addr::{ClientAddr, Family, OriginalDst, Side, UpstreamAddr};
use crate::smtp::{EnhancedCode, ExpectedReply, OwnReply, Session, Wait};
use crate::time::Timestamp;

/// The rejection of a client that sends before the greeting.
const PREGREET: &str = "client sent data before the greeting (RFC 5321 section 3.1)";

/// Where the session as a whole stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Rejected in place of the greeting; only QUIT is still obeyed (RFC 5321 §3.1).
    RejectedGreeting,
    /// A message was rejected in the middle of it, and upstream is gone: the rest of it is discarded.
    DiscardingData,
    /// The rejection was sent; only QUIT is still obeyed.
    RejectedMessage,
    /// The client received its 221. Upstream closes first, so that the TIME_WAIT is not the gateway's.
    Quitting,
    Closing(Outcome),
}

/// One client's session with an upstream.
#[derive(Debug)]
pub struct Proxy {
    profile: Arc<Profile>,
    timeouts: Timeouts,
    session: Session,
    record: RecordBuilder,
    checks: SessionChecks,
    /// `None` without policy rules.
    evaluator: Option<Box<PolicyEvaluator>>,
    /// `None` without rules that tag.
    tagger: Option<Box<HeaderTagger>>,
    /// The current message up to the end of its header section, if canaries are read.
    canary_reader: Option<Box<CanaryReader>>,
    /// The transaction whose chunks it reads, or has read.
    canaries_read_in: Option<u64>,
    /// The current message, if rules are decided at its end.
    message_reader: Option<Box<MessageReader>>,
    /// Of a transaction by its number: the rules that are decided at its end for its first recipient.
    rules_at_end: Option<(u64, u64)>,
    /// Upstream's greeting waits for the rules.
    greeting_is_held: bool,
    /// Upstream closed while its greeting, or the end of a message, was held back.
    closed_early: bool,
    tls_hellos: TlsHellos,
    identity: ClientIdentity,
    upstream_tls: UpstreamTlsExchange,
    client_ip: IpAddr,
    trace: TraceHeader,
    /// Handshakes of the client failed again and again: it is offered none.
    starttls_hidden: bool,
    state: State,
    /// The expected reply to the current chunk, if upstream does not receive it.
    local_chunk_reply: ExpectedReply,
    /// The time of the current input.
    now: Timestamp,
    /// When either side last advanced the session.
    active: Timestamp,
    /// Upstream does not accept the bytes that are there for it.
    upstream_blocked: bool,
    pace: MessagePace,
    /// The early-data anomaly of this wait was counted.
    early_data_counted: bool,
    /// Content came with DATA, and was rejected: so is every later DATA, as by Postfix.
    early_data_rejected: bool,
    /// Upstream's last reply was one after which it closes, and the client has it.
    server_closing: bool,
    /// Client bytes wait for a reply or a decision.
    client_blocked: bool,
    client_closed: bool,
    /// An upstream accepted the connection.
    has_upstream: bool,
    upstream_shutdown_sent: bool,
    upstream_closed: bool,
    draining: bool,
    /// TLS began within the session, of which upstream knows the part before.
    has_restarted: bool,
}

impl Proxy {
    /// A session that was accepted at `at`. The access rules decide on the client here.
    pub fn new(
        profile: Arc<Profile>,
        timeouts: Timeouts,
        client: ClientAddr,
        destination: OriginalDst,
        at: Timestamp,
    ) -> Self {
        Self {
            session: Session::new(profile.smtp.bare_newlines, profile.limits.line_length),
            record: RecordBuilder::new(profile.listener.clone(), client, destination, at),
            identity: ClientIdentity::new(profile.xclient, client, destination),
            upstream_tls: UpstreamTlsExchange::default(),
            client_ip: client.ip(),
            trace: TraceHeader::default(),
            starttls_hidden: false,
            checks: SessionChecks::new(Arc::clone(&profile), client, destination),
            evaluator: PolicyEvaluator::new(&profile, client, destination),
            tagger: HeaderTagger::new(&profile),
            canary_reader: None,
            canaries_read_in: None,
            message_reader: None,
            rules_at_end: None,
            greeting_is_held: false,
            closed_early: false,
            profile,
            timeouts,
            tls_hellos: TlsHellos::default(),
            state: State::Running,
            local_chunk_reply: ExpectedReply::Other,
            now: at,
            active: at,
            upstream_blocked: false,
            pace: MessagePace::default(),
            early_data_counted: false,
            early_data_rejected: false,
            server_closing: false,
            client_blocked: false,
            client_closed: false,
            has_upstream: false,
            upstream_shutdown_sent: false,
            upstream_closed: false,
            draining: false,
            has_restarted: false,
        }
    }

    /// Before any upstream is involved, and with [`TlsMode::Implicit`] after the handshake. `over` is a limit that spans sessions,
    /// or a missing PROXY header. Returns whether an upstream is needed: not for a client that is rejected in place of the
    /// greeting.
    pub fn open(&mut self, over: Option<Refusal>, out: &mut Output) -> bool {
        if self.profile.tls != TlsMode::Implicit {
            out.event(Event::SessionOpened);
        }
        match (over, self.checks.at_connect()) {
            (Some(refusal), _) => self.reject_connection(refusal, out),
            (None, Some(refusal)) => self.reject_in_place_of_greeting(refusal, out),
            (None, None) => {
                self.identity.look_up(out);
                self.start_policy(out);
            }
        }
        self.needs_upstream()
    }

    /// An upstream accepted the connection, `None` if on a Unix socket; its greeting comes next.
    pub fn on_connected(
        &mut self,
        upstream: impl Into<Option<UpstreamAddr>>,
        at: Timestamp,
        out: &mut Output,
    ) {
        self.record.on_connected(upstream.into(), at, out);
        self.has_upstream = true;
        (self.now, self.active) = (at, at);
    }

    /// The configured host name, such as `postfix:25`, whose address accepted the connection, or the Unix socket.
    pub fn name_upstream(&mut self, name: Option<Arc<str>>) {
        self.record.set_upstream_name(name);
    }

    /// No upstream accepted the connection.
    pub fn on_unavailable(&mut self, failure: UpstreamFailure, out: &mut Output) {
        if self.state == State::RejectedGreeting {
            return; // The client has its rejection already.
        }
        self.record.on_upstream_failure(failure.detail);
        if failure.is_local {
            let code = EnhancedCode::new(4, 3, 1);
            let text = "not enough system resources; try again later";
            return self.fail(code, text, Refusal::Resources, Outcome::Error, out);
        }
        let code = EnhancedCode::new(4, 3, 2);
        let text = "mail server is unavailable; try again later";
        self.fail(code, text, Refusal::UpstreamUnavailable, Outcome::UpstreamUnavailable, out);
    }

    /// `side` sends no more; everything it sent was fed, and what is left was not consumed.
    pub fn on_closed(&mut self, side: Side, out: &mut Output) {
        match side {
            Side::Client => {
                self.client_closed = true;
                self.on_client_closed(out);
            }
            Side::Server => self.on_server_closed(out),
        }
    }

    /// The gateway shuts down: an idle session ends now, one in a transaction ends after it.
    pub fn drain(&mut self, out: &mut Output) {
        self.draining = true;
        self.end_if_drained(out);
    }

    /// Ends the session now.
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

    /// Bytes from `side` that the driver may pass on without feeding them: all of an opaque session once its handshake is over,
    /// the rest of a chunk.
    pub fn splice_budget(&self, side: Side) -> u64 {
        match (self.state, side) {
            (State::Running, _) if self.session.is_encrypted() && self.record.tls_is_decided() => {
                u64::MAX
            }
            (State::Running, Side::Client)
                if self.message_reader.is_none() && self.canary_reader.is_none() =>
            {
                self.session.chunk_remaining()
            }
            _ => 0,
        }
    }

    /// The driver passed `count` bytes from `side` on, no more than [`Proxy::splice_budget`].
    pub fn on_spliced(&mut self, side: Side, count: u64, at: Timestamp, out: &mut Output) {
        self.now = at;
        self.on_progress(side, count);
        self.record.count_bytes(side, count, out);
        if self.session.is_opaque() {
            self.record.on_unseen_tls(side, count, at);
        } else if side == Side::Client {
            self.on_chunk_bytes(count, out);
        }
    }

    /// `count` bytes of the client's plaintext were discarded after [`Action::DiscardClient`].
    pub fn on_discarded(&mut self, count: usize, out: &mut Output) {
        if count > 0 {
            self.record.count_bytes(Side::Client, count as u64, out);
            self.on_plaintext_after_starttls(out);
        }
    }

    fn on_plaintext_after_starttls(&mut self, out: &mut Output) {
        if !self.early_data_counted {
            self.early_data_counted = true;
            self.record.anomaly(Anomaly::StarttlsPlaintext, out);
        }
    }

    pub const fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing(_))
    }

    /// The client sent QUIT and has the reply.
    pub const fn has_quit(&self) -> bool {
        matches!(self.state, State::Quitting | State::Closing(Outcome::Quit))
    }

    /// Whether the session still needs an upstream: not after a rejection in place of the greeting.
    pub const fn needs_upstream(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Before the greeting was relayed.
    pub fn awaits_greeting(&self) -> bool {
        self.session.oldest_pending() == Some(&ExpectedReply::Greeting)
    }

    /// The session is over. Returns its complete record.
    pub fn finish(&mut self, at: Timestamp, out: &mut Output) -> SessionRecord {
        let outcome = match self.state {
            State::Closing(outcome) => outcome,
            State::Quitting => Outcome::Quit,
            _ if self.upstream_closed => Outcome::UpstreamClosed,
            _ => Outcome::ClientClosed,
        };
        let verdict = self.checks.verdict();
        let (verdict, facts) = match &mut self.evaluator {
            Some(evaluator) => evaluator.finish(verdict, out),
            None => (verdict, None),
        };
        let record = self.record.finish(outcome, verdict, &mut self.session, at, out);
        SessionRecord { facts, ..record }
    }

    /// 421 in place of the greeting, and the end.
    fn reject_connection(&mut self, refusal: Refusal, out: &mut Output) {
        let (subject, detail, text, outcome) = match refusal {
            Refusal::LimitSessions => (3, 2, "too many sessions; try again later", Outcome::Limit),
            Refusal::LimitClientSessions | Refusal::LimitNetworkSessions => {
                (7, 0, "too many sessions from your network", Outcome::Limit)
            }
            Refusal::LimitClientRate | Refusal::LimitNetworkRate => {
                (7, 0, "too many new sessions from your network; slow down", Outcome::Limit)
            }
            Refusal::Door => {
                let text = match self.record.family() {
                    Family::Ipv4 => "mail is not accepted over IPv4 for now; try IPv6",
                    Family::Ipv6 => "mail is not accepted over IPv6 for now; try IPv4",
                };
                (3, 2, text, Outcome::Refused)
            }
            Refusal::ProxyHeader => (
                7,
                0,
                "PROXY protocol header with the client's address expected",
                Outcome::Protocol,
            ),
            _ => (3, 2, "service not available", Outcome::UpstreamUnavailable),
        };
        self.fail(EnhancedCode::new(4, subject, detail), text, refusal, outcome, out);
    }

    /// 554 or 421 in place of the greeting.
    fn reject_in_place_of_greeting(&mut self, refusal: Refusal, out: &mut Output) {
        let reason = self.access_text().to_owned();
        match refusal {
            Refusal::AccessReject => {
                self.send_rejected_greeting(refusal, EnhancedCode::new(5, 7, 1), &reason, out);
            }
            Refusal::Pregreet => {
                let code = EnhancedCode::new(5, 5, 1);
                self.send_rejected_greeting(refusal, code, PREGREET, out);
                out.act(Action::AbandonUpstream);
            }
            _ => self.fail(EnhancedCode::new(4, 7, 1), &reason, refusal, Outcome::Refused, out),
        }
    }

    fn send_rejected_greeting(
        &mut self,
        refusal: Refusal,
        code: EnhancedCode,
        text: &str,
        out: &mut Output,
    ) {
        self.state = State::RejectedGreeting;
        self.checks.on_refusal(refusal, out);
        self.send(&ExpectedReply::Other, OwnReply::new(554, code, text), out);
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
        self.fail_reply_to(ExpectedReply::Other, code, text, refusal, outcome, out);
    }

    /// The same; `last` is the client's last command.
    fn fail_reply_to(
        &mut self,
        last: ExpectedReply,
        code: EnhancedCode,
        text: &str,
        refusal: Refusal,
        outcome: Outcome,
        out: &mut Output,
    ) {
        match self.state {
            State::Closing(_) => return,
            State::Quitting => return self.close(Outcome::Quit, out),
            State::Running
            | State::RejectedGreeting
            | State::DiscardingData
            | State::RejectedMessage => {}
        }
        self.checks.on_refusal(refusal, out);
        let text = format!("{} {text}", self.profile.smtp.hostname);
        self.send_now(last, OwnReply::new(421, code, &text), out);
        out.act(Action::AbandonUpstream);
        self.close(outcome, out);
    }

    /// The gateway answers the client's last command itself, in its turn.
    fn answer(
        &mut self,
        expected: ExpectedReply,
        code: u16,
        enhanced: EnhancedCode,
        text: &str,
        out: &mut Output,
    ) {
        let reply = OwnReply::new(code, enhanced, text);
        if let Some((reply, expected)) = self.session.queue_local_reply(reply, expected) {
            self.send(&expected, reply, out);
        }
    }

    /// Sends a reply before those that are pending: it answers what the client waits for, or `last`.
    fn send_now(&mut self, last: ExpectedReply, reply: OwnReply, out: &mut Output) {
        let expected = self.session.preempt(last, &reply);
        self.send(&expected, reply, out);
    }

    fn send(&mut self, expected: &ExpectedReply, reply: OwnReply, out: &mut Output) {
        self.record.count_reply(reply.code, ReplySource::Gateway, out);
        self.record_reply(expected, reply.code, out);
        out.act(Action::ToClient(reply.line));
    }

    fn record_reply(&mut self, expected: &ExpectedReply, code: u16, out: &mut Output) {
        let in_transaction = self.session.next_transaction().is_some();
        self.record.on_reply(expected, code, in_transaction, self.now, out);
    }

    /// Only its handshake is followed.
    fn on_tls_bytes(&mut self, side: Side, bytes: &[u8]) {
        self.record.on_tls_bytes(side, bytes, self.now);
        if let Some(hello) = self.tls_hellos.on_bytes(side, bytes) {
            self.record.on_tls_hello(hello);
        }
    }

    fn close(&mut self, outcome: Outcome, out: &mut Output) {
        if !self.is_closing() {
            self.state = State::Closing(outcome);
            out.act(Action::Close);
        }
    }

    fn end_if_drained(&mut self, out: &mut Output) {
        let idle = match self.state {
            State::RejectedGreeting | State::RejectedMessage => true,
            State::Running => {
                let busy = self.session.has_pending()
                    || self.session.in_content()
                    || self.session.in_handshake();
                !busy && !self.session.state().in_transaction() && !self.session.is_opaque()
            }
            State::DiscardingData | State::Quitting | State::Closing(_) => false,
        };
        if self.draining && idle {
            let text = "the service is shutting down; try again later";
            let code = EnhancedCode::new(4, 3, 2);
            self.fail(code, text, Refusal::Shutdown, Outcome::Shutdown, out);
        }
    }

    /// The client sends although it has to wait for a reply.
    fn on_early_data(&mut self, wait: Wait, out: &mut Output) {
        let anomaly = match wait {
            Wait::Greeting => Anomaly::Pregreet,
            Wait::Data => Anomaly::EarlyData,
            Wait::Starttls => Anomaly::StarttlsPlaintext,
            Wait::GatewayCommand | Wait::Auth | Wait::EndOfData | Wait::PipelineFull => return,
        };
        if self.early_data_counted {
            return;
        }
        self.early_data_counted = true;
        self.record.anomaly(anomaly, out);
        if wait == Wait::Greeting
            && let Some(refusal) = self.checks.on_pregreet()
        {
            self.reject_in_place_of_greeting(refusal, out);
        }
    }
}
