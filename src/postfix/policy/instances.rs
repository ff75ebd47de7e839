//! The messages that had their `PREPEND` or `WARN`: Postfix asks about each recipient, and again after a lost connection.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};

/// Messages that are remembered: those of some minutes on a busy server.
const CAPACITY: usize = 16 * 1024;

/// Bounded: the oldest are forgotten first, and would be tagged a second time. Only hashes are kept.
#[derive(Debug, Default)]
pub(super) struct Instances {
    known: HashSet<u64>,
    order: VecDeque<u64>,
    hasher: RandomState,
}

impl Instances {
    /// Whether this is the first time for `instance` and `what`; true for an empty instance.
    pub(super) fn is_first(&mut self, instance: &str, what: &str) -> bool {
        if instance.is_empty() {
            return true;
        }
        let key = self.hasher.hash_one((instance, what));
        if !self.known.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let mut instances = Instances::default();
        assert!(instances.is_first("a", "PREPEND") && instances.is_first("a", "WARN"));
        assert!(!instances.is_first("a", "PREPEND"));
        for number in 0..CAPACITY {
            assert!(instances.is_first(&number.to_string(), "PREPEND"));
        }
        assert_eq!((instances.known.len(), instances.order.len()), (CAPACITY, CAPACITY));
        assert!(instances.is_first("a", "PREPEND"), "forgotten");
        assert!(!instances.is_first("9999", "PREPEND"));
    }
}
