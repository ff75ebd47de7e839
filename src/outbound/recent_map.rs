//! A map of bounded size that drops what was not used for the longest time.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::time::Timestamp;

#[derive(Clone, Debug)]
pub(super) struct RecentMap<K, V> {
    capacity: usize,
    known: HashMap<K, Entry<V>>,
}

#[derive(Clone, Debug)]
struct Entry<V> {
    last: Timestamp,
    value: V,
}

impl<K: Clone + Eq + Hash, V: Default> RecentMap<K, V> {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, known: HashMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.known.get(key).map(|entry| &entry.value)
    }

    /// Does not count as a use.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.known.get_mut(key).map(|entry| &mut entry.value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.known.iter().map(|(key, entry)| (key, &entry.value))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.known.iter_mut().map(|(key, entry)| (key, &mut entry.value))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.known.values_mut().map(|entry| &mut entry.value)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.known.values().map(|entry| &entry.value)
    }

    /// The value of a key that is used now.
    pub(super) fn used(&mut self, key: &K, at: Timestamp) -> &mut V {
        if !self.known.contains_key(key) && self.known.len() >= self.capacity {
            self.drop_oldest();
        }
        let new = || Entry { last: at, value: V::default() };
        let entry = self.known.entry(key.clone()).or_insert_with(new);
        entry.last = entry.last.max(at);
        &mut entry.value
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.known.remove(key).map(|entry| entry.value)
    }

    /// Drops what was not used for `time`.
    pub(super) fn expire(&mut self, now: Timestamp, time: Duration) {
        self.known.retain(|_, entry| now.since(entry.last) < time);
    }

    /// A sixteenth at once, so that the search for them costs little for each new key.
    fn drop_oldest(&mut self) {
        let mut left = (self.capacity / 16).max(1);
        let mut times: Vec<_> = self.known.values().map(|entry| entry.last).collect();
        let (_, limit, _) = times.select_nth_unstable(left - 1);
        let limit = *limit;
        self.known.retain(|_, entry| {
            let dropped = left > 0 && entry.last <= limit;
            left -= usize::from(dropped);
            !dropped
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_nanos(0) + Duration::from_secs(second)
    }

    #[test]
    fn the_least_recently_used_are_dropped() {
        let mut map: RecentMap<u64, u64> = RecentMap::new(64);
        for key in 0..64 {
            *map.used(&key, at(key)) = key;
        }
        map.used(&0, at(100));
        map.used(&64, at(101));
        assert_eq!(map.len(), 61);
        let left: Vec<u64> = (0..=64).filter(|key| map.get(key).is_some()).collect();
        assert_eq!(left, [vec![0], (5..=64).collect()].concat());
        map.expire(at(101), Duration::from_secs(50));
        assert_eq!(map.len(), 14);
    }

    #[test]
    fn of_the_same_time_no_more_are_dropped() {
        let mut map: RecentMap<u64, ()> = RecentMap::new(64);
        (0..65).for_each(|key| *map.used(&key, at(0)) = ());
        assert_eq!(map.len(), 61);
    }
}
