//! Body hashes of a message while it streams by: one pass for each canonicalisation, however many signatures there are.

use sha2::{Digest as _, Sha256};

use super::canonical::{BodyCanonicalizer, Canonicalization};

/// The hash of a canonicalised body, or of its first octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BodyHash {
    pub(super) sha256: [u8; 32],
    /// Octets of the canonicalised body that `l=` leaves out.
    pub(super) unsigned_octets: u64,
}

/// Hashes the body under one canonicalisation, for each limit (`l=`) and as a whole.
#[derive(Clone, Debug)]
pub(super) struct BodyDigest {
    canonicalization: Canonicalization,
    canonicalizer: BodyCanonicalizer,
    hashed: Hashed,
}

#[derive(Clone, Debug)]
struct Hashed {
    hash: Sha256,
    /// Octets of the canonicalised body so far.
    length: u64,
    /// In ascending order, `u64::MAX` for the whole body. Those that were reached have the hash.
    limits: Vec<(u64, Option<[u8; 32]>)>,
    /// Those that were reached.
    reached: usize,
}

impl BodyDigest {
    /// `limits`: each `l=`, and `None` for a signature without it.
    pub(super) fn new(canonicalization: Canonicalization, limits: Vec<Option<u64>>) -> Self {
        let limits = limits.into_iter().map(|limit| (limit.unwrap_or(u64::MAX), None));
        let mut limits: Vec<_> = limits.collect();
        limits.sort_unstable();
        limits.dedup();
        let mut hashed = Hashed { hash: Sha256::new(), length: 0, limits, reached: 0 };
        // l=0 is reached before anything is written.
        hashed.reach();
        let canonicalizer = BodyCanonicalizer::new(canonicalization);
        Self { canonicalization, canonicalizer, hashed }
    }

    pub(super) fn write(&mut self, chunk: &[u8]) {
        self.canonicalizer.write(chunk, &mut |bytes| self.hashed.write(bytes));
    }

    pub(super) fn finish(mut self) -> (Canonicalization, BodyHashes) {
        self.canonicalizer.finish(&mut |bytes| self.hashed.write(bytes));
        let Hashed { hash, length, limits, .. } = self.hashed;
        let whole = hash.finalize().into();
        let reached = |(limit, hash): (u64, Option<[u8; 32]>)| (limit, hash.unwrap_or(whole));
        let by_limit = limits.into_iter().map(reached).collect();
        (self.canonicalization, BodyHashes { length, by_limit })
    }
}

impl Hashed {
    fn write(&mut self, mut bytes: &[u8]) {
        while let Some((limit, _)) = self.limits.get(self.reached) {
            let left = usize::try_from(limit.saturating_sub(self.length)).unwrap_or(usize::MAX);
            let (now, after) = bytes.split_at_checked(left).unwrap_or((bytes, b""));
            self.hash.update(now);
            self.length += now.len() as u64;
            bytes = after;
            self.reach();
            if bytes.is_empty() {
                return;
            }
        }
        // No signature needs the hash of more.
        self.length += bytes.len() as u64;
    }

    fn reach(&mut self) {
        while let Some((limit, hash)) = self.limits.get_mut(self.reached)
            && *limit <= self.length
        {
            *hash = Some(self.hash.clone().finalize().into());
            self.reached += 1;
        }
    }
}

/// The hashes of a whole message.
#[derive(Clone, Debug)]
pub(super) struct BodyHashes {
    length: u64,
    by_limit: Vec<(u64, [u8; 32])>,
}

impl BodyHashes {
    /// `None` if no hash with this limit was asked for. RFC 6376 §3.5 forbids an `l=` beyond the end of the body; it is the
    /// whole body, as for other verifiers.
    pub(super) fn get(&self, limit: Option<u64>) -> Option<BodyHash> {
        let limit = limit.unwrap_or(u64::MAX);
        let (_, sha256) = self.by_limit.iter().find(|(other, _)| *other == limit)?;
        Some(BodyHash { sha256: *sha256, unsigned_octets: self.length.saturating_sub(limit) })
    }
}
