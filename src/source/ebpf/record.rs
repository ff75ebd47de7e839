//! What the kernel programs hand up, as `src/bpf/watch.h` lays it out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// `sizeof(struct watch_record)`.
pub(super) const HEADER: usize = 32;

/// `WATCH_TAIL`: the room of a tail, before the rest of the packet.
pub(super) const TAIL: usize = 256;

/// `WATCH_SOCKET`; all else is a packet.
pub(super) const SOCKET: u32 = 2;

/// Indices of counters.
pub(super) const LOST_OPENINGS: u32 = 0;
pub(super) const LOST_PACKETS: u32 = 1;

/// `sizeof(struct watch_socket)`.
const SOCKET_LEN: usize = 48;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The beginning of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Nanoseconds of the monotonic clock.
    pub(super) at: u64,
    /// `ifindex`.
    pub(super) interface: u32,
    pub(super) wire_len: u32,
    pub(super) omitted: u32,
    pub(super) kind: u32,
}

/// `struct watch_socket`; its time stands in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) rtt: Option<Duration>,
    pub(super) retransmits: u32,
    pub(super) closed: bool,
}

/// What stands in a record, without the room that was reserved and not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) header: Header,
    /// Up to what was omitted.
    pub(super) head: &'a [u8],
    /// From there on.
    pub(super) tail: &'a [u8],
}

impl<'a> Record<'a> {
    /// `None` if it contradicts itself, which our own programs never make.
    pub(super) fn read(record: &'a [u8]) -> Option<Self> {
        let (header, rest) = record.split_at_checked(HEADER)?;
        let captured = usize::try_from(u32_at(header, 20)?).ok()?;
        let tail = usize::try_from(u32_at(header, 24)?).ok()?;
        let header = Header {
            at: u64::from_ne_bytes(header.first_chunk().copied()?),
            interface: u32_at(header, 8)?,
            wire_len: u32_at(header, 12)?,
            omitted: u32_at(header, 16)?,
            kind: u32_at(header, 28)?,
        };
        if tail == 0 {
            return Some(Self { header, head: rest.get(..captured)?, tail: &[] });
        }
        let (room, rest) = rest.split_at_checked(TAIL)?;
        Some(Self { header, head: rest.get(..captured)?, tail: room.get(..tail)? })
    }
}

impl Socket {
    /// From what follows the header; `None` if that is no socket of IPv4 or IPv6.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SOCKET_LEN] = bytes.first_chunk()?;
        let family = u16_at(bytes, 44)?;
        let socket = |address: usize, port: usize| {
            let address: &[u8; 16] = bytes.get(address..)?.first_chunk()?;
            let ip = match family {
                AF_INET => IpAddr::V4(Ipv4Addr::from(*address.first_chunk::<4>()?)),
                // An IPv6 socket may speak IPv4.
                AF_INET6 => Ipv6Addr::from(*address).to_canonical(),
                _ => return None,
            };
            Some(SocketAddr::new(ip, u16_at(bytes, port)?))
        };
        let eighths = u32_at(bytes, 32)?;
        Some(Self {
            local: socket(0, 40)?,
            peer: socket(16, 42)?,
            rtt: (eighths > 0).then(|| Duration::from_nanos(u64::from(eighths) * 125)),
            retransmits: u32_at(bytes, 36)?,
            closed: u16_at(bytes, 46)? != 0,
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u16::from_ne_bytes(bytes))
}
