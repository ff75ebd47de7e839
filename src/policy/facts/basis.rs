//! What a fact rests on: who answered, and when.

use super::{LookupResult, Source};
use crate::time::Timestamp;

/// Of one or several answers: the last of their sources, the oldest of their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Basis {
    pub(super) source: Source,
    pub(super) at: Option<Timestamp>,
}

impl Basis {
    /// No answer yet; more come.
    pub(super) const BEGIN: Self = Self { source: Source::Capture, at: None };
    /// No answer at all: what the client said tells everything.
    pub(super) const NOBODY: Self = Self { source: Source::None, at: None };

    pub(super) const fn of(answered: &LookupResult) -> Self {
        Self { source: answered.source, at: answered.at }
    }

    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        let at = [self.at, other.at].into_iter().flatten().min();
        Self { source: self.source.max(other.source), at }
    }
}
