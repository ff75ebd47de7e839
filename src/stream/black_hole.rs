//! Detection of PMTU black holes: large segments are lost, small ones arrive (RFC 2923 §2.1). The criterion is documented
//! at [`super::FlowFacts::black_hole`].

/// Minimum payload in bytes of a segment that may exceed the path MTU.
const LARGE: u32 = 1000;
/// Transmissions without an ACK that raise the suspicion.
const TRIES: u32 = 3;

/// The large segments of one side.
#[derive(Debug, Default)]
pub(super) struct LargeSegments {
    /// Payload of the largest acknowledged segment.
    largest_acked: u32,
    /// Payload and end position of a larger segment in flight.
    in_flight: Option<(u32, i64)>,
    /// The first large segment without an ACK.
    stuck: Option<StuckSegment>,
    confirmed: bool,
}

#[derive(Debug)]
struct StuckSegment {
    position: i64,
    /// Payload at the first retransmission: the first capture on a sending host may join many segments (offload).
    size: u32,
    times: u32,
    /// Payload of the last segment sent from `position`.
    last: u32,
}

impl LargeSegments {
    /// A segment of `size` bytes was sent from `position`. `at_edge`: all bytes before it are acknowledged. `mss` is the
    /// receiver's maximum.
    pub(super) fn on_sent(&mut self, position: i64, size: u32, at_edge: bool, mss: Option<u16>) {
        let size = mss.map_or(size, |mss| size.min(mss.into()));
        if size <= self.largest_acked && self.stuck.is_none() {
            return;
        }
        match &mut self.in_flight {
            // Retransmitted, possibly in smaller parts: an ACK no longer shows which size arrived.
            Some((_, end)) if position < *end => self.in_flight = None,
            Some(_) => {}
            none => *none = Some((size, position + i64::from(size))),
        }
        match &mut self.stuck {
            None if size >= LARGE && size > self.largest_acked => {
                self.stuck = Some(StuckSegment { position, size, times: 1, last: size });
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

    /// The peer acknowledged all bytes before `position`.
    pub(super) fn on_ack(&mut self, position: i64) {
        if let Some((size, _)) = self.in_flight.take_if(|(_, end)| *end <= position) {
            self.largest_acked = self.largest_acked.max(size);
        }
        if let Some(stuck) = self.stuck.take_if(|stuck| stuck.position < position) {
            self.confirmed |= stuck.times >= TRIES && stuck.last < stuck.size;
        }
    }

    /// A packet-too-big error arrived: earlier transmissions no longer count.
    pub(super) fn on_packet_too_big(&mut self) {
        if let Some(stuck) = &mut self.stuck {
            stuck.times = 0;
        }
    }

    pub(super) fn is_suspected(&self) -> bool {
        self.confirmed || self.stuck.as_ref().is_some_and(|stuck| stuck.times >= TRIES)
    }
}
