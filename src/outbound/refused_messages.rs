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
    Wait,
}

#[derive(Clone, Copy, Debug, Default)]
struct Message {
    refusals: u32,
    was_retried: bool,
    is_due: bool,
}

#[derive(Clone, Debug)]
pub struct RefusedMessages {
    known: RecentMap<String, Message>,
}

impl Default for RefusedMessages {
    fn default() -> Self {
        Self { known: RecentMap::new(MAX_MESSAGES) }
    }
}

impl RefusedMessages {
    /// `avoided`: whether the host's IPv6 is avoided after this attempt.
    pub fn add(&mut self, attempt: &OutboundAttempt, avoided: bool) -> RefusedMessage {
        let is_refused =
            attempt.family() == Family::Ipv6 && attempt.outcome == OutboundOutcome::PolicyRefused;
        let Some(queue_id) = attempt.queue_id.as_ref().filter(|_| is_refused) else {
            return RefusedMessage::Wait;
        };
        let message = self.known.used(queue_id, attempt.at);
        message.refusals += 1;
        if message.refusals >= MAX_REFUSALS && !message.is_due {
            message.is_due = true;
            return RefusedMessage::Return;
        }
        if avoided && !message.was_retried {
            message.was_retried = true;
            return RefusedMessage::Retry;
        }
        RefusedMessage::Wait
    }

    /// Queue ids of the messages to return, in order.
    pub fn due(&self) -> Vec<String> {
        let due = self.known.iter().filter(|(_, message)| message.is_due);
        let mut due: Vec<String> = due.map(|(queue_id, _)| queue_id.clone()).collect();
        due.sort();
        due
    }

    /// The message left the queue.
    pub fn remove(&mut self, queue_id: &str) {
        self.known.remove(queue_id);
    }

    pub fn forget_old(&mut self, now: Timestamp) {
        self.known.expire(now, KEPT_FOR);
    }
}
