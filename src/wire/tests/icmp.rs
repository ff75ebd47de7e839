//! ICMP errors about a segment.

use etherparse::PacketBuilder;

use super::*;
use crate::wire::{DecodeError, IcmpError, IcmpKind};

const ROUTER_V4: [u8; 4] = [198, 51, 100, 1];
const ROUTER_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe];

/// A router's message that quotes `quote`.
fn message(v6: bool, kind: u8, code: u8, value: u32, quote: &[u8]) -> Vec<u8> {
    let (value, mut packet) = (value.to_be_bytes(), Vec::new());
    if v6 {
        let ip = PacketBuilder::ipv6(ROUTER_V6, V6.0, 64);
        ip.icmpv6_raw(kind, code, value).write(&mut packet, quote).unwrap();
    } else {
        let ip = PacketBuilder::ipv4(ROUTER_V4, V4.0, 64);
        ip.icmpv4_raw(kind, code, value).write(&mut packet, quote).unwrap();
    }
    packet
}

fn error(v6: bool, kind: IcmpKind) -> Decoded<'static> {
    let (src, dst) = ends(v6);
    let from = if v6 { ROUTER_V6.into() } else { ROUTER_V4.into() };
    Decoded::Icmp(IcmpError { at: AT, from, kind, src, dst, seq: 1000, interface: 0 })
}

#[test]
fn types_and_codes_map_to_kinds() {
    use IcmpKind::*;
    for (v6, kind, code, value, expected) in [
        (false, 3, 0, 0, Unreachable),
        (false, 3, 1, 0, Unreachable),
        (false, 3, 3, 0, Unreachable),
        (false, 3, 4, 1400, PacketTooBig { mtu: 1400 }),
        (false, 3, 4, 0, PacketTooBig { mtu: 0 }),
        (false, 3, 9, 0, Prohibited),
        (false, 3, 10, 0, Prohibited),
        (false, 3, 13, 0, Prohibited),
        (false, 3, 200, 0, Unreachable),
        (false, 11, 0, 0, TimeExceeded),
        (false, 12, 0, 0, ParameterProblem),
        (true, 1, 0, 0, Unreachable),
        (true, 1, 3, 0, Unreachable),
        (true, 1, 4, 0, Unreachable),
        (true, 1, 1, 0, Prohibited),
        (true, 1, 5, 0, Prohibited),
        (true, 1, 6, 0, Prohibited),
        (true, 2, 0, 1280, PacketTooBig { mtu: 1280 }),
        (true, 3, 0, 0, TimeExceeded),
        (true, 4, 1, 40, ParameterProblem),
    ] {
        let quote = if v6 { tcp6(&[0; 200]) } else { tcp4(&[0; 200]) };
        assert_decodes(LinkType::Raw, &message(v6, kind, code, value, &quote), error(v6, expected));
    }
}

#[test]
fn eight_bytes_of_the_segment_are_enough() {
    let (v4, v6) = (tcp4(&[0; 600]), tcp6(&[0; 600]));
    let unreachable = |is_v6, quote: &[u8]| {
        let kind = if is_v6 { 1 } else { 3 };
        message(is_v6, kind, 0, 0, quote)
    };
    let is = |is_v6, quote: &[u8], expected| {
        assert_decodes(LinkType::Raw, &unreachable(is_v6, quote), expected);
    };
    is(false, &v4[..28], error(false, IcmpKind::Unreachable));
    is(false, &v4[..27], Decoded::Error(DecodeError::InvalidHeader));
    is(true, &v6[..48], error(true, IcmpKind::Unreachable));
    is(true, &v6[..47], Decoded::Error(DecodeError::InvalidHeader));
    // Extension headers and a first fragment are accepted; a later fragment has no ports.
    let options = extended(&v6, 0, &[&[60, 0, 1, 4, 0, 0, 0, 0], &[6, 0, 1, 4, 0, 0, 0, 0]]);
    is(true, &options[..64], error(true, IcmpKind::Unreachable));
    let first = extended(&v6, 44, &[&[6, 0, 0, 1, 0, 0, 0, 1]]);
    is(true, &first, error(true, IcmpKind::Unreachable));
    let later = extended(&v6, 44, &[&[6, 0, 0, 9, 0, 0, 0, 1]]);
    is(true, &later, Decoded::Other);
    // A router that already subtracted the header from the length.
    let mut altered = v4;
    altered[2..4].copy_from_slice(&[0, 3]);
    is(false, &altered[..28], error(false, IcmpKind::Unreachable));
}

#[test]
fn other_messages_are_not_errors_about_tcp() {
    let mut udp = Vec::new();
    PacketBuilder::ipv4(V4.0, V4.1, 64).udp(1, 53).write(&mut udp, b"?").unwrap();
    for (v6, kind, quote) in [
        (false, 3, udp.as_slice()),
        (false, 8, b"echo"),
        (false, 0, b"echo"),
        (false, 5, &tcp4(b"")),
        (true, 128, b"echo"),
        (true, 135, &ROUTER_V6),
    ] {
        assert_decodes(LinkType::Raw, &message(v6, kind, 0, 0, quote), Decoded::Other);
    }
    let short = &message(false, 8, 0, 0, b"")[..27];
    let mut decoder = Decoder::new();
    let truncated = decoder.decode(&packet(LinkType::Raw, short, 28));
    assert_eq!(truncated, Decoded::Error(DecodeError::Truncated));
}
