//! Hand-made packets and their expected decoding. Real captures are compared in the test `wire_tshark`.

mod fragments;
mod headers;
mod icmp;
mod properties;

use std::net::SocketAddr;

use etherparse::PacketBuilder;

use super::{Decoded, Decoder, LinkType, Packet, Segment};
use crate::time::Timestamp;

const V4: ([u8; 4], [u8; 4]) = ([192, 0, 2, 1], [192, 0, 2, 25]);
const V6: ([u8; 16], [u8; 16]) = (
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x25],
);
const AT: Timestamp = Timestamp::from_nanos(1_000_000_000_000);

/// The segment that [`tcp4`] and [`tcp6`] carry.
fn expected(payload: &[u8], v6: bool) -> Segment<'_> {
    let (src, dst) = ends(v6);
    let len = u32::try_from(payload.len()).unwrap();
    Segment {
        at: AT,
        src,
        dst,
        seq: 1000,
        ack: Some(77),
        syn: false,
        fin: true,
        rst: false,
        window: 500,
        mss: None,
        omitted: 0,
        payload,
        len,
        interface: 0,
    }
}

fn ends(v6: bool) -> (SocketAddr, SocketAddr) {
    let (src, dst) = if v6 { (V6.0.into(), V6.1.into()) } else { (V4.0.into(), V4.1.into()) };
    (SocketAddr::new(src, 40000), SocketAddr::new(dst, 25))
}

fn tcp4(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let ip = PacketBuilder::ipv4(V4.0, V4.1, 64);
    ip.tcp(40000, 25, 1000, 500).ack(77).fin().write(&mut packet, payload).unwrap();
    packet
}

fn tcp6(payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let ip = PacketBuilder::ipv6(V6.0, V6.1, 64);
    ip.tcp(40000, 25, 1000, 500).ack(77).fin().write(&mut packet, payload).unwrap();
    packet
}

/// The IPv6 packet `packet` with `headers` before its TCP header; the first of them is of type `next`.
fn extended(packet: &[u8], next: u8, headers: &[&[u8]]) -> Vec<u8> {
    let mut extended = [&packet[..40], &headers.concat(), &packet[40..]].concat();
    extended[6] = next;
    let len = u16::try_from(extended.len() - 40).unwrap();
    extended[4..6].copy_from_slice(&len.to_be_bytes());
    extended
}

fn packet(link: LinkType, bytes: &[u8], wire_len: usize) -> Packet<'_> {
    Packet::new(AT, link, bytes, u32::try_from(wire_len).unwrap())
}

/// Decodes one packet with a new decoder and passes the result to `check`.
fn decoded<R>(link: LinkType, bytes: &[u8], check: impl FnOnce(Decoded<'_>) -> R) -> R {
    check(Decoder::new().decode(&packet(link, bytes, bytes.len())))
}

#[track_caller]
fn assert_decodes(link: LinkType, bytes: &[u8], expected: Decoded<'_>) {
    decoded(link, bytes, |decoded| assert_eq!(decoded, expected, "{link:?}"));
}
