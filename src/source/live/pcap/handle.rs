//! One libpcap handle: a ring buffer that the kernel fills with one class of an interface's packets.
//!
//! SYNs are few and small. They use a ring of small frames (TPACKET_V2, selected by immediate mode), where each packet can be
//! read at once. Other packets may be 64 KiB long, and a ring of such frames would be full after a burst of a few hundred
//! small packets. They use a ring of blocks that hold many packets (TPACKET_V3); a block can be read when it is full or
//! [`BLOCK_TIMEOUT`] old.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use ::pcap::{Active, Capture, Error, Linktype, Precision};

use super::filter::{PacketClass, filter};
use super::outgoing::ignore_outgoing;
use crate::source::live::error::LiveError;
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// Time after which the kernel releases a block that is not full.
const BLOCK_TIMEOUT: Duration = Duration::from_millis(10);
/// Time after which it has certainly done so, whatever its timer's resolution (4 ms at 250 Hz) and delay.
pub(super) const MAX_DELAY: Duration = Duration::from_millis(30);
/// libpcap's maximum snap length.
const FULL_SNAP_LEN: i32 = 262_144;
/// Snap length for SYNs. Ethernet with two VLAN tags, IPv6 and TCP with all options take 142 bytes; the rest is for TCP Fast
/// Open data.
const SYN_SNAP_LEN: i32 = 256;

/// Name of the loopback interface in every network namespace.
const LOOPBACK: &str = "lo";

pub(super) struct Handle {
    capture: Capture<Active>,
    link: LinkType,
    class: PacketClass,
    /// Index in the list of interfaces.
    interface: u32,
    /// The next packet, if [`Self::has_packet`].
    bytes: Vec<u8>,
    at: Timestamp,
    wire_len: u32,
    has_packet: bool,
    /// Time when the ring was last found empty; `None` if a packet was read since.
    empty_at: Option<Timestamp>,
    dropped: WrappingCount,
    /// Dropped by the network card or its driver.
    dropped_by_card: WrappingCount,
}

impl Handle {
    pub(super) fn open(
        name: &str,
        interface: u32,
        class: PacketClass,
        ports: &[u16],
        buffer: usize,
    ) -> Result<Self, LiveError> {
        let failed = |source| LiveError::Open { name: name.to_owned(), source };
        let inactive = Capture::from_device(name).map_err(failed)?;
        let inactive = inactive.promisc(false).precision(Precision::Nano);
        let inactive = match class {
            PacketClass::Syns => {
                inactive.snaplen(SYN_SNAP_LEN).immediate_mode(true).buffer_size(size(buffer))
            }
            PacketClass::Others => inactive
                .snaplen(FULL_SNAP_LEN)
                .timeout(BLOCK_TIMEOUT.as_millis() as i32)
                .buffer_size(size(buffer)),
        };
        let mut capture = inactive.open().map_err(failed)?;
        let datalink = capture.get_datalink();
        let link = link(datalink).ok_or_else(|| LiveError::UnsupportedLink {
            name: name.to_owned(),
            link: datalink.get_name().unwrap_or_else(|_| datalink.0.to_string()),
        })?;
        if name == LOOPBACK {
            // Fails before Linux 4.20: then libpcap drops outgoing packets itself, and losses count twice.
            let _ = ignore_outgoing(&capture);
        }
        capture.filter(&filter(class, ports, link), true).map_err(failed)?;
        let mut handle = Self {
            capture: capture.setnonblock().map_err(failed)?,
            link,
            class,
            interface,
            bytes: Vec::new(),
            at: Timestamp::default(),
            wire_len: 0,
            has_packet: false,
            empty_at: None,
            dropped: WrappingCount::default(),
            dropped_by_card: WrappingCount::default(),
        };
        // Ignores losses from before the filter was in place.
        handle.update_counts();
        handle.dropped.total = 0;
        handle.dropped_by_card.total = 0;
        Ok(handle)
    }

    pub(super) const fn class(&self) -> PacketClass {
        self.class
    }

    pub(super) const fn interface(&self) -> u32 {
        self.interface
    }

    /// Capture time of the next packet, if one was read.
    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.has_packet.then_some(self.at)
    }

    /// All packets captured until this time were read.
    pub(super) fn complete_until(&self) -> Option<Timestamp> {
        let delay = match self.class {
            PacketClass::Syns => Duration::ZERO,
            PacketClass::Others => MAX_DELAY,
        };
        let nanos = self.empty_at?.as_nanos().saturating_sub(delay.as_nanos() as u64);
        Some(Timestamp::from_nanos(nanos))
    }

    /// Reads the next packet from the ring, unless one was read already.
    pub(super) fn fill(&mut self) -> Result<(), Error> {
        if self.has_packet {
            return Ok(());
        }
        let now = Timestamp::from_system_time(SystemTime::now());
        let Self { capture, bytes, at, wire_len, .. } = self;
        let count = capture.dispatch(Some(1), |packet| {
            bytes.clear();
            bytes.extend_from_slice(packet.data);
            // Nanoseconds, in spite of the field's name.
            let (seconds, nanos) = (packet.header.ts.tv_sec, packet.header.ts.tv_usec);
            let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            *at = Timestamp::from_nanos(u64::try_from(nanos).unwrap_or_default());
            *wire_len = packet.header.len;
        })?;
        self.has_packet = count > 0;
        self.empty_at = (count == 0).then_some(now);
        Ok(())
    }

    /// Returns the packet that [`Self::fill`] read.
    pub(super) fn take(&mut self) -> Packet<'_> {
        self.has_packet = false;
        Packet {
            interface: self.interface,
            ..Packet::new(self.at, self.link, &self.bytes, self.wire_len)
        }
    }

    /// Packets dropped by this handle, and packets of any class dropped by the card.
    pub(super) fn drops(&mut self) -> (u64, u64) {
        self.update_counts();
        (self.dropped.total, self.dropped_by_card.total)
    }

    fn update_counts(&mut self) {
        // Fails when the interface is removed; the totals stay.
        if let Ok(stats) = self.capture.stats() {
            self.dropped.add(stats.dropped);
            self.dropped_by_card.add(stats.if_dropped);
        }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.capture.as_fd()
    }
}

/// Extends a 32-bit counter, which may wrap between two readings.
#[derive(Default)]
struct WrappingCount {
    last: u32,
    total: u64,
}

impl WrappingCount {
    fn add(&mut self, now: u32) {
        self.total += u64::from(now.wrapping_sub(self.last));
        self.last = now;
    }
}

fn size(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// `None` if unsupported. For supported types libpcap's numbers equal those of the registry.
fn link(datalink: Linktype) -> Option<LinkType> {
    let number = u16::try_from(datalink.0).ok()?;
    match LinkType::from_number(number) {
        LinkType::Other(_) => None,
        link => Some(link),
    }
}
