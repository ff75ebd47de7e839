//! SYNs in the middle of a flow, with other sequence numbers than its own.
//!
//! Each begins a new flow, unless what comes next shows that the old one goes on: ports serve again, and of a connection
//! that ended the capture may lack the end.

use crate::addr::Side;
use crate::wire::Segment;

/// So many are kept of a flow.
const MOST: usize = 8;

/// What a segment is to a flow that has its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    ToThisFlow,
    /// To one that begins with it, or with the SYNs that were seen in the middle of this one.
    ToANewFlow,
    /// That is still open.
    Nowhere,
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

    /// Another SYN, of `from`.
    pub(super) fn push(&mut self, from: Side, syn: &Segment<'_>) {
        if self.0.len() < MOST {
            self.0.push(SynCandidate {
                from,
                syn: Segment { payload: &[], omitted: 0, len: 0, ..*syn },
            });
        }
    }

    /// All of them, oldest first; none is left.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Segment<'static>> + use<> {
        std::mem::take(&mut self.0).into_iter().map(|rival| rival.syn)
    }

    /// The old flow goes on.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Client and server were taken for each other.
    pub(super) fn swap(&mut self) {
        for rival in &mut self.0 {
            rival.from = rival.from.other();
        }
    }

    /// Whether `segment`, of `from`, goes on with one of them: it answers exactly that SYN, or lies nearer to its beginning
    /// than to what the flow said last. `from_last(side, number)` tells how far `number` lies from that in what `side` says.
    pub(super) fn go_on_with(
        &self,
        from: Side,
        segment: &Segment<'_>,
        from_last: impl Fn(Side, u32) -> u64,
    ) -> bool {
        self.0.iter().any(|rival| {
            let said = if from != rival.from {
                segment.ack
            } else if segment.syn {
                None
            } else {
                Some(segment.seq)
            };
            said.is_some_and(|number| {
                let first = rival.syn.seq.wrapping_add(1);
                let from_first = number.wrapping_sub(first).cast_signed().unsigned_abs();
                from_first == 0
                    || !segment.syn && u64::from(from_first) < from_last(rival.from, number)
            })
        })
    }
}
