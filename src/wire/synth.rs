//! Synthesises the packets of a TCP connection from its dialogue, as a capture beside the two hosts would show them.
//!
//! RFC 9293; `LINKTYPE_RAW`. Nothing is lost or delayed: every burst is acknowledged at once.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader, TcpOptionElement};

use crate::addr::{Side, canonical};
use crate::time::Timestamp;

/// Receives each packet: its time, its captured bytes, its length on the wire.
type EmitPacket<'e> = dyn FnMut(Timestamp, &[u8], u32) + 'e;

/// Payload of a segment at a path MTU of 1500 bytes.
const MSS_V4: u16 = 1460;
const MSS_V6: u16 = 1440;
/// Header field, not scaled: the upper bound of a burst.
const WINDOW: u16 = 65535;
/// Payload in place of omitted bytes.
static FILLER: [u8; MSS_V4 as usize] = [0; MSS_V4 as usize];

/// The packets of one TCP connection.
///
/// Data of a side that has closed or reset the connection is ignored.
#[derive(Debug)]
pub struct SyntheticConnection {
    client: Peer,
    server: Peer,
    mss: u16,
    packet: Vec<u8>,
}

#[derive(Debug)]
struct Peer {
    address: SocketAddr,
    /// Sequence number of the next byte to send.
    next: u32,
    closed: bool,
}

/// The flag of a segment, besides ACK.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SegmentFlag {
    Syn,
    /// A bare ACK, or data in the middle of a burst.
    None,
    Push,
    Fin,
    Reset,
}

impl SyntheticConnection {
    /// A connection from `client` to `server`. If their families differ, the IPv4 address is mapped (`::ffff:a.b.c.d`).
    pub fn new(client: SocketAddr, server: SocketAddr) -> Self {
        let peer = |address| Peer { address: canonical(address), next: 0, closed: false };
        let (client, server) = (peer(client), peer(server));
        let is_v4 = client.address.is_ipv4() && server.address.is_ipv4();
        let mss = if is_v4 { MSS_V4 } else { MSS_V6 };
        Self { client, server, mss, packet: Vec::new() }
    }

    /// Limits segments to `mss` bytes; clamped to between 1 and the family's default.
    #[must_use]
    pub fn with_mss(mut self, mss: u16) -> Self {
        self.mss = mss.clamp(1, self.mss);
        self
    }

    /// Emits the handshake.
    pub fn open(&mut self, at: Timestamp, emit: &mut EmitPacket<'_>) {
        // RFC 6528 §3 without its secret: a clock of 4 µs gives connections between the same ports distinct numbers.
        let clock = u32::try_from((at.as_nanos() / 4000) & u64::from(u32::MAX)).unwrap_or_default();
        self.client.next = clock;
        self.server.next = clock.wrapping_add(1 << 31);
        self.segment(Side::Client, SegmentFlag::Syn, &[], at, emit);
        self.segment(Side::Server, SegmentFlag::Syn, &[], at, emit);
        self.segment(Side::Client, SegmentFlag::None, &[], at, emit);
    }

    /// Sends `bytes` from `from`.
    pub fn send(&mut self, from: Side, bytes: &[u8], at: Timestamp, emit: &mut EmitPacket<'_>) {
        if self.peer(from).closed {
            return;
        }
        for burst in bytes.chunks(self.burst()) {
            let mut segments = burst.chunks(self.mss.into()).peekable();
            while let Some(payload) = segments.next() {
                let flag =
                    if segments.peek().is_none() { SegmentFlag::Push } else { SegmentFlag::None };
                self.segment(from, flag, payload, at, emit);
            }
            self.segment(from.other(), SegmentFlag::None, &[], at, emit);
        }
    }

    /// Sends `count` bytes from `from` of which only the packet headers are captured.
    pub fn send_omitted(
        &mut self,
        from: Side,
        count: u64,
        at: Timestamp,
        emit: &mut EmitPacket<'_>,
    ) {
        let mut left = count;
        while left > 0 && !self.peer(from).closed {
            let mut burst = self.burst().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= burst as u64;
            while burst > 0 {
                let payload = FILLER.get(..burst.min(self.mss.into())).unwrap_or(&FILLER);
                burst -= payload.len();
                self.segment(from, SegmentFlag::None, payload, at, &mut |at, packet, wire_len| {
                    let headers = packet.len().saturating_sub(payload.len());
                    emit(at, packet.get(..headers).unwrap_or(packet), wire_len);
                });
            }
            self.segment(from.other(), SegmentFlag::None, &[], at, emit);
        }
    }

    /// Sends a FIN from `from`; the other side may continue to send.
    pub fn close(&mut self, from: Side, at: Timestamp, emit: &mut EmitPacket<'_>) {
        if !self.peer(from).closed {
            self.segment(from, SegmentFlag::Fin, &[], at, emit);
            self.segment(from.other(), SegmentFlag::None, &[], at, emit);
            self.peer_mut(from).closed = true;
        }
    }

    /// Sends a RST from `from`, which ends both directions.
    pub fn reset(&mut self, from: Side, at: Timestamp, emit: &mut EmitPacket<'_>) {
        if !(self.client.closed && self.server.closed) {
            self.segment(from, SegmentFlag::Reset, &[], at, emit);
            (self.client.closed, self.server.closed) = (true, true);
        }
    }

    fn peer(&self, side: Side) -> &Peer {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    fn peer_mut(&mut self, side: Side) -> &mut Peer {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Bytes sent per acknowledgement: whole segments, at most half a window.
    fn burst(&self) -> usize {
        let mss = usize::from(self.mss);
        (usize::from(WINDOW / 2) / mss).max(1) * mss
    }

    fn segment(
        &mut self,
        from: Side,
        flag: SegmentFlag,
        payload: &[u8],
        at: Timestamp,
        emit: &mut EmitPacket<'_>,
    ) {
        let seq = self.peer(from).next;
        let mut header = self.header(from, seq);
        if flag != SegmentFlag::Syn || from == Side::Server {
            header = header.ack(self.peer(from.other()).next);
        }
        let header = match flag {
            SegmentFlag::None => header,
            SegmentFlag::Push => header.psh(),
            SegmentFlag::Fin => header.fin(),
            SegmentFlag::Reset => header.rst(),
            SegmentFlag::Syn => {
                match header.syn().options(&[TcpOptionElement::MaximumSegmentSize(self.mss)]) {
                    Ok(header) => header,
                    // Unreachable: a single option always fits.
                    Err(_) => return,
                }
            }
        };
        let bytes =
            payload.len() + usize::from(matches!(flag, SegmentFlag::Syn | SegmentFlag::Fin));
        let (Ok(bytes), Ok(wire_len)) =
            (u32::try_from(bytes), u32::try_from(header.size(payload.len())))
        else {
            return; // Unreachable: a payload is at most one segment.
        };
        self.peer_mut(from).next = seq.wrapping_add(bytes);
        self.packet.clear();
        // Cannot fail: the target is memory and the length is valid in both families.
        if header.write_to_vec(&mut self.packet, payload).is_ok() {
            emit(at, &self.packet, wire_len);
        }
    }

    fn header(&self, from: Side, seq: u32) -> PacketBuilderStep<TcpHeader> {
        const HOP_LIMIT: u8 = 64;
        let (src, dst) = (self.peer(from).address, self.peer(from.other()).address);
        let ip = match (src.ip(), dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                PacketBuilder::ipv4(src.octets(), dst.octets(), HOP_LIMIT)
            }
            (src, dst) => PacketBuilder::ipv6(v6(src), v6(dst), HOP_LIMIT),
        };
        ip.tcp(src.port(), dst.port(), seq, WINDOW)
    }
}

fn v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
