//! Link layers: registry numbers, and the offset of the IP packet.
//!
//! <https://www.tcpdump.org/linktypes.html>; IEEE 802.1Q tags. Not parsed by etherparse: it supports neither
//! `LINKTYPE_LINUX_SLL2` nor the loopback types, and rejects a cooked packet of a loopback device.

use super::slice::CapturedSlice;
use super::{DecodeError, LinkType};

impl LinkType {
    /// The link type with this registry number. The 32-bit field of a capture file's header also holds flags: pass its
    /// lower 16 bits.
    pub const fn from_number(number: u16) -> Self {
        match number {
            0 | 108 => Self::Loopback,
            1 => Self::Ethernet,
            12 | 14 | 101 | 228 | 229 => Self::Raw,
            113 => Self::LinuxCooked,
            276 => Self::LinuxCooked2,
            other => Self::Other(other),
        }
    }

    /// The registry number for writing; the most common of several equivalent ones.
    pub const fn number(self) -> u16 {
        match self {
            Self::Ethernet => 1,
            Self::Loopback => 0,
            Self::Raw => 101,
            Self::LinuxCooked => 113,
            Self::LinuxCooked2 => 276,
            Self::Other(number) => number,
        }
    }
}

/// The IP packet in `frame`; `None` if it carries another protocol.
pub(super) fn ip(
    link: LinkType,
    frame: CapturedSlice<'_>,
) -> Result<Option<CapturedSlice<'_>>, DecodeError> {
    match link {
        LinkType::Ethernet => tagged(frame.u16_at(12)?, frame.after(14)?),
        LinkType::LinuxCooked => tagged(frame.u16_at(14)?, frame.after(16)?),
        LinkType::LinuxCooked2 => tagged(frame.u16_at(0)?, frame.after(20)?),
        LinkType::Loopback => loopback(frame),
        LinkType::Raw => Ok(Some(frame)),
        LinkType::Other(_) => Err(DecodeError::UnsupportedLink),
    }
}

/// Skips VLAN tags; `ether_type` is the type of `payload`.
fn tagged(
    mut ether_type: u16,
    mut payload: CapturedSlice<'_>,
) -> Result<Option<CapturedSlice<'_>>, DecodeError> {
    loop {
        match ether_type {
            0x0800 | 0x86dd => return Ok(Some(payload)),
            // 802.1Q, 802.1ad, and pre-standard QinQ.
            0x8100 | 0x88a8 | 0x9100 => {
                ether_type = payload.u16_at(2)?;
                payload = payload.after(4)?;
            }
            _ => return Ok(None),
        }
    }
}

/// The header holds the address family of the capturing system, in its byte order: AF_INET6 is 10 on Linux, 24 on NetBSD
/// and OpenBSD, 28 on FreeBSD, 30 on macOS. Some writers put an EtherType in the lower half.
fn loopback(frame: CapturedSlice<'_>) -> Result<Option<CapturedSlice<'_>>, DecodeError> {
    let (high, low, packet) = (frame.u16_at(0)?, frame.u16_at(2)?, frame.after(4)?);
    let family = match (high, low) {
        (_, 0x0800 | 0x86dd) => return Ok(Some(packet)),
        (0, family) => family,
        (family, 0) => family.swap_bytes(),
        _ => return Ok(None),
    };
    Ok(matches!(family, 2 | 10 | 24 | 28 | 30).then_some(packet))
}
