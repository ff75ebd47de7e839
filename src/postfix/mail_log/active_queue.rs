//! Messages that qmgr(8) has made active, from its lines `ID: from=<…>, size=…, nrcpt=1 (queue active)`.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Messages that are remembered: between this many and twice as many.
const CAPACITY: usize = 16 * 1024;

/// The last activation of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Activation {
    /// A number of its own; 0 if the line is not known.
    pub(super) number: u64,
    /// The message has one recipient, so that the first line about it is the only one.
    pub(super) has_one_recipient: bool,
}

/// The last activations, in two generations: the older one is dropped when the newer one is full.
#[derive(Debug, Default)]
pub(super) struct ActiveQueue {
    recent: HashMap<u64, Activation>,
    older: HashMap<u64, Activation>,
    last: u64,
}

impl ActiveQueue {
    /// Takes a line of qmgr(8) behind the queue ID.
    pub(super) fn on_line(&mut self, host: u64, queue_id: &str, text: &[u8]) {
        let Some(text) = text.strip_suffix(b" (queue active)") else { return };
        // The last field: the sender's address stands before it.
        let has_one_recipient = text.ends_with(b", nrcpt=1");
        self.last += 1;
        if self.recent.len() >= CAPACITY {
            self.older = std::mem::take(&mut self.recent);
        }
        let activation = Activation { number: self.last, has_one_recipient };
        self.recent.insert(key(host, queue_id), activation);
    }

    pub(super) fn activation(&self, host: u64, queue_id: &str) -> Activation {
        let key = key(host, queue_id);
        let found = self.recent.get(&key).or_else(|| self.older.get(&key));
        found.copied().unwrap_or_default()
    }
}

fn key(host: u64, queue_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (host, queue_id).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded() {
        let mut queue = ActiveQueue::default();
        for number in 0..3 * CAPACITY {
            let line = b"from=<a@a.example>, size=1, nrcpt=1 (queue active)";
            queue.on_line(1, &format!("{number:X}"), line);
            assert!(queue.recent.len() + queue.older.len() <= 2 * CAPACITY);
        }
        assert_eq!(queue.activation(1, "0"), Activation::default());
        let last = queue.activation(1, &format!("{:X}", 3 * CAPACITY - 1));
        assert_eq!(last, Activation { number: 3 * CAPACITY as u64, has_one_recipient: true });
        queue.on_line(1, "ABC", b"from=<nrcpt=1>, size=1, nrcpt=11 (queue active)");
        assert!(!queue.activation(1, "ABC").has_one_recipient);
        queue.on_line(1, "ABD", b"from=<nrcpt=1>, status=expired, returned to sender");
        assert_eq!(queue.activation(1, "ABD"), Activation::default());
    }
}
