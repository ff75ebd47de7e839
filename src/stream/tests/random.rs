//! Random dialogues: segmented, reordered, duplicated, lost.

use proptest::prelude::*;

use super::*;

/// A delivered byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Byte {
    Known(u8),
    Omitted,
    Gap,
}

/// Delivered bytes of both sides.
#[derive(Default)]
struct Sides {
    bytes: [Vec<Byte>; 2],
    ended: [bool; 2],
}

impl FlowHandler for Sides {
    fn on_data(&mut self, from: Side, bytes: &[u8], _: Timestamp) {
        assert!(!self.ended[from.index()]);
        self.bytes[from.index()].extend(bytes.iter().copied().map(Byte::Known));
    }

    fn on_gap(&mut self, from: Side, length: u64, _: Timestamp) {
        let side = &mut self.bytes[from.index()];
        side.resize(side.len() + length as usize, Byte::Gap);
    }

    fn on_omitted(&mut self, from: Side, length: u64, _: Timestamp) {
        let side = &mut self.bytes[from.index()];
        side.resize(side.len() + length as usize, Byte::Omitted);
    }

    fn on_close(&mut self, from: Side, _: Timestamp) {
        self.ended[from.index()] = true;
    }
}

#[derive(Default)]
struct Flows(Vec<(FlowFacts, Sides)>);

impl FlowSink<Sides> for Flows {
    fn on_start(&mut self, _: &FlowStart) -> Sides {
        Sides::default()
    }

    fn is_greeting(&self, first: &[u8]) -> Option<bool> {
        Some(first.first() == Some(&b'A'))
    }

    fn on_end(&mut self, facts: FlowFacts, sides: Sides) {
        self.0.push((facts, sides));
    }
}

/// Delivered lengths only: a gap may have a gigabyte.
#[derive(Default)]
struct DeliveredLengths([u64; 2]);

impl FlowHandler for DeliveredLengths {
    fn on_data(&mut self, from: Side, bytes: &[u8], _: Timestamp) {
        self.0[from.index()] += bytes.len() as u64;
    }

    fn on_gap(&mut self, from: Side, length: u64, _: Timestamp) {
        self.0[from.index()] += length;
    }

    fn on_omitted(&mut self, from: Side, length: u64, at: Timestamp) {
        self.on_gap(from, length, at);
    }

    fn on_close(&mut self, _: Side, _: Timestamp) {}
}

#[derive(Default)]
struct EndCounts {
    over: u64,
    evicted: u64,
}

impl FlowSink<DeliveredLengths> for EndCounts {
    fn on_start(&mut self, _: &FlowStart) -> DeliveredLengths {
        DeliveredLengths::default()
    }

    fn is_greeting(&self, first: &[u8]) -> Option<bool> {
        first.first().map(|byte| *byte < 3)
    }

    fn on_end(&mut self, facts: FlowFacts, lengths: DeliveredLengths) {
        assert_eq!(facts.bytes, lengths.0);
        self.over += 1;
        self.evicted += u64::from(facts.evicted);
    }
}

/// A segment after the handshake, in positions.
#[derive(Clone, Debug)]
struct TestSegment {
    side: Side,
    from: u64,
    to: u64,
    ack: u64,
    fin: bool,
    /// Bytes omitted at its start.
    omitted: u64,
}

impl TestSegment {
    const fn bare(side: Side, at: u64, ack: u64, fin: bool) -> Self {
        Self { side, from: at, to: at, ack, fin, omitted: 0 }
    }
}

/// Turns of a dialogue: sender, length and segment size.
fn dialogue() -> impl Strategy<Value = Vec<TestSegment>> {
    // Segments are long enough for a reordered duplicate to arrive before the timeout.
    let turn = (any::<bool>(), 1u64..400, 10u64..150);
    proptest::collection::vec(turn, 1..12).prop_map(|mut turns| {
        // The server sends the greeting.
        turns.insert(0, (false, 30, 20));
        let mut sent = [0; 2];
        let mut segments = Vec::new();
        for (client, length, size) in turns {
            let side = if client { Side::Client } else { Side::Server };
            let end = sent[side.index()] + length;
            while sent[side.index()] < end {
                let from = sent[side.index()];
                let to = (from + size).min(end);
                sent[side.index()] = to;
                let ack = sent[side.other().index()];
                segments.push(TestSegment { side, from, to, ack, fin: false, omitted: 0 });
            }
            // The peer acknowledges the turn.
            segments.push(TestSegment::bare(side.other(), sent[side.other().index()], end, false));
        }
        let [c, s] = sent;
        segments.push(TestSegment::bare(Side::Client, c, s, true));
        segments.push(TestSegment::bare(Side::Server, s, c + 1, true));
        segments.push(TestSegment::bare(Side::Client, c + 1, s + 1, false));
        segments
    })
}

struct Wire {
    table: FlowTable<Sides>,
    flows: Flows,
    isn: [u32; 2],
    at: u64,
    /// Capturing interface, by [`Side::index`].
    interfaces: [u32; 2],
}

impl Wire {
    fn new(isn: [u32; 2], port: u16) -> Self {
        Self::with_interfaces(isn, port, [0; 2])
    }

    fn with_interfaces(isn: [u32; 2], port: u16, interfaces: [u32; 2]) -> Self {
        let ports = WatchedPorts::new([port]);
        let table = FlowTable::new(FlowLimits::default(), ports);
        let mut wire = Self { table, flows: Flows::default(), isn, at: 0, interfaces };
        wire.send(&TestSegment::bare(Side::Client, 0, 0, false), true);
        wire.send(&TestSegment::bare(Side::Server, 0, 0, false), true);
        wire.send(&TestSegment::bare(Side::Client, 0, 0, false), false);
        wire
    }

    fn send(&mut self, segment: &TestSegment, syn: bool) {
        self.at += 10_000;
        let addresses: [SocketAddr; 2] =
            ["192.0.2.1:4000", "192.0.2.2:25"].map(|a| a.parse().unwrap());
        let (side, peer) = (segment.side.index(), segment.side.other().index());
        let payload = bytes(segment.side, segment.from + segment.omitted..segment.to);
        let seq = |side: usize, at: u64| self.isn[side].wrapping_add(1).wrapping_add(at as u32);
        let segment = Segment {
            at: Timestamp::from_nanos(self.at),
            src: addresses[side],
            dst: addresses[peer],
            seq: seq(side, segment.from).wrapping_sub(u32::from(syn)),
            ack: (!syn || segment.side == Side::Server).then(|| seq(peer, segment.ack)),
            syn,
            fin: segment.fin,
            rst: false,
            window: 1000,
            mss: None,
            omitted: segment.omitted as u32,
            payload: &payload,
            len: (segment.to - segment.from) as u32,
            interface: self.interfaces[side],
        };
        self.table.on_segment(&segment, &mut self.flows);
    }

    fn end(mut self) -> (FlowFacts, Sides) {
        self.table.finish(&mut self.flows);
        assert_eq!(self.flows.0.len(), 1);
        self.flows.0.remove(0)
    }
}

/// Total length of each side.
fn lengths(segments: &[TestSegment]) -> [u64; 2] {
    Side::ALL.map(|side| {
        let ends =
            segments.iter().filter(|segment| segment.side == side && segment.to > segment.from);
        ends.map(|segment| segment.to).max().unwrap_or(0)
    })
}

/// Moves each segment by less than `window` places and duplicates some, partly with preceding bytes.
fn disturb(segments: &[TestSegment], keys: &[u16], window: u64) -> Vec<TestSegment> {
    let key = |at: usize| u64::from(keys[at % keys.len()]);
    let mut placed = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        placed.push((at as u64 + key(at) % window, segment.clone()));
        if key(at) & 0x300 == 0 {
            let before = if segment.to > segment.from { key(at + 1) % 100 } else { 0 };
            let from = segment.from.saturating_sub(before);
            // A retransmit may show more or fewer bytes.
            let omitted = if key(at) & 0x400 == 0 { 0 } else { segment.omitted };
            let wider = TestSegment { from, omitted, ..segment.clone() };
            placed.push((at as u64 + key(at + 1) % window, wider));
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, segment)| segment).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn complete_captures_deliver_every_byte_once(
        segments in dialogue(),
        keys in proptest::collection::vec(any::<u16>(), 1..40),
        window in 1u64..16,
        isn in prop_oneof![any::<[u32; 2]>(), Just([u32::MAX - 200, u32::MAX - 3])],
        watched in any::<bool>(),
    ) {
        let mut wire = Wire::new(isn, if watched { 25 } else { 26 });
        for segment in disturb(&segments, &keys, window) {
            wire.send(&segment, false);
        }
        let lengths = lengths(&segments);
        let counts = *wire.table.counters();
        let (facts, sides) = wire.end();
        for side in Side::ALL {
            let expected: Vec<_> = bytes(side, 0..lengths[side.index()]).into_iter().map(Byte::Known).collect();
            prop_assert_eq!(&sides.bytes[side.index()], &expected);
        }
        prop_assert_eq!(facts.bytes, lengths);
        prop_assert_eq!((facts.gaps, counts.conflicts, sides.ended), (0, 0, [true; 2]));
        prop_assert_eq!(facts.outcome, FlowOutcome::Established);
    }

    #[test]
    fn lost_segments_become_gaps_in_place(
        segments in dialogue(),
        keys in proptest::collection::vec(any::<u16>(), 1..40),
        window in 1u64..16,
        lost in proptest::collection::vec(any::<bool>(), 1..30),
        isn in any::<[u32; 2]>(),
    ) {
        let mut wire = Wire::new(isn, 25);
        // The end is kept, so the total length is known.
        let body = segments.len() - 3;
        let is_lost = |at: usize| at < body && lost[at % lost.len()];
        let kept: Vec<TestSegment> = (0..).zip(&segments).filter(|(at, _)| !is_lost(*at)).map(|(_, segment)| segment.clone()).collect();
        let order = disturb(&kept, &keys, window);
        let lengths = lengths(&segments);
        let mut seen = Side::ALL.map(|side| vec![Byte::Gap; lengths[side.index()] as usize]);
        for segment in &order {
            for at in segment.from..segment.to.min(lengths[segment.side.index()]) {
                seen[segment.side.index()][at as usize] = Byte::Known(byte(segment.side, at));
            }
            wire.send(segment, false);
        }
        let (facts, sides) = wire.end();
        let is_gap = |byte: &Byte| *byte == Byte::Gap;
        let gaps = |side: &[Byte]| side.chunk_by(|a, b| is_gap(a) == is_gap(b)).filter(|run| is_gap(&run[0])).count();
        prop_assert_eq!(&sides.bytes, &seen);
        prop_assert_eq!(facts.bytes, lengths);
        let least = gaps(&seen[0]) + gaps(&seen[1]);
        prop_assert!(facts.gaps >= least as u64);
    }

    /// Bytes that no copy shows are delivered as omitted, bytes that every copy shows as data, and none is missing.
    #[test]
    fn omitted_bytes_never_become_gaps(
        segments in dialogue(),
        keys in proptest::collection::vec(any::<u16>(), 1..40),
        omitted in proptest::collection::vec(prop_oneof![Just(0), 0u64..150], 1..30),
        window in 1u64..16,
        isn in any::<[u32; 2]>(),
    ) {
        let mut wire = Wire::new(isn, 25);
        let omitting = |(at, segment): (usize, &TestSegment)| {
            // The greeting identifies the server.
            let most = if at < 2 { 0 } else { segment.to - segment.from };
            TestSegment { omitted: omitted[at % omitted.len()].min(most), ..segment.clone() }
        };
        let segments: Vec<TestSegment> = segments.iter().enumerate().map(omitting).collect();
        let lengths = lengths(&segments);
        let mut shown = Side::ALL.map(|side| vec![[false; 2]; lengths[side.index()] as usize]);
        for segment in disturb(&segments, &keys, window) {
            for at in segment.from..segment.to {
                shown[segment.side.index()][at as usize][usize::from(at >= segment.from + segment.omitted)] = true;
            }
            wire.send(&segment, false);
        }
        let (table_omitted, (facts, sides)) = {
            let mut wire = wire;
            wire.table.finish(&mut wire.flows);
            (wire.table.counters().bytes_omitted, wire.flows.0.remove(0))
        };
        let mut omitted_count = 0;
        for side in Side::ALL {
            prop_assert_eq!(sides.bytes[side.index()].len(), shown[side.index()].len());
            for (at, (delivered, shown)) in (0..).zip(sides.bytes[side.index()].iter().zip(&shown[side.index()])) {
                let known = Byte::Known(byte(side, at));
                prop_assert!(*delivered == known && shown[1] || *delivered == Byte::Omitted && shown[0], "{delivered:?} at {at}");
                omitted_count += u64::from(*delivered == Byte::Omitted);
            }
        }
        prop_assert_eq!((facts.gaps, facts.bytes, table_omitted), (0, lengths, omitted_count));
        prop_assert_eq!(sides.ended, [true; 2]);
    }

    /// Copies on another interface, earlier or later, change nothing.
    #[test]
    fn copies_on_another_interface_are_ignored(
        segments in dialogue(),
        keys in proptest::collection::vec(any::<u16>(), 1..40),
        delays in proptest::collection::vec(-3i64..20, 1..30),
        way in any::<[bool; 2]>(),
        window in 1u64..16,
    ) {
        let order = disturb(&segments, &keys, window);
        let mut alone = Wire::new([7, 8], 25);
        order.iter().for_each(|segment| alone.send(segment, false));
        let mut both: Vec<(i64, bool, &TestSegment)> = Vec::new();
        for (at, segment) in (0..).zip(&order) {
            both.push((at, false, segment));
            both.push((at + delays[at as usize % delays.len()], true, segment));
        }
        both.sort_by_key(|(at, ..)| *at);
        let way = way.map(u32::from);
        let mut wire = Wire::with_interfaces([7, 8], 25, way);
        for (_, is_copy, segment) in both {
            wire.interfaces = if is_copy { way.map(|way| 1 - way) } else { way };
            wire.send(segment, false);
        }
        let ((facts, sides), (expected, due_sides)) = (wire.end(), alone.end());
        prop_assert_eq!(sides.bytes, due_sides.bytes);
        prop_assert_eq!((facts.bytes, facts.gaps, facts.syns), (expected.bytes, expected.gaps, expected.syns));
        prop_assert_eq!(facts.retransmits, expected.retransmits);
        prop_assert_eq!(facts.data_segments, expected.data_segments);
    }

    #[test]
    fn arbitrary_segments_stay_within_the_limits(
        segments in proptest::collection::vec(any::<[u8; 9]>(), 0..400),
        held in 0usize..4000,
    ) {
        let limits = FlowLimits { flows: 3, held_per_flow: held / 2, held, ..FlowLimits::default() };
        let mut table = FlowTable::new(limits, WatchedPorts::default());
        let mut flows = EndCounts::default();
        let mut at = 0;
        for [hosts, seq, seq_high, ack, flags, len, segment, time, window] in segments {
            let host = |low: u8| SocketAddr::new([192, 0, 2, low & 3].into(), if low & 4 == 0 { 25 } else { 4000 });
            at += u64::from(time).pow(4) * 10;
            let far = |low: u8, high: u8| match high & 0xf0 {
                0x10 => u32::from(high & 15) << 28 | u32::from(low),
                _ => 0u32.wrapping_sub(100).wrapping_add(low.into()),
            };
            let len = u32::from(len) * if len & 15 == 1 { 40 } else { 1 };
            let omitted = u32::from(segment & 31) * 4;
            let payload: Vec<u8> = (omitted..len.saturating_sub(u32::from(segment) / 32)).map(|i| i as u8).collect();
            let segment = Segment {
                at: Timestamp::from_nanos(at),
                src: host(hosts),
                dst: host(hosts >> 3),
                seq: far(seq, seq_high),
                ack: (flags & 3 != 0).then(|| far(ack, seq_high)),
                syn: flags & 12 == 4,
                fin: flags & 48 == 16,
                rst: flags & 0xf0 == 0x40,
                window: window.into(),
                mss: None,
                omitted,
                payload: &payload,
                len,
                interface: u32::from(hosts >> 6),
            };
            table.on_segment(&segment, &mut flows);
            prop_assert!(table.held() <= held, "{} of {held}", table.held());
            prop_assert!(table.flows() <= 3);
        }
        table.finish(&mut flows);
        prop_assert_eq!((table.held(), table.flows()), (0, 0));
        let counts = table.counters();
        prop_assert_eq!(counts.flows, flows.over);
        prop_assert_eq!(counts.evicted, flows.evicted);
    }
}
