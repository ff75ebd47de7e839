//! Conversations cut, shuffled, repeated and lost by chance.

use proptest::prelude::*;

use super::*;

/// An byte, as told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Byte {
    Known(u8),
    Omitted,
    Hole,
}

/// Bytes of both sides, as told.
#[derive(Default)]
struct Sides {
    said: [Vec<Byte>; 2],
    ended: [bool; 2],
}

impl FlowHandler for Sides {
    fn on_data(&mut self, from: Side, bytes: &[u8], _: Timestamp) {
        assert!(!self.ended[from.index()]);
        self.said[from.index()].extend(bytes.iter().copied().map(Byte::Known));
    }

    fn on_gap(&mut self, from: Side, length: u64, _: Timestamp) {
        let side = &mut self.said[from.index()];
        side.resize(side.len() + length as usize, Byte::Hole);
    }

    fn on_omitted(&mut self, from: Side, length: u64, _: Timestamp) {
        let side = &mut self.said[from.index()];
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

/// Only how much was told: a hole may have a gigabyte.
#[derive(Default)]
struct Told([u64; 2]);

impl FlowHandler for Told {
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
struct Lengths {
    over: u64,
    evicted: u64,
}

impl FlowSink<Told> for Lengths {
    fn on_start(&mut self, _: &FlowStart) -> Told {
        Told::default()
    }

    fn is_greeting(&self, first: &[u8]) -> Option<bool> {
        first.first().map(|byte| *byte < 3)
    }

    fn on_end(&mut self, facts: FlowFacts, told: Told) {
        assert_eq!(facts.bytes, told.0);
        self.over += 1;
        self.evicted += u64::from(facts.evicted);
    }
}

/// A segment of a conversation after its handshake, in positions.
#[derive(Clone, Debug)]
struct Cut {
    side: Side,
    from: u64,
    to: u64,
    ack: u64,
    fin: bool,
    /// So many at its beginning are left out.
    omitted: u64,
}

impl Cut {
    const fn bare(side: Side, at: u64, ack: u64, fin: bool) -> Self {
        Self { side, from: at, to: at, ack, fin, omitted: 0 }
    }
}

/// Turns: who says how many bytes, in segments of which size.
fn conversation() -> impl Strategy<Value = Vec<Cut>> {
    // No shorter: what comes again, with what is before it, comes before patience ends.
    let turn = (any::<bool>(), 1u64..400, 10u64..150);
    proptest::collection::vec(turn, 1..12).prop_map(|mut turns| {
        // The server greets.
        turns.insert(0, (false, 30, 20));
        let mut said = [0; 2];
        let mut cuts = Vec::new();
        for (client, length, size) in turns {
            let side = if client { Side::Client } else { Side::Server };
            let end = said[side.index()] + length;
            while said[side.index()] < end {
                let from = said[side.index()];
                let to = (from + size).min(end);
                said[side.index()] = to;
                let ack = said[side.other().index()];
                cuts.push(Cut { side, from, to, ack, fin: false, omitted: 0 });
            }
            // Its peer acknowledges.
            cuts.push(Cut::bare(side.other(), said[side.other().index()], end, false));
        }
        let [c, s] = said;
        cuts.push(Cut::bare(Side::Client, c, s, true));
        cuts.push(Cut::bare(Side::Server, s, c + 1, true));
        cuts.push(Cut::bare(Side::Client, c + 1, s + 1, false));
        cuts
    })
}

struct Wire {
    table: FlowTable<Sides>,
    flows: Flows,
    isn: [u32; 2],
    at: u64,
    /// By [`Side::index`]: where its segments are seen.
    seen_on: [u32; 2],
}

impl Wire {
    fn new(isn: [u32; 2], port: u16) -> Self {
        Self::seen_on(isn, port, [0; 2])
    }

    fn seen_on(isn: [u32; 2], port: u16, seen_on: [u32; 2]) -> Self {
        let ports = WatchedPorts::new([port]);
        let table = FlowTable::new(FlowLimits::default(), ports);
        let mut wire = Self { table, flows: Flows::default(), isn, at: 0, seen_on };
        wire.send(&Cut::bare(Side::Client, 0, 0, false), true);
        wire.send(&Cut::bare(Side::Server, 0, 0, false), true);
        wire.send(&Cut::bare(Side::Client, 0, 0, false), false);
        wire
    }

    fn send(&mut self, cut: &Cut, syn: bool) {
        self.at += 10_000;
        let addresses: [SocketAddr; 2] =
            ["192.0.2.1:4000", "192.0.2.2:25"].map(|a| a.parse().unwrap());
        let (side, peer) = (cut.side.index(), cut.side.other().index());
        let payload = bytes(cut.side, cut.from + cut.omitted..cut.to);
        let seq = |side: usize, at: u64| self.isn[side].wrapping_add(1).wrapping_add(at as u32);
        let segment = Segment {
            at: Timestamp::from_nanos(self.at),
            src: addresses[side],
            dst: addresses[peer],
            seq: seq(side, cut.from).wrapping_sub(u32::from(syn)),
            ack: (!syn || cut.side == Side::Server).then(|| seq(peer, cut.ack)),
            syn,
            fin: cut.fin,
            rst: false,
            window: 1000,
            mss: None,
            omitted: cut.omitted as u32,
            payload: &payload,
            len: (cut.to - cut.from) as u32,
            interface: self.seen_on[side],
        };
        self.table.on_segment(&segment, &mut self.flows);
    }

    fn end(mut self) -> (FlowFacts, Sides) {
        self.table.finish(&mut self.flows);
        assert_eq!(self.flows.0.len(), 1);
        self.flows.0.remove(0)
    }
}

/// What each side said in all.
fn lengths(cuts: &[Cut]) -> [u64; 2] {
    Side::ALL.map(|side| {
        let ends = cuts.iter().filter(|cut| cut.side == side && cut.to > cut.from);
        ends.map(|cut| cut.to).max().unwrap_or(0)
    })
}

/// Each moves by less than `window` places; those chosen come again, some with what is around them.
fn disturbed(cuts: &[Cut], keys: &[u16], window: u64) -> Vec<Cut> {
    let key = |at: usize| u64::from(keys[at % keys.len()]);
    let mut placed = Vec::new();
    for (at, cut) in cuts.iter().enumerate() {
        placed.push((at as u64 + key(at) % window, cut.clone()));
        if key(at) & 0x300 == 0 {
            let before = if cut.to > cut.from { key(at + 1) % 100 } else { 0 };
            let from = cut.from.saturating_sub(before);
            // A retransmit shows more, or less.
            let omitted = if key(at) & 0x400 == 0 { 0 } else { cut.omitted };
            let wider = Cut { from, omitted, ..cut.clone() };
            placed.push((at as u64 + key(at + 1) % window, wider));
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, cut)| cut).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whole_captures_give_every_octet_once(
        cuts in conversation(),
        keys in proptest::collection::vec(any::<u16>(), 1..40),
        window in 1u64..16,
        isn in prop_oneof![any::<[u32; 2]>(), Just([u32::MAX - 200, u32::MAX - 3])],
        watched in any::<bool>(),
    ) {
        let mut wire = Wire::new(isn, if watched { 25 } else { 26 });
        for cut in disturbed(&cuts, &keys, window) {
            wire.send(&cut, false);
        }
        let lengths = lengths(&cuts);
        let counts = *wire.table.counters();
        let (facts, sides) = wire.end();
        for side in Side::ALL {
            let expected: Vec<_> = bytes(side, 0..lengths[side.index()]).into_iter().map(Byte::Known).collect();
            prop_assert_eq!(&sides.said[side.index()], &expected);
        }
        prop_assert_eq!(facts.bytes, lengths);
        prop_assert_eq!((facts.gaps, counts.conflicts, sides.ended), (0, 0, [true; 2]));
        prop_assert_eq!(facts.outcome, FlowOutcome::Established);
    }

    #[test]
    fn lost_segments_leave_holes_where_they_were(
        cuts in conversation(),
        keys in proptest::collection::vec(any::<u16>(), 1..40),
        window in 1u64..16,
        lost in proptest::collection::vec(any::<bool>(), 1..30),
        isn in any::<[u32; 2]>(),
    ) {
        let mut wire = Wire::new(isn, 25);
        // The end stays: the capture shows how much was said.
        let body = cuts.len() - 3;
        let is_lost = |at: usize| at < body && lost[at % lost.len()];
        let kept: Vec<Cut> = (0..).zip(&cuts).filter(|(at, _)| !is_lost(*at)).map(|(_, cut)| cut.clone()).collect();
        let order = disturbed(&kept, &keys, window);
        let lengths = lengths(&cuts);
        let mut seen = Side::ALL.map(|side| vec![Byte::Hole; lengths[side.index()] as usize]);
        for cut in &order {
            for at in cut.from..cut.to.min(lengths[cut.side.index()]) {
                seen[cut.side.index()][at as usize] = Byte::Known(byte(cut.side, at));
            }
            wire.send(cut, false);
        }
        let (facts, sides) = wire.end();
        let is_hole = |byte: &Byte| *byte == Byte::Hole;
        let holes = |side: &[Byte]| side.chunk_by(|a, b| is_hole(a) == is_hole(b)).filter(|run| is_hole(&run[0])).count();
        prop_assert_eq!(&sides.said, &seen);
        prop_assert_eq!(facts.bytes, lengths);
        let least = holes(&seen[0]) + holes(&seen[1]);
        prop_assert!(facts.gaps >= least as u64);
    }

    /// What no copy shows is told as left out, what every copy shows is told, and nothing is missing.
    #[test]
    fn what_is_left_out_is_never_a_hole(
        cuts in conversation(),
        keys in proptest::collection::vec(any::<u16>(), 1..40),
        omitted in proptest::collection::vec(prop_oneof![Just(0), 0u64..150], 1..30),
        window in 1u64..16,
        isn in any::<[u32; 2]>(),
    ) {
        let mut wire = Wire::new(isn, 25);
        let omitting = |(at, cut): (usize, &Cut)| {
            // The greeting tells who is the server.
            let most = if at < 2 { 0 } else { cut.to - cut.from };
            Cut { omitted: omitted[at % omitted.len()].min(most), ..cut.clone() }
        };
        let cuts: Vec<Cut> = cuts.iter().enumerate().map(omitting).collect();
        let lengths = lengths(&cuts);
        let mut shown = Side::ALL.map(|side| vec![[false; 2]; lengths[side.index()] as usize]);
        for cut in disturbed(&cuts, &keys, window) {
            for at in cut.from..cut.to {
                shown[cut.side.index()][at as usize][usize::from(at >= cut.from + cut.omitted)] = true;
            }
            wire.send(&cut, false);
        }
        let (table_omitted, (facts, sides)) = {
            let mut wire = wire;
            wire.table.finish(&mut wire.flows);
            (wire.table.counters().bytes_omitted, wire.flows.0.remove(0))
        };
        let mut left_out = 0;
        for side in Side::ALL {
            prop_assert_eq!(sides.said[side.index()].len(), shown[side.index()].len());
            for (at, (said, shown)) in (0..).zip(sides.said[side.index()].iter().zip(&shown[side.index()])) {
                let known = Byte::Known(byte(side, at));
                prop_assert!(*said == known && shown[1] || *said == Byte::Omitted && shown[0], "{said:?} at {at}");
                left_out += u64::from(*said == Byte::Omitted);
            }
        }
        prop_assert_eq!((facts.gaps, facts.bytes, table_omitted), (0, lengths, left_out));
        prop_assert_eq!(sides.ended, [true; 2]);
    }

    /// Copies on another interface, earlier or later, change nothing.
    #[test]
    fn what_another_interface_shows_is_a_copy(
        cuts in conversation(),
        keys in proptest::collection::vec(any::<u16>(), 1..40),
        delays in proptest::collection::vec(-3i64..20, 1..30),
        way in any::<[bool; 2]>(),
        window in 1u64..16,
    ) {
        let order = disturbed(&cuts, &keys, window);
        let mut alone = Wire::new([7, 8], 25);
        order.iter().for_each(|cut| alone.send(cut, false));
        let mut both: Vec<(i64, bool, &Cut)> = Vec::new();
        for (at, cut) in (0..).zip(&order) {
            both.push((at, false, cut));
            both.push((at + delays[at as usize % delays.len()], true, cut));
        }
        both.sort_by_key(|(at, ..)| *at);
        let way = way.map(u32::from);
        let mut wire = Wire::seen_on([7, 8], 25, way);
        for (_, is_copy, cut) in both {
            wire.seen_on = if is_copy { way.map(|way| 1 - way) } else { way };
            wire.send(cut, false);
        }
        let ((facts, sides), (due, due_sides)) = (wire.end(), alone.end());
        prop_assert_eq!(sides.said, due_sides.said);
        prop_assert_eq!((facts.bytes, facts.gaps, facts.syns), (due.bytes, due.gaps, due.syns));
        prop_assert_eq!(facts.retransmits, due.retransmits);
        prop_assert_eq!(facts.data_segments, due.data_segments);
    }

    #[test]
    fn any_segments_stay_within_the_bounds(
        segments in proptest::collection::vec(any::<[u8; 9]>(), 0..400),
        held in 0usize..4000,
    ) {
        let limits = FlowLimits { flows: 3, held_per_flow: held / 2, held, ..FlowLimits::default() };
        let mut table = FlowTable::new(limits, WatchedPorts::default());
        let mut flows = Lengths::default();
        let mut at = 0;
        for [hosts, seq, seq_high, ack, flags, len, cut, time, window] in segments {
            let host = |low: u8| SocketAddr::new([192, 0, 2, low & 3].into(), if low & 4 == 0 { 25 } else { 4000 });
            at += u64::from(time).pow(4) * 10;
            let far = |low: u8, high: u8| match high & 0xf0 {
                0x10 => u32::from(high & 15) << 28 | u32::from(low),
                _ => 0u32.wrapping_sub(100).wrapping_add(low.into()),
            };
            let len = u32::from(len) * if len & 15 == 1 { 40 } else { 1 };
            let omitted = u32::from(cut & 31) * 4;
            let payload: Vec<u8> = (omitted..len.saturating_sub(u32::from(cut) / 32)).map(|i| i as u8).collect();
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
