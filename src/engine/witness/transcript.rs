//! The dialogue itself, kept where somebody wants to read it or say it again.

use crate::addr::Side;
use crate::engine::{TranscriptEntry, TranscriptItem};
use crate::time::Timestamp;

/// Octets of one dialogue that are kept, with what each piece costs; what is said later is told by its length alone.
const MAX_KEPT: usize = 64 << 20;
const PIECE: usize = 64;

/// Keeps nothing unless it was asked to.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    wanted: bool,
    said: Vec<TranscriptEntry>,
    kept: usize,
}

impl Transcript {
    pub(super) const fn want(&mut self) {
        self.wanted = true;
    }

    /// In the order in which it was said; what had to wait to be understood was said before.
    pub(super) fn take(&mut self) -> Vec<TranscriptEntry> {
        let mut said = std::mem::take(&mut self.said);
        said.sort_by_key(|said| said.at);
        said
    }

    pub(super) fn line(&mut self, from: Side, octets: &[u8], at: Timestamp) {
        self.octets(from, octets, at, TranscriptItem::Line);
    }

    pub(super) fn content(&mut self, from: Side, octets: &[u8], at: Timestamp) {
        self.octets(from, octets, at, TranscriptItem::Content);
    }

    pub(super) fn encrypted(&mut self, from: Side, count: u64, at: Timestamp) {
        self.push(TranscriptEntry { at, from, what: TranscriptItem::Encrypted(count) });
    }

    pub(super) fn omitted(&mut self, from: Side, length: u64, at: Timestamp) {
        if self.kept + PIECE > MAX_KEPT {
            return self.gap(from, length, at);
        }
        self.kept += PIECE;
        self.push(TranscriptEntry { at, from, what: TranscriptItem::Omitted(length) });
    }

    pub(super) fn gap(&mut self, from: Side, length: u64, at: Timestamp) {
        self.push(TranscriptEntry { at, from, what: TranscriptItem::Gap(length) });
    }

    pub(super) fn closed(&mut self, from: Side, at: Timestamp) {
        self.push(TranscriptEntry { at, from, what: TranscriptItem::Closed });
    }

    fn octets(
        &mut self,
        from: Side,
        octets: &[u8],
        at: Timestamp,
        what: impl FnOnce(Vec<u8>) -> TranscriptItem,
    ) {
        if !self.wanted || octets.is_empty() {
            return;
        }
        let cost = octets.len() + PIECE;
        if self.kept + cost > MAX_KEPT {
            return self.gap(from, octets.len() as u64, at);
        }
        self.kept += cost;
        self.push(TranscriptEntry { at, from, what: what(octets.to_vec()) });
    }

    fn push(&mut self, said: TranscriptEntry) {
        if !self.wanted {
            return;
        }
        // Beyond its bound a transcript does not grow by pieces either.
        if let Some(last) = self.said.last_mut()
            && last.from == said.from
            && let (TranscriptItem::Gap(before), TranscriptItem::Gap(more))
            | (TranscriptItem::Omitted(before), TranscriptItem::Omitted(more))
            | (TranscriptItem::Encrypted(before), TranscriptItem::Encrypted(more)) =
                (&mut last.what, &said.what)
        {
            *before = before.saturating_add(*more);
        } else {
            self.said.push(said);
        }
    }
}
