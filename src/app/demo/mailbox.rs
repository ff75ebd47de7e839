//! The messages that the demo's MTA accepted.
//!
//! Layer 5. Bounded: the demo may stay up for days.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Messages kept.
const KEPT: usize = 64;

/// One message as the MTA accepted it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StoredMessage {
    /// The reverse-path without brackets; empty for `<>`.
    pub mail_from: String,
    /// The recipients that were accepted.
    pub rcpt_to: Vec<String>,
    /// Dots unstuffed, line ends as received, no trace header added.
    pub content: Vec<u8>,
}

impl StoredMessage {
    /// Whether `bytes` occur anywhere in the content.
    pub(super) fn contains(&self, bytes: &[u8]) -> bool {
        memchr::memmem::find(&self.content, bytes).is_some()
    }
}

/// The newest messages of all sessions; clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Mailbox(Arc<Mutex<VecDeque<StoredMessage>>>);

impl Mailbox {
    pub(super) fn deliver(&self, message: StoredMessage) {
        let mut messages = self.lock();
        if messages.len() == KEPT {
            messages.pop_front();
        }
        messages.push_back(message);
    }

    /// The messages whose content contains `token`, in order of arrival.
    pub(super) fn with_token(&self, token: &str) -> Vec<StoredMessage> {
        self.lock().iter().filter(|message| message.contains(token.as_bytes())).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<StoredMessage>> {
        // A panic elsewhere leaves it whole: each change is a single call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_messages_are_kept() {
        let mailbox = Mailbox::default();
        for n in 0..KEPT + 2 {
            mailbox.deliver(StoredMessage {
                content: format!("token <{n}>\r\n").into_bytes(),
                ..StoredMessage::default()
            });
        }
        assert!(mailbox.with_token("<1>").is_empty());
        assert_eq!(mailbox.with_token("<2>").len(), 1);
        assert_eq!(mailbox.with_token("token").len(), KEPT);
    }
}
