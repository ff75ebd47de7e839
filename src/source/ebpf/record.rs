//! Records of the kernel programs, with the layout of `src/bpf/watch.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// `sizeof(struct watch_record)`.
pub(super) const HEADER: usize = 32;

/// `WATCH_TAIL`: space reserved for a tail, before the rest of the packet.
pub(super) const TAIL: usize = 256;

/// `WATCH_SOCKET`; other kinds are packets.
pub(super) const SOCKET: u32 = 2;

/// Indices of the loss counters.
pub(super) const LOST_SYNS: u32 = 0;
pub(super) const LOST_PACKETS: u32 = 1;

/// `WATCH_SEEN`: number of interfaces with counters of their own.
pub(super) const SEEN_INTERFACES: u32 = 1024;

/// `sizeof(struct watch_socket)`.
const SOCKET_LEN: usize = 48;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// `struct watch_record`, the header of every record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    /// Nanoseconds of the monotonic clock.
    pub(super) at: u64,
    /// `ifindex`.
    pub(super) interface: u32,
    pub(super) wire_len: u32,
    pub(super) omitted: u32,
    pub(super) kind: u32,
}

/// `struct watch_socket`; its time is in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketRecord {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) rtt: Option<Duration>,
    pub(super) retransmits: u32,
    pub(super) closed: bool,
}

/// A record without its unused reserved space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record<'a> {
    pub(super) header: RecordHeader,
    /// Captured bytes before the omitted ones.
    pub(super) head: &'a [u8],
    /// Captured bytes after the omitted ones.
    pub(super) tail: &'a [u8],
}

impl<'a> Record<'a> {
    /// `None` if the record is inconsistent, which the kernel programs never produce.
    pub(super) fn parse(record: &'a [u8]) -> Option<Self> {
        let (header, rest) = record.split_at_checked(HEADER)?;
        let captured = usize::try_from(u32_at(header, 20)?).ok()?;
        let tail = usize::try_from(u32_at(header, 24)?).ok()?;
        let header = RecordHeader {
            at: u64::from_ne_bytes(header.first_chunk().copied()?),
            interface: u32_at(header, 8)?,
            wire_len: u32_at(header, 12)?,
            omitted: u32_at(header, 16)?,
            kind: u32_at(header, 28)?,
        };
        if tail == 0 {
            return Some(Self { header, head: rest.get(..captured)?, tail: &[] });
        }
        let (reserved, rest) = rest.split_at_checked(TAIL)?;
        Some(Self { header, head: rest.get(..captured)?, tail: reserved.get(..tail)? })
    }
}

impl SocketRecord {
    /// Parses the bytes after the header; `None` if the socket is neither IPv4 nor IPv6.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SOCKET_LEN] = bytes.first_chunk()?;
        let family = u16_at(bytes, 44)?;
        let socket = |address: usize, port: usize| {
            let address: &[u8; 16] = bytes.get(address..)?.first_chunk()?;
            let ip = match family {
                AF_INET => IpAddr::V4(Ipv4Addr::from(*address.first_chunk::<4>()?)),
                // An IPv6 socket may carry IPv4.
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
