//! Packets that programs in the kernel hand up: headers, and payload only where it is SMTP's control dialogue.
//!
//! Layer 4. aya loads what `build.rs` compiles of `src/bpf`. Attached by tcx (Linux 6.6), else as filters of clsact (5.8).
//! Two rings of the kernel bring records: SYNs of clients have one of their own, which hardly ever overflows. PcapReader of
//! both are merged by time.

mod error;
mod programs;
mod record;
mod slot;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use aya::maps::{MapData, RingBuf};
use nix::net::if_::if_indextoname;
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};

pub(in crate::source) use error::EbpfError;

use self::programs::{Attach, Programs};
use self::record::{Header, Record};
use super::live::{POLL_TIMEOUT, WatchedInterface};
use super::{CaptureLoss, PacketSource};
use crate::stream::SocketEvent;
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// So long the kernel collects records before they are looked at, unless a ring gets a quarter full. To be woken for each
/// would cost more than all else.
const TURN: Duration = Duration::from_millis(20);

/// Turns in [`POLL_TIMEOUT`].
const TURNS: u32 = (POLL_TIMEOUT.as_millis() / TURN.as_millis()) as u32;

/// How often is looked whether interfaces are still there.
const ROUND: Duration = Duration::from_secs(1);

/// What sockets said and nobody asked for: the oldest is forgotten beyond so many.
const SOCKETS: usize = 65_536;

/// A capture by eBPF. Dropped, it leaves nothing in the kernel that looks at packets.
pub(in crate::source) struct Ebpf {
    programs: Programs,
    interfaces: Vec<Watched>,
    opening: Next,
    packet: Next,
    sockets: VecDeque<SocketEvent>,
    clock: Clock,
    alarm: OwnedFd,
    looked: Instant,
    lost: CaptureLoss,
}

impl Ebpf {
    /// Begins to capture. `buffer` is in bytes, for all interfaces.
    ///
    /// # Errors
    /// A capability is missing, the kernel cannot, or an interface is not there (any more).
    pub(in crate::source) fn open(
        interfaces: &[WatchedInterface],
        ports: &[u16],
        buffer: usize,
    ) -> Result<Self, EbpfError> {
        Self::attached(Attach::of_this_kernel(), interfaces, ports, buffer)
    }

    fn attached(
        attach: Attach,
        interfaces: &[WatchedInterface],
        ports: &[u16],
        buffer: usize,
    ) -> Result<Self, EbpfError> {
        let programs = Programs::start(interfaces, ports, buffer, attach)?;
        let alarm = alarm(&[&programs.openings, &programs.packets])
            .map_err(|error| EbpfError::refused("wait for ring buffers", &error))?;
        Ok(Self {
            programs,
            interfaces: interfaces.iter().map(Watched::new).collect(),
            opening: Next::default(),
            packet: Next::default(),
            sockets: VecDeque::new(),
            clock: Clock::now(),
            alarm,
            looked: Instant::now(),
            lost: CaptureLoss::default(),
        })
    }

    /// Why nothing is heard of sockets, in a sentence; `None` if they are heard.
    pub(in crate::source) fn socket_events_unavailable(&self) -> Option<&str> {
        self.programs.no_sockets.as_deref()
    }

    /// Fetches the next record of each ring.
    fn fetch(&mut self) {
        // A SYN is handed up before its answer is seen at all. So whoever looks at `packets` first and then at `openings`
        // finds it; and once more at `packets`, or what came before the SYN might be missed.
        self.fetch_packet();
        if self.opening.header.is_none() {
            self.opening.fetch(&mut self.programs.openings);
            self.fetch_packet();
        }
    }

    fn fetch_packet(&mut self) {
        while self.packet.header.is_none() && self.packet.fetch(&mut self.programs.packets) {
            let socket = self.packet.header.take_if(|header| header.kind == record::SOCKET);
            if let Some(header) = socket {
                self.note_socket(header.at);
            }
        }
    }

    fn note_socket(&mut self, at: u64) {
        let Some(socket) = record::Socket::read(&self.packet.bytes) else { return };
        if self.sockets.len() == SOCKETS {
            self.sockets.pop_front();
        }
        self.sockets.push_back(SocketEvent {
            at: self.clock.at(at),
            local: socket.local,
            peer: socket.peer,
            rtt: socket.rtt,
            retransmits: socket.retransmits,
            closed: socket.closed,
        });
    }

    /// Waits for a turn, or until a ring is a quarter full.
    fn wait(&self) -> Result<(), EbpfError> {
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(TURN.subsec_nanos()) };
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 2];
        match epoll::wait(&self.alarm, &mut events, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(EbpfError::refused("wait for ring buffers", &error)),
        }
    }

    /// Each interface that has gone is told once.
    fn look_for_interfaces(&mut self) -> Result<(), EbpfError> {
        if self.looked.elapsed() < ROUND {
            return Ok(());
        }
        self.looked = Instant::now();
        // nix tells an interface that is not there by an empty name.
        let is_there = |index| if_indextoname(index).is_ok_and(|name| !name.is_empty());
        let mut known = self.interfaces.iter_mut().filter(|interface| !interface.is_gone);
        match known.find(|interface| !is_there(interface.index)) {
            None => Ok(()),
            Some(interface) => {
                interface.is_gone = true;
                Err(EbpfError::Gone { name: interface.name.clone() })
            }
        }
    }
}

impl PacketSource for Ebpf {
    type Error = EbpfError;

    fn next(&mut self) -> Result<Option<Packet<'_>>, EbpfError> {
        let told = self.sockets.len();
        for turn in 0..=TURNS {
            self.fetch();
            if self.opening.header.is_some() || self.packet.header.is_some() {
                break;
            }
            if turn == TURNS || self.sockets.len() > told {
                return Ok(None);
            }
            self.look_for_interfaces()?;
            self.wait()?;
        }
        let next = match (&self.opening.header, &self.packet.header) {
            (Some(opening), Some(packet)) if packet.at < opening.at => &mut self.packet,
            (Some(_), _) => &mut self.opening,
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
        self.sockets.pop_front()
    }

    /// Asks the kernel: one call for each of both numbers.
    fn loss(&mut self) -> CaptureLoss {
        let lost = &self.programs.lost;
        let sum = |counter: u32| Some(lost.get(&counter, 0).ok()?.iter().sum::<u64>());
        let (openings, packets) = (sum(record::LOST_OPENINGS), sum(record::LOST_PACKETS));
        self.lost.syns = openings.unwrap_or(self.lost.syns);
        self.lost.packets = packets.unwrap_or(self.lost.packets);
        self.lost
    }
}

/// An interface; its position is [`Packet::interface`].
#[derive(Debug)]
struct Watched {
    name: String,
    index: u32,
    is_gone: bool,
}

impl Watched {
    fn new(interface: &WatchedInterface) -> Self {
        Self { name: interface.name.clone(), index: interface.index, is_gone: false }
    }
}

/// The next record of a ring, taken from there so that the kernel has its room back.
#[derive(Debug, Default)]
struct Next {
    header: Option<Header>,
    bytes: Vec<u8>,
}

impl Next {
    /// Takes the next record of `ring`, if there is one.
    fn fetch(&mut self, ring: &mut RingBuf<MapData>) -> bool {
        self.header = None;
        while self.header.is_none() {
            let Some(item) = ring.next() else { return false };
            if let Some(Record { header, head, tail }) = Record::read(&item) {
                self.bytes.clear();
                self.bytes.extend_from_slice(head);
                self.bytes.extend_from_slice(tail);
                self.header = Some(header);
            }
        }
        true
    }
}

/// The kernel's monotonic clock, anchored once to the wall clock.
#[derive(Clone, Copy, Debug)]
struct Clock {
    wall: Timestamp,
    /// Nanoseconds.
    monotonic: u64,
}

impl Clock {
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

/// Something to wait at for rings to become a quarter full. Told apart by edge, or every record would end the wait.
fn alarm(rings: &[&RingBuf<MapData>]) -> rustix::io::Result<OwnedFd> {
    let alarm = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for ring in rings {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&alarm, ring, epoll::EventData::new_u64(0), flags)?;
    }
    Ok(alarm)
}
