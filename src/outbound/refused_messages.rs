//! Messages that were refused over IPv6 for the sending address, and that Postfix still has (`gatepost postfix dsn-filter`).

use std::time::Duration;

use super::recent_map::RecentMap;
use super::{OutboundAttempt, OutboundOutcome};
use crate::addr::Family;
use crate::time::Timestamp;

/// Messages that are kept, about 200 bytes each.
const MAX_MESSAGES: usize = 16_384;
/// Refusals after which a message is returned to its sender.
pub const MAX_REFUSALS: u32 = 4;
/// Longer than Postfix keeps a message (`maximal_queue_lifetime`, 5 days).
const KEPT_FOR: Duration = Duration::from_secs(6 * 24 * 3600);

/// What a refused message needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedMessage {
    /// Its delivery should be tried at once: IPv6 is avoided now. Once for each message.
    Retry,
    /// It was refused again and again, and its sender should learn it: no other way to the host exists.
    Return,
    /// The attempt that [`Self::Retry`] asked for, or one after it.
    Retried,
    Wait,
}

#[derive(Clone, Copy, Debug, Default)]
struct Message {
    refusals: u32,
    was_retried: bool,
    /// Its last attempt in the history was refused, at a host whose IPv6 is avoided since.
    waits_for_retry: bool,
    is_due: bool,
}

#[derive(Clone, Debug)]
pub struct RefusedMessages {
    known: RecentMap<String, Message>,
    /// Attempts are those of the log before the start. Later lines may show that a message is gone.
    is_history: bool,
}

impl Default for RefusedMessages {
    fn default() -> Self {
        Self { known: RecentMap::new(MAX_MESSAGES), is_history: false }
    }
}

impl RefusedMessages {
    /// For a log that is read from before the start: no message is retried until [`Self::end_history`].
    pub fn with_history() -> Self {
        Self { is_history: true, ..Self::default() }
    }

    /// Queue ids of the messages to retry, in order: those that were refused at their last attempt, and are in the queue.
    pub fn end_history(&mut self) -> Vec<String> {
        self.is_history = false;
        let mut retries = Vec::new();
        for (queue_id, message) in self.known.iter_mut().filter(|(_, one)| one.waits_for_retry) {
            message.waits_for_retry = false;
            message.was_retried = true;
            retries.push(queue_id.clone());
        }
        retries.sort();
        retries
    }

    /// `avoided`: whether the host's IPv6 is avoided after this attempt.
    pub fn add(&mut self, attempt: &OutboundAttempt, avoided: bool) -> RefusedMessage {
        let Some(queue_id) = attempt.queue_id.as_ref() else { return RefusedMessage::Wait };
        let is_refused =
            attempt.family() == Family::Ipv6 && attempt.outcome == OutboundOutcome::PolicyRefused;
        if !is_refused {
            let Some(message) = self.known.get_mut(queue_id) else { return RefusedMessage::Wait };
            message.waits_for_retry = false;
            return message.later_attempt();
        }
        let message = self.known.used(queue_id, attempt.at);
        message.refusals += 1;
        if message.refusals >= MAX_REFUSALS && !message.is_due {
            message.is_due = true;
            message.waits_for_retry = false;
            return RefusedMessage::Return;
        }
        if avoided && !message.was_retried && !message.is_due {
            if self.is_history {
                message.waits_for_retry = true;
                return RefusedMessage::Wait;
            }
            message.was_retried = true;
            return RefusedMessage::Retry;
        }
        message.later_attempt()
    }

    /// Queue ids of the messages to return, in order.
    pub fn due(&self) -> Vec<String> {
        let due = self.known.iter().filter(|(_, message)| message.is_due);
        let mut due: Vec<String> = due.map(|(queue_id, _)| queue_id.clone()).collect();
        due.sort();
        due
    }

    /// The message left the queue. Returns whether a retry of it was requested.
    pub fn remove(&mut self, queue_id: &str) -> bool {
        self.known.remove(queue_id).is_some_and(|message| message.was_retried)
    }

    pub fn forget_old(&mut self, now: Timestamp) {
        self.known.expire(now, KEPT_FOR);
    }
}

impl Message {
    const fn later_attempt(self) -> RefusedMessage {
        if self.was_retried { RefusedMessage::Retried } else { RefusedMessage::Wait }
    }
}
