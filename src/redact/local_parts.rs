//! Local parts: letters in their place, equal ones for equal ones.

use std::collections::BTreeSet;
use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

/// Bytes of local parts that one session may have before the server's words are no longer shown, since not all that they
/// could repeat would be known.
const MOST: usize = 64 * 1024;

/// The keyed replacement, and the local parts that one session named so far.
#[derive(Clone, Debug)]
pub(super) struct LocalParts {
    hasher: SipHasher24,
    /// In lower case.
    named: BTreeSet<Vec<u8>>,
    bytes: usize,
}

impl LocalParts {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        // A key of its own for this use: the hash, keyed by one half, of a name for the use.
        let (half, _) = key.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        let derive = |name: &[u8]| SipHasher24::new_with_key(half).hash(name);
        let (low, high) = (derive(b"local parts, low"), derive(b"local parts, high"));
        Self { hasher: SipHasher24::new_with_keys(low, high), named: BTreeSet::new(), bytes: 0 }
    }

    /// Letters for a local part, as many as it has bytes. Short ones may share their letters.
    pub(super) fn letters(&self, local: &[u8]) -> Vec<u8> {
        let mut hasher = self.hasher;
        hasher.write(&local.to_ascii_lowercase());
        let blocks = (0u64..).flat_map(|block| {
            let mut hasher = hasher;
            hasher.write_u64(block);
            hasher.finish().to_be_bytes()
        });
        blocks.map(|byte| b'a' + byte % 26).take(local.len()).collect()
    }

    /// The session named it, and the server may repeat it.
    pub(super) fn name(&mut self, local: &[u8]) {
        if !local.is_empty() && self.all_known() && self.named.insert(local.to_ascii_lowercase()) {
            self.bytes += local.len();
        }
    }

    /// False once there were too many to remember.
    pub(super) const fn all_known(&self) -> bool {
        self.bytes <= MOST
    }

    pub(super) fn named(&self) -> impl Iterator<Item = &[u8]> {
        self.named.iter().map(Vec::as_slice)
    }
}
