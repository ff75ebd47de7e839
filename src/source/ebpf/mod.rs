//! Packets that programs in the kernel hand up: headers, and payload only where it is SMTP's control dialogue.
//!
//! Layer 4. aya loads what `build.rs` compiles of `src/bpf`. Attached by tcx (Linux 6.6, or backported), else as filters of
//! clsact (5.8), before the programs of others where the kernel allows it; `visibility` notices those that run first.
//! Two rings of the kernel bring records: SYNs of clients have one of their own, which hardly ever overflows. PcapReader of
//! both are merged by time.

mod blindness;
mod error;
mod netlink;
mod order;
mod programs;
mod record;
mod slot;
#[cfg(test)]
mod tests;
mod visibility;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use aya::maps::{MapData, RingBuf};
use nix::net::if_::if_indextoname;
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};

pub(in crate::source) use error::EbpfError;

use self::netlink::RouteNetlink;
use self::programs::{AttachMethod, Programs};
use self::record::{Record, RecordHeader};
use self::visibility::Visibility;
use super::interface::WatchedInterface;
use super::leftovers::Leftovers;
use super::packet_source::{CaptureLoss, POLL_TIMEOUT, PacketSource};
use crate::stream::SocketEvent;
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// Interval of reads from the rings, unless one becomes a quarter full. A wake-up per record would dominate the cost.
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// Read intervals per [`POLL_TIMEOUT`].
const READS: u32 = (POLL_TIMEOUT.as_millis() / READ_INTERVAL.as_millis()) as u32;

/// Interval of checks for removed interfaces.
const INTERFACE_CHECK: Duration = Duration::from_secs(1);

/// Maximum number of queued socket events; the oldest is dropped.
const MAX_SOCKET_EVENTS: usize = 65_536;

/// Packets between two looks at the clock under load.
const STRIDE: u32 = 1024;

const NETLINK: &str = "list filters";

/// A running capture. Dropping it removes the programs from the kernel.
pub(in crate::source) struct Ebpf {
    programs: Programs,
    interfaces: Vec<InterfaceState>,
    syn: PendingRecord,
    packet: PendingRecord,
    socket_events: VecDeque<SocketEvent>,
    clock: KernelClock,
    epoll: OwnedFd,
    interfaces_checked: Instant,
    visibility: Visibility,
    /// Not reported yet.
    notices: VecDeque<EbpfError>,
    delivered: u32,
    loss: CaptureLoss,
}

/// Removes the filters of gatepost processes that were killed, in the network namespace of this thread.
pub(in crate::source) fn remove_leftovers() -> Result<Leftovers, EbpfError> {
    let netlink = RouteNetlink::open().map_err(|error| EbpfError::refused(NETLINK, &error))?;
    slot::remove_leftovers(&netlink)
}

impl Ebpf {
    /// Starts a capture. `buffer` is in bytes, for all interfaces.
    ///
    /// # Errors
    /// A capability is missing, the kernel does not support it, or an interface does not exist (any more).
    pub(in crate::source) fn open(
        interfaces: &[WatchedInterface],
        ports: &[u16],
        buffer: usize,
    ) -> Result<Self, EbpfError> {
        Self::open_with(None, interfaces, ports, buffer)
    }

    /// Without a method, the first that the kernel has.
    fn open_with(
        method: Option<AttachMethod>,
        interfaces: &[WatchedInterface],
        ports: &[u16],
        buffer: usize,
    ) -> Result<Self, EbpfError> {
        let netlink = RouteNetlink::open().map_err(|error| EbpfError::refused(NETLINK, &error))?;
        let mut programs = Programs::start(interfaces, ports, buffer, method, &netlink)?;
        let mut visibility = Visibility::new(netlink, &programs);
        let notices = visibility.check(&mut programs).into();
        let epoll = epoll_rings(&[&programs.syns, &programs.packets])
            .map_err(|error| EbpfError::refused("wait for ring buffers", &error))?;
        Ok(Self {
            programs,
            interfaces: interfaces.iter().map(InterfaceState::new).collect(),
            syn: PendingRecord::default(),
            packet: PendingRecord::default(),
            socket_events: VecDeque::new(),
            clock: KernelClock::now(),
            epoll,
            interfaces_checked: Instant::now(),
            visibility,
            notices,
            delivered: 0,
            loss: CaptureLoss::default(),
        })
    }

    /// The next problem with other software, each once. Some are fatal, see [`EbpfError::is_fatal`].
    pub(in crate::source) fn take_notice(&mut self) -> Option<EbpfError> {
        self.notices.pop_front()
    }

    /// Ends the capture of packets; those captured before can still be read.
    pub(in crate::source) fn detach(&mut self) {
        self.programs.detach();
        self.notices.clear();
    }

    /// Whether no packet is left to be read.
    pub(in crate::source) fn is_drained(&mut self) -> bool {
        self.fetch();
        self.syn.header.is_none() && self.packet.header.is_none()
    }

    /// Why there are no socket events; `None` if there are.
    pub(in crate::source) fn socket_events_unavailable(&self) -> Option<&str> {
        self.programs.no_socket_events.as_deref()
    }

    /// Fetches the next record of each ring.
    fn fetch(&mut self) {
        // A SYN is submitted before its answer is captured. So a read of `packets` first and `syns` second finds the SYN of
        // any packet read; `packets` is read once more for packets submitted before that SYN.
        self.fetch_packet();
        if self.syn.header.is_none() {
            self.syn.fetch(&mut self.programs.syns);
            self.fetch_packet();
        }
    }

    fn fetch_packet(&mut self) {
        while self.packet.header.is_none() && self.packet.fetch(&mut self.programs.packets) {
            let event = self.packet.header.take_if(|header| header.kind == record::SOCKET);
            if let Some(header) = event {
                self.queue_socket_event(header.at);
            }
        }
    }

    fn queue_socket_event(&mut self, at: u64) {
        let Some(socket) = record::SocketRecord::parse(&self.packet.bytes) else { return };
        if self.socket_events.len() == MAX_SOCKET_EVENTS {
            self.socket_events.pop_front();
        }
        self.socket_events.push_back(SocketEvent {
            at: self.clock.at(at),
            local: socket.local,
            peer: socket.peer,
            rtt: socket.rtt,
            retransmits: socket.retransmits,
            closed: socket.closed,
        });
    }

    /// Waits for [`READ_INTERVAL`], or until a ring is a quarter full.
    fn wait(&self) -> Result<(), EbpfError> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(READ_INTERVAL.subsec_nanos()) };
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 2];
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(EbpfError::refused("wait for ring buffers", &error)),
        }
    }

    fn check_visibility(&mut self) {
        if self.visibility.is_due() {
            self.notices.extend(self.visibility.check(&mut self.programs));
        }
    }

    /// Reports each removed interface once.
    fn check_interfaces(&mut self) -> Result<(), EbpfError> {
        if self.interfaces_checked.elapsed() < INTERFACE_CHECK {
            return Ok(());
        }
        self.interfaces_checked = Instant::now();
        // nix returns an empty name for a missing interface.
        let exists = |index| if_indextoname(index).is_ok_and(|name| !name.is_empty());
        let mut known = self.interfaces.iter_mut().filter(|interface| !interface.is_removed);
        match known.find(|interface| !exists(interface.index)) {
            None => Ok(()),
            Some(interface) => {
                interface.is_removed = true;
                Err(EbpfError::InterfaceRemoved { name: interface.name.clone() })
            }
        }
    }
}

impl PacketSource for Ebpf {
    type Error = EbpfError;

    fn next(&mut self) -> Result<Option<Packet<'_>>, EbpfError> {
        let queued = self.socket_events.len();
        self.delivered = self.delivered.wrapping_add(1);
        if self.delivered.is_multiple_of(STRIDE) {
            self.check_visibility();
        }
        for read in 0..=READS {
            self.fetch();
            if self.syn.header.is_some() || self.packet.header.is_some() {
                break;
            }
            if read == READS || self.socket_events.len() > queued {
                return Ok(None);
            }
            self.check_interfaces()?;
            self.check_visibility();
            self.wait()?;
        }
        let next = match (&self.syn.header, &self.packet.header) {
            (Some(syn), Some(packet)) if packet.at < syn.at => &mut self.packet,
            (Some(_), _) => &mut self.syn,
            (None, _) => &mut self.packet,
        };
        let Some(header) = next.header.take() else { return Ok(None) };
        let position =
            self.interfaces.iter().zip(0..).find(|(known, _)| known.index == header.interface);
        Ok(Some(Packet {
            at: self.clock.at(header.at),
            link: LinkType::Raw,
            bytes: &next.bytes,
            wire_len: header.wire_len,
            omitted: header.omitted,
            interface: position.map_or(0, |(_, position)| position),
            note: None,
        }))
    }

    fn next_socket_event(&mut self) -> Option<SocketEvent> {
        self.socket_events.pop_front()
    }

    /// Reads both counters from the kernel, one call each.
    fn loss(&mut self) -> CaptureLoss {
        let counters = &self.programs.lost;
        let sum = |counter: u32| Some(counters.get(&counter, 0).ok()?.iter().sum::<u64>());
        let (syns, packets) = (sum(record::LOST_SYNS), sum(record::LOST_PACKETS));
        self.loss.syns = syns.unwrap_or(self.loss.syns);
        self.loss.packets = packets.unwrap_or(self.loss.packets);
        self.loss.hidden = self.visibility.hidden();
        self.loss
    }
}

/// A watched interface; its index is [`Packet::interface`].
#[derive(Debug)]
struct InterfaceState {
    name: String,
    index: u32,
    is_removed: bool,
}

impl InterfaceState {
    fn new(interface: &WatchedInterface) -> Self {
        Self { name: interface.name.clone(), index: interface.index, is_removed: false }
    }
}

/// The next record of a ring, copied so that the kernel can reuse its space.
#[derive(Debug, Default)]
struct PendingRecord {
    header: Option<RecordHeader>,
    bytes: Vec<u8>,
}

impl PendingRecord {
    /// Reads the next record of `ring`, if there is one.
    fn fetch(&mut self, ring: &mut RingBuf<MapData>) -> bool {
        self.header = None;
        while self.header.is_none() {
            let Some(item) = ring.next() else { return false };
            if let Some(Record { header, head, tail }) = Record::parse(&item) {
                self.bytes.clear();
                self.bytes.extend_from_slice(head);
                self.bytes.extend_from_slice(tail);
                self.header = Some(header);
            }
        }
        true
    }
}

/// Converts the kernel's monotonic clock to wall time, by one reading of both.
#[derive(Clone, Copy, Debug)]
struct KernelClock {
    wall: Timestamp,
    /// Nanoseconds.
    monotonic: u64,
}

impl KernelClock {
    fn now() -> Self {
        let monotonic = clock_gettime(ClockId::Monotonic);
        let monotonic = Duration::try_from(monotonic).unwrap_or_default();
        Self {
            wall: Timestamp::from_system_time(SystemTime::now()),
            monotonic: u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    fn at(&self, nanos: u64) -> Timestamp {
        self.wall + Duration::from_nanos(nanos.saturating_sub(self.monotonic))
    }
}

/// An epoll instance that reports rings which became a quarter full. Edge-triggered, or every record would end the wait.
fn epoll_rings(rings: &[&RingBuf<MapData>]) -> rustix::io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for ring in rings {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, ring, epoll::EventData::new_u64(0), flags)?;
    }
    Ok(epoll)
}
