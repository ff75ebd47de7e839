//! What the demo's MTA took in, so that the table's claims are checked against what really arrived.
//!
//! Layer 5. Bounded: the demo may stay up for days.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

/// Messages kept; older ones are only counted.
const KEPT: usize = 64;

/// One message as the MTA accepted it: it said 250 to this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// The reverse-path without brackets; empty for `<>`.
    pub mail_from: String,
    /// The recipients that were accepted.
    pub rcpt_to: Vec<String>,
    /// The content: dots unstuffed, line ends as they came, no trace header added.
    pub content: Vec<u8>,
}

impl Message {
    /// Whether `bytes` occur anywhere in the content.
    pub(super) fn contains(&self, bytes: &[u8]) -> bool {
        memchr::memmem::find(&self.content, bytes).is_some()
    }
}

/// The messages of all sessions, shared between the MTA's tasks and who checks.
#[derive(Clone, Debug, Default)]
pub(super) struct Mailbox(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    messages: VecDeque<Message>,
    total: u64,
}

impl Mailbox {
    pub(super) fn deliver(&self, message: Message) {
        let mut inner = self.lock();
        if inner.messages.len() == KEPT {
            inner.messages.pop_front();
        }
        inner.messages.push_back(message);
        inner.total += 1;
    }

    /// The messages kept whose content holds `token`, in order of arrival.
    pub(super) fn with_token(&self, token: &str) -> Vec<Message> {
        let inner = self.lock();
        let found = inner.messages.iter().filter(|m| m.contains(token.as_bytes()));
        found.cloned().collect()
    }

    /// All messages that ever arrived, also those no longer kept.
    pub(super) fn total(&self) -> u64 {
        self.lock().total
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Nothing under this lock can leave it half changed, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_and_counts_all() {
        let mailbox = Mailbox::default();
        for n in 0..KEPT + 2 {
            mailbox.deliver(Message {
                content: format!("token <{n}>\r\n").into_bytes(),
                ..Message::default()
            });
        }
        assert_eq!(mailbox.total(), KEPT as u64 + 2);
        assert!(mailbox.with_token("<1>").is_empty());
        assert_eq!(mailbox.with_token("<2>").len(), 1);
        assert_eq!(mailbox.with_token("token").len(), KEPT);
    }
}
