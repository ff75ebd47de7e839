//! Where a fact comes from: source and age of the answers that it rests on.

use super::{LookupResult, Source};
use crate::time::Timestamp;

/// Of several answers, the greatest source and the oldest time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Provenance {
    pub(super) source: Source,
    pub(super) at: Option<Timestamp>,
}

impl Provenance {
    /// The neutral element of [`Self::and`]: no answer yet.
    pub(super) const START: Self = Self { source: Source::Capture, at: None };
    /// The fact follows from the client's own words, without a lookup.
    pub(super) const NO_LOOKUP: Self = Self { source: Source::None, at: None };

    pub(super) const fn of(result: &LookupResult) -> Self {
        Self { source: result.source, at: result.at }
    }

    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        let at = [self.at, other.at].into_iter().flatten().min();
        Self { source: self.source.max(other.source), at }
    }
}
