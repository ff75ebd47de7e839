//! Lines to attempts: which lines of one process belong to one attempt, and to which message.
//!
//! An attempt is what one process did with one message at one address over one connection. Its outcome is the first of these
//! that a line reports, since it says most about the way to the server: delivered, policy_refused, stalled, lost, tls_failed,
//! greeting_refused, deferred, rejected. A message that one recipient accepted was delivered; an unknown recipient says least.
//!
//! An attempt is emitted once, when no other line can change it:
//!
//! - at once if the server accepted the message, or refused or lost all of it, or if the message has one recipient;
//! - if the process goes on to another address or message;
//! - otherwise after [`POLICY_WAIT`] or [`RECIPIENT_WAIT`].
//!
//! Attempts without a message (`connect to …`), and those whose line has no recipient, wait up to [`JOIN_WAIT`] for a line of
//! the same process that names them. Time is the time in the log, or that of [`Joiner::on_time`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::active_queue::Activation;
use super::event::MailLogEvent;
use super::reply_text::without_recipient;
use crate::outbound::{OutboundAttempt, OutboundOutcome};
use crate::policy::facts::DomainName;
use crate::time::Timestamp;

/// For message and domain of an attempt.
pub(super) const JOIN_WAIT: Duration = Duration::from_secs(5);
/// After a recipient was refused for a reason of policy, for another one to be accepted.
pub(super) const POLICY_WAIT: Duration = Duration::from_secs(1);
/// After another reply to RCPT, for the reply to the message: `smtp_data_done_timeout` and a minute.
pub(super) const RECIPIENT_WAIT: Duration = Duration::from_secs(660);
/// For how long an attempt is remembered that was emitted, where no line of qmgr(8) tells one try of a message from the next:
/// less than `minimal_backoff_time`.
const REPEAT_WAIT: Duration = Duration::from_secs(60);

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
const CLOCK_SET_BACK: Duration = Duration::from_secs(3600);

/// Processes that are remembered: between this many and twice as many.
const PROCESSES: usize = 2048;
/// Attempts of one process.
const PER_PROCESS: usize = 32;

/// Attempts of different kinds are different connections, or none at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptPhase {
    Connect,
    /// After it smtp(8) may connect again, without TLS.
    Tls,
    Dialogue,
}

impl AttemptPhase {
    const fn of(outcome: OutboundOutcome) -> Self {
        match outcome {
            OutboundOutcome::TimedOut | OutboundOutcome::Refused | OutboundOutcome::Unreachable => {
                Self::Connect
            }
            OutboundOutcome::TlsFailed => Self::Tls,
            _ => Self::Dialogue,
        }
    }
}

/// The order of the module's documentation; the highest decides.
const fn rank(outcome: OutboundOutcome) -> u8 {
    match outcome {
        OutboundOutcome::Delivered => 8,
        OutboundOutcome::PolicyRefused => 7,
        OutboundOutcome::Stalled => 6,
        OutboundOutcome::Lost => 5,
        OutboundOutcome::TlsFailed => 4,
        OutboundOutcome::GreetingRefused => 3,
        OutboundOutcome::Deferred => 2,
        OutboundOutcome::Rejected => 1,
        OutboundOutcome::TimedOut | OutboundOutcome::Refused | OutboundOutcome::Unreachable => 0,
    }
}

/// The message of a line, and the recipient's domain if the line has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct MessageLine<'a> {
    pub(super) queue_id: &'a str,
    pub(super) activation: Activation,
    /// Whether it is a delivery line, also without a domain.
    pub(super) is_delivery: bool,
    pub(super) domain: Option<&'a DomainName>,
    /// The recipient's local part, which is not kept.
    pub(super) local_part: &'a [u8],
}

/// What a line says about an attempt.
#[derive(Clone, Debug)]
pub(super) struct AttemptLine {
    pub(super) attempt: OutboundAttempt,
    /// It concerns all remaining recipients.
    pub(super) ends_session: bool,
}

#[derive(Debug)]
struct Tracked {
    attempt: OutboundAttempt,
    activation: u64,
    /// `None` once it was emitted; it then stays to recognise further lines about it.
    emit_at: Option<Timestamp>,
    forget_at: Timestamp,
}

type Processes = BTreeMap<u64, Vec<Tracked>>;

/// The attempts of all processes that are not finished yet. Memory is bounded: the processes whose first line is the oldest
/// are dropped, and their attempts emitted as they are.
#[derive(Debug, Default)]
pub(super) struct Joiner {
    recent: Processes,
    older: Processes,
    next_sweep: Timestamp,
}

impl Joiner {
    /// An attempt whose line has no message: a connection that was not made, or a TLS handshake that failed.
    pub(super) fn on_bare_attempt(
        &mut self,
        process: u64,
        attempt: OutboundAttempt,
        out: &mut Vec<MailLogEvent>,
    ) {
        let at = attempt.at;
        let tracked = self.process(process, at, out);
        let is_known = |known: &Tracked| {
            known.attempt.queue_id.is_none()
                && known.attempt.outcome == attempt.outcome
                && known.attempt.address == attempt.address
                && known.attempt.host == attempt.host
        };
        if tracked.iter().any(is_known) {
            return;
        }
        let emit_at = Some(at + JOIN_WAIT);
        tracked.iter_mut().for_each(|known| known.wait_until(at + JOIN_WAIT));
        tracked.push(Tracked { attempt, activation: 0, emit_at, forget_at: at + REPEAT_WAIT });
        if tracked.len() > PER_PROCESS {
            tracked.remove(0).emit(out);
        }
    }

    /// A line about a message; `line` is what it says about an attempt, if anything.
    pub(super) fn on_message_line(
        &mut self,
        process: u64,
        at: Timestamp,
        message: MessageLine<'_>,
        line: Option<AttemptLine>,
        out: &mut Vec<MailLogEvent>,
    ) {
        let tracked = self.process(process, at, out);
        adopt(tracked, message, out);
        let current = line.as_ref().map(|line| key(&line.attempt));
        tracked.retain_mut(|known| {
            let is_over = current.is_some() && current != Some(key(&known.attempt));
            // A delivery line without a dialogue comes when no address is left.
            if message.is_delivery && (is_over || current.is_none()) {
                known.emit(out);
                return false;
            }
            if is_over {
                known.wait_until(at + JOIN_WAIT);
            }
            true
        });
        if let Some(line) = line {
            on_attempt_line(tracked, message, line, out);
        }
        if tracked.is_empty() {
            self.recent.remove(&process);
        }
    }

    /// The last handshake of this message that failed in this process, for `Cannot start TLS`, which names no server.
    pub(super) fn failed_handshake(
        &self,
        process: u64,
        queue_id: &str,
    ) -> Option<&OutboundAttempt> {
        let tracked = self.recent.get(&process).or_else(|| self.older.get(&process))?;
        tracked.iter().rev().map(|known| &known.attempt).find(|attempt| {
            let is_own = attempt.queue_id.as_deref().is_none_or(|id| id == queue_id);
            is_own && attempt.outcome == OutboundOutcome::TlsFailed
        })
    }

    /// Emits the attempts whose wait is over by `now`.
    pub(super) fn on_time(&mut self, now: Timestamp, out: &mut Vec<MailLogEvent>) {
        // The clocks of several hosts differ; only a clock that was set back starts again.
        if now < self.next_sweep && self.next_sweep.since(now) < CLOCK_SET_BACK {
            return;
        }
        self.next_sweep = now + SWEEP_INTERVAL;
        for processes in [&mut self.older, &mut self.recent] {
            processes.retain(|_, tracked| {
                expire(tracked, now, out);
                !tracked.is_empty()
            });
        }
    }

    /// Emits all attempts that wait: the log has ended.
    pub(super) fn finish(&mut self, out: &mut Vec<MailLogEvent>) {
        for mut tracked in [std::mem::take(&mut self.older), std::mem::take(&mut self.recent)]
            .into_iter()
            .flat_map(BTreeMap::into_values)
        {
            tracked.iter_mut().for_each(|known| known.emit(out));
        }
    }

    /// The attempts of a process, without those whose wait was over before this line.
    fn process(
        &mut self,
        process: u64,
        at: Timestamp,
        out: &mut Vec<MailLogEvent>,
    ) -> &mut Vec<Tracked> {
        self.on_time(at, out);
        if self.recent.len() >= PROCESSES && !self.recent.contains_key(&process) {
            let dropped = std::mem::replace(&mut self.older, std::mem::take(&mut self.recent));
            for mut tracked in dropped.into_values() {
                tracked.iter_mut().for_each(|known| known.emit(out));
            }
        }
        let known = self.older.remove(&process);
        let tracked = self.recent.entry(process).or_default();
        if let Some(known) = known {
            *tracked = known;
        }
        expire(tracked, at, out);
        tracked
    }
}

impl Tracked {
    /// Shortens the wait.
    fn wait_until(&mut self, latest: Timestamp) {
        self.emit_at = self.emit_at.map(|emit_at| emit_at.min(latest));
    }

    fn emit(&mut self, out: &mut Vec<MailLogEvent>) {
        if self.emit_at.take().is_some() {
            out.push(MailLogEvent::Attempt(self.attempt.clone()));
        }
    }
}

/// The port is not compared: not all lines have one.
fn key(attempt: &OutboundAttempt) -> (AttemptPhase, std::net::IpAddr) {
    (AttemptPhase::of(attempt.outcome), attempt.address.ip())
}

fn expire(tracked: &mut Vec<Tracked>, now: Timestamp, out: &mut Vec<MailLogEvent>) {
    tracked.retain_mut(|known| {
        if known.emit_at.is_some_and(|at| at <= now) {
            known.emit(out);
            // Nothing to recognise it by: see `on_message_line`.
            if known.attempt.queue_id.is_none() {
                return false;
            }
        }
        known.emit_at.is_some() || known.forget_at > now
    });
}

/// Gives attempts without a message that of the line, and attempts of this message without a domain that of the line. Attempts
/// of other messages, and of earlier tries of this one, are finished.
fn adopt(tracked: &mut Vec<Tracked>, message: MessageLine<'_>, out: &mut Vec<MailLogEvent>) {
    let number = message.activation.number;
    tracked.retain_mut(|known| {
        match known.attempt.queue_id.as_deref() {
            None => {
                known.attempt.queue_id = Some(message.queue_id.to_owned());
                known.activation = number;
            }
            Some(id) if id == message.queue_id && known.activation == number => {}
            Some(_) => {
                known.emit(out);
                return false;
            }
        }
        if known.attempt.domain.is_none() {
            known.attempt.domain = message.domain.cloned();
        }
        // A line before may have had the reply, but no recipient.
        if known.emit_at.is_some()
            && let Some(reply) = &mut known.attempt.reply
            && message.is_delivery
        {
            *reply = without_recipient(reply, message.local_part);
        }
        true
    });
}

fn on_attempt_line(
    tracked: &mut Vec<Tracked>,
    message: MessageLine<'_>,
    line: AttemptLine,
    out: &mut Vec<MailLogEvent>,
) {
    let AttemptLine { attempt, ends_session } = line;
    let (at, outcome) = (attempt.at, attempt.outcome);
    let is_decided = ends_session || message.activation.has_one_recipient;
    let memory = if message.activation.number == 0 { REPEAT_WAIT } else { RECIPIENT_WAIT };
    let wait = match (is_decided, outcome) {
        (true, _) if message.is_delivery => Duration::ZERO,
        (true, _) => JOIN_WAIT,
        (false, OutboundOutcome::PolicyRefused) if message.is_delivery => POLICY_WAIT,
        (false, OutboundOutcome::PolicyRefused) => JOIN_WAIT,
        (false, _) => RECIPIENT_WAIT,
    };
    let mut known = tracked.iter_mut().find(|known| key(&known.attempt) == key(&attempt));
    match &mut known {
        Some(known) if known.emit_at.is_none() => known.forget_at = at + memory,
        Some(known) => {
            if rank(outcome) >= rank(known.attempt.outcome) {
                let (host, domain) = (known.attempt.host.take(), known.attempt.domain.take());
                let port = known.attempt.address.port();
                known.attempt = attempt;
                known.attempt.host = known.attempt.host.take().or(host);
                known.attempt.domain = known.attempt.domain.take().or(domain);
                // A line that has a port is more precise than the usual port of one that has none.
                let ip = known.attempt.address.ip();
                if !message.is_delivery {
                    known.attempt.address = SocketAddr::new(ip, port);
                }
            }
            known.wait_until(at + wait);
            known.forget_at = at + memory;
        }
        None => tracked.push(Tracked {
            attempt,
            activation: message.activation.number,
            emit_at: Some(at + wait),
            forget_at: at + memory,
        }),
    }
    if is_decided && message.is_delivery {
        tracked.iter_mut().for_each(|known| known.emit(out));
    }
    if tracked.len() > PER_PROCESS {
        tracked.remove(0).emit(out);
    }
}
