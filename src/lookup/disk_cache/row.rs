//! A row of the file: a lookup as JSON, and its entry as a checksum and JSON; or the name of a state, and a checksum and bytes.
//!
//! redb detects damage to its own structure, not a row that some other program or a failing disk changed. The checksum is
//! SipHash-1-3 (64 bits) with a fixed key over lookup and entry: it detects accidents, it is no protection against whoever can write
//! the file.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::lookup::cache_entry::CacheEntry;
use crate::policy::facts::Lookup;

const CHECKSUM: usize = size_of::<u64>();

/// The result of reading a row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Row {
    Answer(Box<(Lookup, CacheEntry)>),
    /// Unchanged, in the form of another version.
    Unreadable,
    /// Not as it was written: it must not be believed.
    Damaged,
}

impl Row {
    pub(super) fn read(key: &str, value: &[u8]) -> Self {
        let Some(json) = verified(key, value) else { return Self::Damaged };
        match (serde_json::from_str(key), serde_json::from_slice(json)) {
            (Ok(lookup), Ok(entry)) => Self::Answer(Box::new((lookup, entry))),
            _ => Self::Unreadable,
        }
    }

    /// Key and value; `None` if the answer cannot be serialized, which does not happen: plain data with string keys.
    pub(super) fn write(lookup: &Lookup, entry: &CacheEntry) -> Option<(String, Vec<u8>)> {
        let key = Self::key(lookup)?;
        let json = serde_json::to_vec(entry).ok()?;
        let value = with_checksum(&key, &json);
        Some((key, value))
    }

    pub(super) fn key(lookup: &Lookup) -> Option<String> {
        serde_json::to_string(lookup).ok()
    }
}

/// The state of another part of the gateway, whose form only that part knows.
pub(super) struct StateRow;

impl StateRow {
    /// `None` if it is not as it was written.
    pub(super) fn read<'v>(name: &str, value: &'v [u8]) -> Option<&'v [u8]> {
        verified(name, value)
    }

    pub(super) fn write(name: &str, state: &[u8]) -> Vec<u8> {
        with_checksum(name, state)
    }
}

fn with_checksum(key: &str, bytes: &[u8]) -> Vec<u8> {
    [checksum(key, bytes).as_slice(), bytes].concat()
}

fn verified<'v>(key: &str, value: &'v [u8]) -> Option<&'v [u8]> {
    let (stored, bytes) = value.split_first_chunk::<CHECKSUM>()?;
    (*stored == checksum(key, bytes)).then_some(bytes)
}

fn checksum(key: &str, json: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = SipHasher13::new();
    hasher.write_usize(key.len());
    hasher.write(key.as_bytes());
    hasher.write(json);
    hasher.finish().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lookup::clock::now;
    use crate::policy::facts::{Answer, LookupResult, Source};

    #[test]
    fn no_changed_byte_is_believed() {
        let lookup = Lookup::Greet("2001:db8::25".parse().unwrap());
        let result = LookupResult { answer: Answer::Yes(None), source: Source::Probe, at: None };
        // In the file times have microseconds.
        let now = serde_json::from_value(serde_json::json!(now())).unwrap();
        let entry = CacheEntry::new(result, now, Duration::from_secs(60));
        let (key, value) = Row::write(&lookup, &entry).unwrap();
        assert_eq!(Row::read(&key, &value), Row::Answer(Box::new((lookup, entry))));
        for at in 0..value.len() {
            for bit in 0..8 {
                let mut changed = value.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(Row::read(&key, &changed), Row::Damaged, "bit {bit} of byte {at}");
            }
            assert_eq!(Row::read(&key, &value[..at]), Row::Damaged, "cut at {at}");
        }
        // The answer to another question, and one for nothing.
        assert_eq!(Row::read(&key.replace("25", "26"), &value), Row::Damaged);
        assert_eq!(Row::read("", &[]), Row::Damaged);
    }
}
