//! ICMP and ICMPv6 errors about TCP segments.
//!
//! RFC 792, RFC 1191 (fragmentation needed), RFC 1812 §5.2.7.1 (prohibited), RFC 4443. Only 8
//! bytes of the quoted segment are guaranteed: ports and sequence number.

use std::net::SocketAddr;

use etherparse::{icmpv4, icmpv6, ip_number};

use super::ip::IpPacket;
use super::slice::CapturedSlice;
use super::{DecodeError, IcmpError, IcmpKind, Packet};

/// Length of the header before the quoted packet, in both families.
const HEADER_LEN: usize = 8;

/// The error in `ip` of `packet`; `None` if the message is no error or quotes no TCP segment.
pub(super) fn error(
    packet: &Packet<'_>,
    ip: &IpPacket<'_>,
) -> Result<Option<IcmpError>, DecodeError> {
    let quote = ip.body.after(HEADER_LEN)?;
    let &[kind, code, _, _, a, b, c, d, ..] = ip.body.bytes() else {
        return Err(ip.body.too_short_for(HEADER_LEN));
    };
    let value = u32::from_be_bytes([a, b, c, d]);
    let kind = match ip.protocol {
        ip_number::ICMP => kind_v4(kind, code, value),
        _ => kind_v6(kind, code, value),
    };
    let Some(kind) = kind else {
        return Ok(None);
    };
    let Packet { at, interface, .. } = *packet;
    let error = |(src, dst, seq)| IcmpError { at, from: ip.src, kind, src, dst, seq, interface };
    Ok(quoted_segment(quote)?.map(error))
}

fn kind_v4(kind: u8, code: u8, value: u32) -> Option<IcmpKind> {
    Some(match (kind, code) {
        // The MTU is in the lower half; both halves were unused and 0 before RFC 1191.
        (icmpv4::TYPE_DEST_UNREACH, icmpv4::CODE_DST_UNREACH_NEED_FRAG) => {
            IcmpKind::PacketTooBig { mtu: value & 0xffff }
        }
        (
            icmpv4::TYPE_DEST_UNREACH,
            icmpv4::CODE_DST_UNREACH_NET_PROHIB
            | icmpv4::CODE_DST_UNREACH_HOST_PROHIB
            | icmpv4::CODE_DST_UNREACH_FILTER_PROHIB,
        ) => IcmpKind::Prohibited,
        (icmpv4::TYPE_DEST_UNREACH, _) => IcmpKind::Unreachable,
        (icmpv4::TYPE_TIME_EXCEEDED, _) => IcmpKind::TimeExceeded,
        (icmpv4::TYPE_PARAMETER_PROBLEM, _) => IcmpKind::ParameterProblem,
        _ => return None,
    })
}

fn kind_v6(kind: u8, code: u8, value: u32) -> Option<IcmpKind> {
    Some(match (kind, code) {
        // "Codes 5 and 6 are more informative subsets of code 1" (RFC 4443 §3.1).
        (
            icmpv6::TYPE_DST_UNREACH,
            icmpv6::CODE_DST_UNREACH_PROHIBITED
            | icmpv6::CODE_DST_UNREACH_SOURCE_ADDRESS_FAILED_POLICY
            | icmpv6::CODE_DST_UNREACH_REJECT_ROUTE_TO_DEST,
        ) => IcmpKind::Prohibited,
        (icmpv6::TYPE_DST_UNREACH, _) => IcmpKind::Unreachable,
        (icmpv6::TYPE_PACKET_TOO_BIG, _) => IcmpKind::PacketTooBig { mtu: value },
        (icmpv6::TYPE_TIME_EXCEEDED, _) => IcmpKind::TimeExceeded,
        (icmpv6::TYPE_PARAMETER_PROBLEM, _) => IcmpKind::ParameterProblem,
        _ => return None,
    })
}

/// Source, destination and sequence number of the TCP segment in `quote`; `None` if it is another protocol or a later
/// fragment.
fn quoted_segment(
    quote: CapturedSlice<'_>,
) -> Result<Option<(SocketAddr, SocketAddr, u32)>, DecodeError> {
    let ip = IpPacket::parse_quoted(quote)?;
    let is_later = ip.fragment.is_some_and(|fragment| fragment.offset.value() != 0);
    if ip.protocol != ip_number::TCP || is_later {
        return Ok(None);
    }
    let &[s0, s1, d0, d1, q0, q1, q2, q3, ..] = ip.body.bytes() else {
        return Err(ip.body.too_short_for(8));
    };
    let src = SocketAddr::new(ip.src, u16::from_be_bytes([s0, s1]));
    let dst = SocketAddr::new(ip.dst, u16::from_be_bytes([d0, d1]));
    Ok(Some((src, dst, u32::from_be_bytes([q0, q1, q2, q3]))))
}
