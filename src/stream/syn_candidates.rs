//! SYNs in the middle of a flow, with other sequence numbers than its own.
//!
//! Each starts a new flow unless later segments show that the old one continues: ports are reused, and the capture may
//! lack the end of the previous connection.

use crate::addr::Side;
use crate::wire::Segment;

/// Maximum per flow.
const MAX_CANDIDATES: usize = 8;

/// Which flow a segment with this flow's addresses belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    ThisFlow,
    /// A flow that starts with this segment, or with the candidate SYNs.
    NewFlow,
    /// Unknown until later segments arrive.
    Undecided,
}

#[derive(Clone, Copy, Debug)]
struct SynCandidate {
    from: Side,
    syn: Segment<'static>,
}

#[derive(Debug, Default)]
pub(super) struct SynCandidates(Vec<SynCandidate>);

impl SynCandidates {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push(&mut self, from: Side, syn: &Segment<'_>) {
        if self.0.len() < MAX_CANDIDATES {
            let syn = Segment { payload: &[], omitted: 0, len: 0, ..*syn };
            self.0.push(SynCandidate { from, syn });
        }
    }

    /// Removes all candidates, oldest first.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Segment<'static>> + use<> {
        std::mem::take(&mut self.0).into_iter().map(|candidate| candidate.syn)
    }

    /// Discards all candidates: the old flow continues.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Exchanges client and server, after the roles turned out to be reversed.
    pub(super) fn swap_sides(&mut self) {
        for candidate in &mut self.0 {
            candidate.from = candidate.from.other();
        }
    }

    /// Whether `segment`, sent by `from`, continues one of the candidates: it acknowledges exactly that SYN, or lies nearer
    /// to its first byte than to the old flow's next one. `distance(side, number)` is the distance of sequence number
    /// `number` from the next byte of `side` in the old flow.
    pub(super) fn continued_by(
        &self,
        from: Side,
        segment: &Segment<'_>,
        distance: impl Fn(Side, u32) -> u64,
    ) -> bool {
        self.0.iter().any(|candidate| {
            let number = if from != candidate.from {
                segment.ack
            } else if segment.syn {
                None
            } else {
                Some(segment.seq)
            };
            number.is_some_and(|number| {
                let first = candidate.syn.seq.wrapping_add(1);
                let from_first = number.wrapping_sub(first).cast_signed().unsigned_abs();
                from_first == 0
                    || !segment.syn && u64::from(from_first) < distance(candidate.from, number)
            })
        })
    }
}
