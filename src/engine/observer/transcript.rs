//! The dialogue itself, kept for `replay --session` and re-enactments.

use crate::addr::Side;
use crate::engine::record::{TranscriptEntry, TranscriptItem};
use crate::time::Timestamp;

/// Bytes of one dialogue that are kept, with the overhead of each entry; of later ones only the length.
const MAX_KEPT: usize = 64 << 20;
const ENTRY_OVERHEAD: usize = 64;

/// Keeps nothing unless [`Transcript::keep`] was called.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    is_kept: bool,
    entries: Vec<TranscriptEntry>,
    kept: usize,
}

impl Transcript {
    pub(super) const fn keep(&mut self) {
        self.is_kept = true;
    }

    /// In the order of sending: bytes that were held have the time at which they were captured.
    pub(super) fn take(&mut self) -> Vec<TranscriptEntry> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by_key(|entry| entry.at);
        entries
    }

    pub(super) fn line(&mut self, from: Side, bytes: &[u8], at: Timestamp) {
        self.bytes(from, bytes, at, TranscriptItem::Line);
    }

    pub(super) fn content(&mut self, from: Side, bytes: &[u8], at: Timestamp) {
        self.bytes(from, bytes, at, TranscriptItem::Content);
    }

    pub(super) fn encrypted(&mut self, from: Side, count: u64, at: Timestamp) {
        self.push(TranscriptEntry { at, from, item: TranscriptItem::Encrypted(count) });
    }

    pub(super) fn omitted(&mut self, from: Side, length: u64, at: Timestamp) {
        if self.kept + ENTRY_OVERHEAD > MAX_KEPT {
            return self.gap(from, length, at);
        }
        self.kept += ENTRY_OVERHEAD;
        self.push(TranscriptEntry { at, from, item: TranscriptItem::Omitted(length) });
    }

    pub(super) fn gap(&mut self, from: Side, length: u64, at: Timestamp) {
        self.push(TranscriptEntry { at, from, item: TranscriptItem::Gap(length) });
    }

    pub(super) fn closed(&mut self, from: Side, at: Timestamp) {
        self.push(TranscriptEntry { at, from, item: TranscriptItem::Closed });
    }

    fn bytes(
        &mut self,
        from: Side,
        bytes: &[u8],
        at: Timestamp,
        item: impl FnOnce(Vec<u8>) -> TranscriptItem,
    ) {
        if !self.is_kept || bytes.is_empty() {
            return;
        }
        let cost = bytes.len() + ENTRY_OVERHEAD;
        if self.kept + cost > MAX_KEPT {
            return self.gap(from, bytes.len() as u64, at);
        }
        self.kept += cost;
        self.push(TranscriptEntry { at, from, item: item(bytes.to_vec()) });
    }

    fn push(&mut self, entry: TranscriptEntry) {
        if !self.is_kept {
            return;
        }
        // Adjacent counts merge, so that a transcript at its bound does not grow by entries either.
        if let Some(last) = self.entries.last_mut()
            && last.from == entry.from
            && let (TranscriptItem::Gap(before), TranscriptItem::Gap(more))
            | (TranscriptItem::Omitted(before), TranscriptItem::Omitted(more))
            | (TranscriptItem::Encrypted(before), TranscriptItem::Encrypted(more)) =
                (&mut last.item, &entry.item)
        {
            *before = before.saturating_add(*more);
        } else {
            self.entries.push(entry);
        }
    }
}
