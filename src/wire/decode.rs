//! Decodes one packet, from its link layer to its transport header.
//!
//! RFC 9293 (TCP), RFC 768 (UDP). Only fragments are copied.

use std::net::{IpAddr, SocketAddr};

use etherparse::err::tcp::HeaderSliceError;
use etherparse::{TcpHeader, TcpHeaderSlice, UdpHeader, UdpHeaderSlice, ip_number};

use super::defragment::Defragmenter;
use super::ip::IpPacket;
use super::slice::CapturedSlice;
use super::{Datagram, DecodeError, Decoded, Packet, Segment, icmp, link};
use crate::time::Timestamp;

/// Decodes packets. Fragments of at most 64 datagrams (6 MiB) are held, each for 60 seconds of the capture's time.
#[derive(Debug, Default)]
pub struct Decoder {
    fragments: Defragmenter,
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes `packet`. Tunnels are not unpacked.
    pub fn decode<'a>(&'a mut self, packet: &Packet<'a>) -> Decoded<'a> {
        self.try_decode(packet).unwrap_or_else(Decoded::Error)
    }

    fn try_decode<'a>(&'a mut self, packet: &Packet<'a>) -> Result<Decoded<'a>, DecodeError> {
        let wire_len = usize::try_from(packet.wire_len).unwrap_or(usize::MAX);
        let frame = CapturedSlice::new(packet.bytes, wire_len);
        let Some(network) = link::ip(packet.link, frame)? else {
            return Ok(Decoded::Other);
        };
        let mut ip = IpPacket::parse(network)?;
        if let Some(fragment) = ip.fragment {
            let Some((protocol, whole)) = self.fragments.add(packet.at, &ip, fragment)? else {
                return Ok(Decoded::Fragment);
            };
            ip = ip.reassembled(protocol, whole)?;
        }
        match (ip.protocol, ip.src) {
            (ip_number::TCP, _) => segment(packet, &ip).map(Decoded::Tcp),
            (ip_number::UDP, _) => datagram(packet.at, &ip).map(Decoded::Udp),
            (ip_number::ICMP, IpAddr::V4(_)) | (ip_number::IPV6_ICMP, IpAddr::V6(_)) => {
                Ok(icmp::error(packet, &ip)?.map_or(Decoded::Other, Decoded::Icmp))
            }
            _ => Ok(Decoded::Other),
        }
    }
}

fn segment<'a>(packet: &Packet<'_>, ip: &IpPacket<'a>) -> Result<Segment<'a>, DecodeError> {
    let bytes = ip.body.bytes();
    let header_len = match TcpHeaderSlice::from_slice(bytes) {
        Ok(header) => return build(packet, ip, &header, header.slice().len()),
        Err(HeaderSliceError::Content(_)) => return Err(DecodeError::InvalidHeader),
        Err(HeaderSliceError::Len(error)) => error.required_len,
    };
    // A snap length that truncates the options leaves everything needed: the fixed part is parsed as a header of its own.
    let error = ip.body.too_short_for(header_len);
    let mut fixed_part: [u8; TcpHeader::MIN_LEN] = match bytes.first_chunk() {
        Some(bytes) if error == DecodeError::Truncated => *bytes,
        _ => return Err(error),
    };
    fixed_part[12] = 5 << 4;
    let header = TcpHeaderSlice::from_slice(&fixed_part).or(Err(error))?;
    build(packet, ip, &header, header_len)
}

/// `header_len` is the header's length on the wire.
fn build<'a>(
    packet: &Packet<'_>,
    ip: &IpPacket<'a>,
    header: &TcpHeaderSlice<'_>,
    header_len: usize,
) -> Result<Segment<'a>, DecodeError> {
    let len = ip.body.len().checked_sub(header_len).ok_or(DecodeError::InvalidHeader)?;
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    let omitted = packet.omitted.min(len);
    let payload = ip.body.bytes().get(header_len..).unwrap_or_default();
    // Captured bytes beyond the packet's end are padding.
    let payload = payload.get(..(len - omitted) as usize).unwrap_or(payload);
    Ok(Segment {
        at: packet.at,
        src: SocketAddr::new(ip.src, header.source_port()),
        dst: SocketAddr::new(ip.dst, header.destination_port()),
        seq: header.sequence_number(),
        ack: header.ack().then(|| header.acknowledgment_number()),
        syn: header.syn(),
        fin: header.fin(),
        rst: header.rst(),
        window: header.window_size(),
        mss: if header.syn() { mss(header.options()) } else { None },
        omitted,
        payload,
        len,
        interface: packet.interface,
    })
}

/// The MSS option. etherparse's iterator stops at the first option it does not know, so it is not used.
fn mss(mut options: &[u8]) -> Option<u16> {
    loop {
        match options {
            [1, rest @ ..] => options = rest,
            [2, 4, high, low, ..] => return Some(u16::from_be_bytes([*high, *low])),
            [0, ..] => return None,
            [_, len, ..] if *len >= 2 => options = options.get(usize::from(*len)..)?,
            _ => return None,
        }
    }
}

fn datagram<'a>(at: Timestamp, ip: &IpPacket<'a>) -> Result<Datagram<'a>, DecodeError> {
    let header = UdpHeaderSlice::from_slice(ip.body.bytes())
        .map_err(|error| ip.body.too_short_for(error.required_len))?;
    let length = usize::from(header.length());
    let payload = match length {
        // Longer than the field can hold (RFC 2675 §4).
        0 => ip.body.after(UdpHeader::LEN)?,
        UdpHeader::LEN.. if length <= ip.body.len() => {
            ip.body.bounded(length).after(UdpHeader::LEN)?
        }
        _ => return Err(DecodeError::InvalidHeader),
    };
    Ok(Datagram {
        at,
        src: SocketAddr::new(ip.src, header.source_port()),
        dst: SocketAddr::new(ip.dst, header.destination_port()),
        payload: payload.bytes(),
    })
}
