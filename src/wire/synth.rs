//! The packets of a dialogue: what a capture beside the two hosts would have held.
//!
//! RFC 9293; `LINKTYPE_RAW`. Nothing is lost or late on this path: every segment is acknowledged at once.

use std::net::{IpAddr, SocketAddr};

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader, TcpOptionElement};

use crate::addr::{Side, canonical};
use crate::time::Timestamp;

/// Told each packet: when, what was captured of it, and how many bytes it had on the wire.
type Emit<'e> = dyn FnMut(Timestamp, &[u8], u32) + 'e;

/// Payload of a segment where the path takes 1500 bytes.
const MSS_V4: u16 = 1460;
const MSS_V6: u16 = 1440;
/// As in the header; not scaled, so no burst is longer.
const WINDOW: u16 = 65535;
/// What stands for bytes that are not shown.
static NOT_SHOWN: [u8; MSS_V4 as usize] = [0; MSS_V4 as usize];

/// Writes the packets of one TCP connection.
///
/// A side that closed or reset says no more: what it is then told to say is not written.
#[derive(Debug)]
pub struct SyntheticConnection {
    client: End,
    server: End,
    mss: u16,
    packet: Vec<u8>,
}

#[derive(Debug)]
struct End {
    address: SocketAddr,
    /// The sequence number of the next byte that it says.
    next: u32,
    closed: bool,
}

/// What a segment says beside its payload.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    Syn,
    /// An acknowledgement, or data in the middle of a burst.
    None,
    Push,
    Fin,
    Reset,
}

impl SyntheticConnection {
    /// A connection of `client` to `server`. Both are of one family; of two, the IPv4 address is written as IPv6
    /// (`::ffff:a.b.c.d`).
    pub fn new(client: SocketAddr, server: SocketAddr) -> Self {
        let end = |address| End { address: canonical(address), next: 0, closed: false };
        let (client, server) = (end(client), end(server));
        let is_v4 = client.address.is_ipv4() && server.address.is_ipv4();
        let mss = if is_v4 { MSS_V4 } else { MSS_V6 };
        Self { client, server, mss, packet: Vec::new() }
    }

    /// Segments carry at most `mss` bytes: no more than the family's usual, and at least 1.
    #[must_use]
    pub fn with_mss(mut self, mss: u16) -> Self {
        self.mss = mss.clamp(1, self.mss);
        self
    }

    /// The handshake.
    pub fn open(&mut self, at: Timestamp, emit: &mut Emit<'_>) {
        // RFC 6528 §3 without its secret: a clock of 4 µs keeps connections between the same ports apart.
        let clock = u32::try_from((at.as_nanos() / 4000) & u64::from(u32::MAX)).unwrap_or_default();
        self.client.next = clock;
        self.server.next = clock.wrapping_add(1 << 31);
        self.segment(Side::Client, Flag::Syn, &[], at, emit);
        self.segment(Side::Server, Flag::Syn, &[], at, emit);
        self.segment(Side::Client, Flag::None, &[], at, emit);
    }

    /// `from` says `bytes`.
    pub fn say(&mut self, from: Side, bytes: &[u8], at: Timestamp, emit: &mut Emit<'_>) {
        if self.end(from).closed {
            return;
        }
        for burst in bytes.chunks(self.burst()) {
            let mut segments = burst.chunks(self.mss.into()).peekable();
            while let Some(payload) = segments.next() {
                let flag = if segments.peek().is_none() { Flag::Push } else { Flag::None };
                self.segment(from, flag, payload, at, emit);
            }
            self.segment(from.other(), Flag::None, &[], at, emit);
        }
    }

    /// `from` says `count` bytes of which the capture holds only the headers.
    pub fn omit(&mut self, from: Side, count: u64, at: Timestamp, emit: &mut Emit<'_>) {
        let mut left = count;
        while left > 0 && !self.end(from).closed {
            let mut burst = self.burst().min(usize::try_from(left).unwrap_or(usize::MAX));
            left -= burst as u64;
            while burst > 0 {
                let payload = NOT_SHOWN.get(..burst.min(self.mss.into())).unwrap_or(&NOT_SHOWN);
                burst -= payload.len();
                self.segment(from, Flag::None, payload, at, &mut |at, packet, wire_len| {
                    let headers = packet.len().saturating_sub(payload.len());
                    emit(at, packet.get(..headers).unwrap_or(packet), wire_len);
                });
            }
            self.segment(from.other(), Flag::None, &[], at, emit);
        }
    }

    /// `from` has said all; the other side may go on.
    pub fn close(&mut self, from: Side, at: Timestamp, emit: &mut Emit<'_>) {
        if !self.end(from).closed {
            self.segment(from, Flag::Fin, &[], at, emit);
            self.segment(from.other(), Flag::None, &[], at, emit);
            self.end_mut(from).closed = true;
        }
    }

    /// `from` ends the connection for both.
    pub fn reset(&mut self, from: Side, at: Timestamp, emit: &mut Emit<'_>) {
        if !(self.client.closed && self.server.closed) {
            self.segment(from, Flag::Reset, &[], at, emit);
            (self.client.closed, self.server.closed) = (true, true);
        }
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Bytes that are sent before they are acknowledged: whole segments, half a window.
    fn burst(&self) -> usize {
        let mss = usize::from(self.mss);
        (usize::from(WINDOW / 2) / mss).max(1) * mss
    }

    fn segment(
        &mut self,
        from: Side,
        flag: Flag,
        payload: &[u8],
        at: Timestamp,
        emit: &mut Emit<'_>,
    ) {
        let seq = self.end(from).next;
        let mut header = self.header(from, seq);
        if flag != Flag::Syn || from == Side::Server {
            header = header.ack(self.end(from.other()).next);
        }
        let header = match flag {
            Flag::None => header,
            Flag::Push => header.psh(),
            Flag::Fin => header.fin(),
            Flag::Reset => header.rst(),
            Flag::Syn => {
                match header.syn().options(&[TcpOptionElement::MaximumSegmentSize(self.mss)]) {
                    Ok(header) => header,
                    // One option always fits.
                    Err(_) => return,
                }
            }
        };
        let bytes = payload.len() + usize::from(matches!(flag, Flag::Syn | Flag::Fin));
        let (Ok(bytes), Ok(wire_len)) =
            (u32::try_from(bytes), u32::try_from(header.size(payload.len())))
        else {
            return; // No payload is longer than a segment.
        };
        self.end_mut(from).next = seq.wrapping_add(bytes);
        self.packet.clear();
        // Writing to memory, and within the lengths of both families.
        if header.write_to_vec(&mut self.packet, payload).is_ok() {
            emit(at, &self.packet, wire_len);
        }
    }

    fn header(&self, from: Side, seq: u32) -> PacketBuilderStep<TcpHeader> {
        const HOPS: u8 = 64;
        let (src, dst) = (self.end(from).address, self.end(from.other()).address);
        let ip = match (src.ip(), dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                PacketBuilder::ipv4(src.octets(), dst.octets(), HOPS)
            }
            (src, dst) => PacketBuilder::ipv6(v6(src), v6(dst), HOPS),
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
