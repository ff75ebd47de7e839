//! Segments for the flow table, made from the input.

use std::net::SocketAddr;

use gatepost::addr::Side;
use gatepost::stream::{
    FlowFacts, FlowHandler, FlowLimits, FlowSink, FlowStart, FlowTable, WatchedPorts,
};
use gatepost::time::Timestamp;
use gatepost::wire::{IcmpError, IcmpKind, Segment};

/// Every octet in the fuzzed segments is the low octet of its sequence number, so delivered octets must rise by one.
#[derive(Default)]
struct Rising {
    next: [Option<u8>; 2],
    delivered: [u64; 2],
    gaps: u64,
    closed: [bool; 2],
    at: Timestamp,
}

impl Rising {
    fn when(&mut self, from: Side, at: Timestamp) {
        assert!(at >= self.at, "time goes backward");
        assert!(!self.closed[from.index()], "data after the close");
        self.at = at;
    }
}

impl FlowHandler for Rising {
    fn on_data(&mut self, from: Side, octets: &[u8], at: Timestamp) {
        self.when(from, at);
        assert!(!octets.is_empty());
        let next = &mut self.next[from.index()];
        for &octet in octets {
            assert!(next.is_none_or(|due| due == octet), "an octet is repeated or missing");
            *next = Some(octet.wrapping_add(1));
        }
        self.delivered[from.index()] += octets.len() as u64;
    }

    fn on_gap(&mut self, from: Side, length: u64, at: Timestamp) {
        self.when(from, at);
        assert!(length > 0);
        let next = &mut self.next[from.index()];
        *next = next.map(|due| due.wrapping_add(length as u8));
        self.delivered[from.index()] += length;
        self.gaps += length;
    }

    fn on_omitted(&mut self, from: Side, length: u64, at: Timestamp) {
        self.when(from, at);
        assert!(length > 0);
        let next = &mut self.next[from.index()];
        *next = next.map(|due| due.wrapping_add(length as u8));
        self.delivered[from.index()] += length;
    }

    fn on_close(&mut self, from: Side, at: Timestamp) {
        self.when(from, at);
        self.closed[from.index()] = true;
    }
}

#[derive(Default)]
struct Flows {
    opened: u64,
    over: u64,
    gaps: u64,
}

impl FlowSink<Rising> for Flows {
    fn on_start(&mut self, start: &FlowStart) -> Rising {
        self.opened += 1;
        assert_eq!(start.number, self.opened);
        Rising::default()
    }

    fn is_greeting(&self, first: &[u8]) -> Option<bool> {
        first.get(1).map(|octet| octet & 1 == 0)
    }

    fn on_end(&mut self, facts: FlowFacts, flow: Rising) {
        assert_eq!(facts.bytes, flow.delivered);
        self.over += 1;
        self.gaps += flow.gaps;
    }
}

/// The first octet chooses the limits; then every eight octets are a segment, an ICMP error, or a pause. The first of
/// them has four bits for the hosts, one for the interface and two for the omitted quarters of the payload.
pub(crate) fn stream(input: &[u8]) {
    let Some((&size, records)) = input.split_first() else {
        return;
    };
    let held = usize::from(size) * 32;
    let limits = FlowLimits {
        flows: 3,
        held,
        held_per_flow: held / (1 + usize::from(size & 1)),
        ..FlowLimits::default()
    };
    let mut table = FlowTable::new(limits, WatchedPorts::default());
    let (mut flows, mut nanos) = (Flows::default(), 0);
    for record in records.as_chunks::<8>().0 {
        let &[hosts, flags, seq, ack, far, len, cut, time] = record;
        nanos += u64::from(time).pow(4) * 1000;
        let host = |low: u8| {
            SocketAddr::new([192, 0, 2, low & 1].into(), if low & 2 == 0 { 25 } else { 4000 })
        };
        // Both sides begin a little before the wrap.
        let near = |low: u8, far: u8| match far & 15 {
            0..12 => (u32::MAX - 60).wrapping_add(low.into()),
            high => u32::from(high) << 28 | u32::from(low),
        };
        let at = Timestamp::from_nanos(nanos);
        let interface = u32::from(hosts >> 4 & 1);
        let (src, dst, seq) = (host(hosts), host(hosts >> 2), near(seq, far));
        if hosts & 0x80 != 0 {
            let kind = IcmpKind::PacketTooBig { mtu: len.into() };
            let kind = if cut & 1 == 0 { kind } else { IcmpKind::Unreachable };
            let error = IcmpError { at, from: src.ip(), kind, src, dst, seq, interface };
            table.on_icmp_error(&error, &mut flows);
            continue;
        }
        let len = u32::from(len) * if flags & 1 == 0 { 1 } else { 16 };
        let first = seq.wrapping_add(u32::from(flags & 2 != 0));
        let omitted = len * u32::from(hosts >> 5 & 3) / 4;
        let payload: Vec<u8> = (omitted..len.saturating_sub(cut.into()))
            .map(|n| first.wrapping_add(n) as u8)
            .collect();
        let segment = Segment {
            at,
            src,
            dst,
            seq,
            ack: (flags & 4 == 0).then(|| near(ack, far >> 4)),
            syn: flags & 2 != 0,
            fin: flags & 24 == 8,
            rst: flags & 0xe0 == 0x20,
            window: u16::from(flags & 0xe0 != 0x40),
            mss: None,
            omitted,
            payload: &payload,
            len,
            interface,
        };
        table.on_segment(&segment, &mut flows);
        assert!(table.held() <= held, "holds {} of {held}", table.held());
        assert!(table.flows() <= 3);
    }
    table.finish(&mut flows);
    assert_eq!((table.held(), table.flows()), (0, 0));
    let counts = table.counters();
    assert_eq!((counts.flows, flows.over), (flows.opened, flows.opened));
    let lost = counts.bytes_not_captured
        + counts.bytes_truncated
        + counts.bytes_given_up
        + counts.bytes_unfinished;
    assert_eq!(lost, flows.gaps, "every gap has a reason");
}
