//! Time limits: which one applies, and the end of a session that exceeds it.

use std::time::Duration;

use super::{Proxy, State};
use crate::addr::Side;
use crate::engine::event::{Outcome, Refusal};
use crate::engine::output::Output;
use crate::smtp::{EnhancedCode, ExpectedReply};
use crate::time::Timestamp;

/// How long upstream may take to close after its 221, before the gateway does.
const QUIT_GRACE: Duration = Duration::from_secs(5);

/// The time that the client has left for its message: a budget of `timeouts.data` that waiting uses up and octets refill, one
/// second for each `min_data_rate` of them (as Postfix does with `smtpd_min_data_rate`).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessagePace {
    /// Waiting of the client that no octets have made up for yet.
    spent: Duration,
}

impl MessagePace {
    /// `count` octets came after `waited`.
    fn on_octets(&mut self, count: u64, waited: Duration, min_rate: u32) {
        let earned = Duration::from_secs_f64(count as f64 / f64::from(min_rate.max(1)));
        self.spent = (self.spent + waited).saturating_sub(earned);
    }
}

impl Proxy {
    /// When [`Proxy::on_timeout`] is due, unless there is other input before.
    pub fn deadline(&self) -> Option<Timestamp> {
        let timeout = match self.state {
            State::Closing(_) => return None,
            State::Quitting => QUIT_GRACE,
            State::RejectedGreeting | State::RejectedMessage => self.timeouts.command,
            State::DiscardingData => self.data_timeout(),
            State::Running if self.session.is_opaque() => match self.record.sent_last_encrypted() {
                // It may have been the end of a message.
                Some(Side::Client) => self.timeouts.acceptance.max(self.timeouts.opaque),
                Some(Side::Server) | None => self.timeouts.opaque,
            },
            State::Running if self.upstream_tls.in_handshake() => self.upstream_handshake_timeout(),
            State::Running if self.upstream_blocked => self.timeouts.reply,
            State::Running if self.session.in_content() => self.data_timeout(),
            State::Running => match self.session.oldest_pending() {
                Some(ExpectedReply::Greeting) => self.timeouts.greeting,
                Some(ExpectedReply::Message { .. }) => self.timeouts.acceptance,
                Some(_) => self.timeouts.reply,
                None => self.timeouts.command,
            },
        };
        let due = self.active + timeout;
        Some(match self.decision_deadline() {
            // The client waits for the gateway, not the gateway for the client.
            Some(decision) if self.session.oldest_pending().is_none() => decision,
            Some(decision) => due.min(decision),
            None => due,
        })
    }

    /// Does nothing before the [`Proxy::deadline`]. As after [`Proxy::on_answers`], both sides' bytes are to be fed again.
    pub fn on_timeout(&mut self, at: Timestamp, out: &mut Output) {
        if self.deadline().is_none_or(|deadline| at < deadline) {
            return;
        }
        self.now = at;
        if self.decision_deadline().is_some_and(|due| at >= due) {
            return self.on_decision_timeout(out);
        }
        match self.state {
            State::Quitting => return self.close(Outcome::Quit, out),
            State::Running if self.upstream_tls.in_handshake() => {
                return self.on_upstream_handshake_timeout(out);
            }
            State::Running if self.session.in_handshake() => {
                return self.on_handshake_timeout(out);
            }
            State::Running if self.session.is_opaque() => {
                return self.close(Outcome::Timeout, out);
            }
            _ => {}
        }
        let replies_are_due = !self.session.in_content() && self.session.oldest_pending().is_some();
        let upstream_is_late =
            self.state == State::Running && (self.upstream_blocked || replies_are_due);
        let text = if upstream_is_late {
            "mail server did not reply in time; try again later"
        } else {
            "timeout exceeded"
        };
        self.fail(EnhancedCode::new(4, 4, 2), text, Refusal::Timeout, Outcome::Timeout, out);
    }

    /// Time for the next octets of a message.
    fn data_timeout(&self) -> Duration {
        self.timeouts.data.saturating_sub(self.pace.spent)
    }

    /// `count` bytes of `side` were consumed or passed on.
    pub(super) fn on_progress(&mut self, side: Side, count: u64) {
        let waited = self.now - self.active;
        self.active = self.now;
        let min_rate = self.timeouts.min_data_rate;
        if side == Side::Server || self.session.is_opaque() {
            return;
        }
        if self.session.next_transaction().is_none() || min_rate == 0 {
            self.pace = MessagePace::default();
        } else if self.session.in_content() && !self.upstream_blocked {
            self.pace.on_octets(count, waited, min_rate);
        }
    }

    pub const fn upstream_is_blocked(&self) -> bool {
        self.upstream_blocked
    }

    /// Whether upstream left bytes unaccepted after the driver wrote to it; `progress`: it accepted some. While it does, the
    /// client is not read, so its silence means nothing.
    pub fn on_upstream_written(&mut self, blocked: bool, progress: bool, at: Timestamp) {
        if blocked != self.upstream_blocked || progress && blocked {
            (self.now, self.active) = (at, at);
        }
        self.upstream_blocked = blocked;
    }
}
