//! The suspicion of a PMTU black hole: large segments vanish, small ones pass (RFC 2923 §2.1). The rule stands at
//! [`super::FlowFacts::black_hole`].

/// A segment that may be too large for the path carries at least so much.
const LARGE: u32 = 1000;
/// Sent so often without an ACK, it is suspicious.
const TRIES: u32 = 3;

/// The large segments of one side.
#[derive(Debug, Default)]
pub(super) struct LargeSegments {
    /// The largest that was acknowledged.
    passed: u32,
    /// One larger than that, on its way: its size and where it ends.
    flying: Option<(u32, i64)>,
    /// The lowest large one that is not acknowledged.
    stuck: Option<Stuck>,
    confirmed: bool,
}

#[derive(Debug)]
struct Stuck {
    position: i64,
    /// As first retransmitted: what a sending host captures first may be many segments in one (offload).
    size: u32,
    times: u32,
    /// The last segment from there, whatever its size.
    last: u32,
}

impl LargeSegments {
    /// A segment of `size` bytes was sent from `position`, with all before it acknowledged or not; `mss` is what its
    /// receiver takes at most.
    pub(super) fn sent(&mut self, position: i64, size: u32, at_edge: bool, mss: Option<u16>) {
        let size = mss.map_or(size, |mss| size.min(mss.into()));
        if size <= self.passed && self.stuck.is_none() {
            return;
        }
        match &mut self.flying {
            // Sent again, perhaps in parts: what passes then is not known.
            Some((_, end)) if position < *end => self.flying = None,
            Some(_) => {}
            none => *none = Some((size, position + i64::from(size))),
        }
        match &mut self.stuck {
            None if size >= LARGE && size > self.passed => {
                self.stuck = Some(Stuck { position, size, times: 1, last: size });
            }
            Some(stuck) if stuck.position == position && at_edge => {
                stuck.last = size;
                if size >= LARGE && (stuck.times <= 1 || size >= stuck.size) {
                    if stuck.times <= 1 {
                        stuck.size = size;
                    }
                    stuck.times += 1;
                }
            }
            _ => {}
        }
    }

    /// The peer acknowledged all before `position`.
    pub(super) fn acknowledged(&mut self, position: i64) {
        if let Some((size, _)) = self.flying.take_if(|(_, end)| *end <= position) {
            self.passed = self.passed.max(size);
        }
        if let Some(stuck) = self.stuck.take_if(|stuck| stuck.position < position) {
            self.confirmed |= stuck.times >= TRIES && stuck.last < stuck.size;
        }
    }

    /// Somebody said that they are too large.
    pub(super) fn told(&mut self) {
        if let Some(stuck) = &mut self.stuck {
            stuck.times = 0;
        }
    }

    pub(super) fn suspected(&self) -> bool {
        self.confirmed || self.stuck.as_ref().is_some_and(|stuck| stuck.times >= TRIES)
    }
}
