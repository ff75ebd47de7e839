//! One libpcap handle: a ring that the kernel fills with one part of an interface's packets.
//!
//! Sessions that begin are few and small, so they get a ring of small frames (TPACKET_V2, which immediate mode selects): a
//! packet can be read as soon as it is there. Other packets may be 64 KiB long; frames of that size would be some hundred,
//! full after a burst of as many small packets. They get a ring of blocks into which packets are packed (TPACKET_V3), and
//! a block can be read when it is full or [`BLOCK`] old.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime};

use ::pcap::{Active, Capture, Error, Linktype, Precision};

use super::filter::{PacketClass, filter};
use super::outgoing::ignore_outgoing;
use crate::source::live::LiveError;
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// After so long the kernel hands over a block that is not full.
const BLOCK: Duration = Duration::from_millis(10);
/// After so long it has done so, however coarse its timer (4 ms at 250 Hz) and however late.
pub(super) const LATE: Duration = Duration::from_millis(30);
/// The most that libpcap takes of a packet.
const WHOLE: i32 = 262_144;
/// Ethernet and two tags, IP and TCP with all options: 142. The rest is for what comes with TCP Fast Open.
const HEADERS: i32 = 256;
/// Room for some ten thousand sessions that begin.
const OPENINGS_BUFFER: usize = 4 << 20;

/// The kernel's name for it in every network namespace.
const LOOPBACK: &str = "lo";

pub(super) struct Handle {
    capture: Capture<Active>,
    link: LinkType,
    part: PacketClass,
    /// Position in the list of interfaces.
    interface: u32,
    /// The packet that is next, if [`Self::is_full`].
    bytes: Vec<u8>,
    at: Timestamp,
    wire_len: u32,
    is_full: bool,
    /// When the ring was last found empty, if nothing was taken out of it since.
    empty_at: Option<Timestamp>,
    lost: Count,
    /// CaptureLoss before the card or driver handed them to the kernel.
    never_seen: Count,
}

impl Handle {
    pub(super) fn open(
        name: &str,
        interface: u32,
        part: PacketClass,
        ports: &[u16],
        buffer: usize,
    ) -> Result<Self, LiveError> {
        let failed = |source| LiveError::Open { name: name.to_owned(), source };
        let inactive = Capture::from_device(name).map_err(failed)?;
        let inactive = inactive.promisc(false).precision(Precision::Nano);
        let inactive = match part {
            PacketClass::Openings => inactive
                .snaplen(HEADERS)
                .immediate_mode(true)
                .buffer_size(size(buffer.min(OPENINGS_BUFFER))),
            PacketClass::Packets => {
                inactive.snaplen(WHOLE).timeout(BLOCK.as_millis() as i32).buffer_size(size(buffer))
            }
        };
        let mut capture = inactive.open().map_err(failed)?;
        let datalink = capture.get_datalink();
        let link = link(datalink).ok_or_else(|| LiveError::Link {
            name: name.to_owned(),
            what: datalink.get_name().unwrap_or_else(|_| datalink.0.to_string()),
        })?;
        if name == LOOPBACK {
            // Before Linux 4.20 libpcap drops them, and losses count twice.
            let _ = ignore_outgoing(&capture);
        }
        capture.filter(&filter(part, ports, link), true).map_err(failed)?;
        let mut handle = Self {
            capture: capture.setnonblock().map_err(failed)?,
            link,
            part,
            interface,
            bytes: Vec::new(),
            at: Timestamp::default(),
            wire_len: 0,
            is_full: false,
            empty_at: None,
            lost: Count::default(),
            never_seen: Count::default(),
        };
        // What was lost before the filter was in place, and before us.
        handle.count();
        handle.lost.total = 0;
        handle.never_seen.total = 0;
        Ok(handle)
    }

    pub(super) const fn part(&self) -> PacketClass {
        self.part
    }

    pub(super) const fn interface(&self) -> u32 {
        self.interface
    }

    /// When the packet that is next was captured.
    pub(super) fn head(&self) -> Option<Timestamp> {
        self.is_full.then_some(self.at)
    }

    /// Every packet until then was taken out.
    pub(super) fn complete_until(&self) -> Option<Timestamp> {
        let late = match self.part {
            PacketClass::Openings => Duration::ZERO,
            PacketClass::Packets => LATE,
        };
        let nanos = self.empty_at?.as_nanos().saturating_sub(late.as_nanos() as u64);
        Some(Timestamp::from_nanos(nanos))
    }

    /// Takes the next packet out of the ring, if there is none here.
    pub(super) fn look(&mut self) -> Result<(), Error> {
        if self.is_full {
            return Ok(());
        }
        let now = Timestamp::from_system_time(SystemTime::now());
        let Self { capture, bytes, at, wire_len, .. } = self;
        let count = capture.dispatch(Some(1), |packet| {
            bytes.clear();
            bytes.extend_from_slice(packet.data);
            // Of nanosecond precision, in spite of its name.
            let (seconds, nanos) = (packet.header.ts.tv_sec, packet.header.ts.tv_usec);
            let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
            *at = Timestamp::from_nanos(u64::try_from(nanos).unwrap_or_default());
            *wire_len = packet.header.len;
        })?;
        self.is_full = count > 0;
        self.empty_at = (count == 0).then_some(now);
        Ok(())
    }

    /// The packet that is next.
    pub(super) fn take(&mut self) -> Packet<'_> {
        self.is_full = false;
        Packet {
            interface: self.interface,
            ..Packet::new(self.at, self.link, &self.bytes, self.wire_len)
        }
    }

    /// How many packets this handle could not deliver, and how many the card dropped of all.
    pub(super) fn lost(&mut self) -> (u64, u64) {
        self.count();
        (self.lost.total, self.never_seen.total)
    }

    fn count(&mut self) {
        // It fails when the interface is gone: what was counted stays.
        if let Ok(stats) = self.capture.stats() {
            self.lost.add(stats.dropped);
            self.never_seen.add(stats.if_dropped);
        }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.capture.as_fd()
    }
}

/// A count of 32 bits that may have come round since it was last read.
#[derive(Default)]
struct Count {
    last: u32,
    total: u64,
}

impl Count {
    fn add(&mut self, now: u32) {
        self.total += u64::from(now.wrapping_sub(self.last));
        self.last = now;
    }
}

fn size(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}

/// libpcap's numbers are those of the registry for all that is read.
fn link(datalink: Linktype) -> Option<LinkType> {
    let number = u16::try_from(datalink.0).ok()?;
    match LinkType::from_number(number) {
        LinkType::Other(_) => None,
        link => Some(link),
    }
}
