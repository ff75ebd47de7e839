//! Capture with libpcap: two handles per interface, merged by time.
//!
//! SYNs have a handle of their own, which hardly ever overflows. A packet is released when every other handle has a later
//! one or was found empty after it, so a SYN precedes its SYN-ACK, and packets of several interfaces are in order. Packets
//! are read in batches with pauses in between, so that a busy link does not cause a wake-up per packet.

mod budget;
mod filter;
mod handle;
mod outgoing;

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::budget::RingSizes;
use self::filter::PacketClass;
use self::handle::{Handle, MAX_DELAY};
use super::error::LiveError;
use crate::source::interface::WatchedInterface;
use crate::source::packet_source::{CaptureLoss, POLL_TIMEOUT};
use crate::time::Timestamp;
use crate::wire::Packet;

/// Pause between two batches.
const BATCH_PAUSE: Duration = Duration::from_millis(10);

/// Maximum number of threads that close handles.
const CLOSING_THREADS: usize = 32;

pub(super) struct Pcap {
    /// Handles for SYNs first: at equal times their packets precede others.
    handles: Vec<Handle>,
    names: Vec<String>,
    /// Losses of closed handles.
    closed_loss: CaptureLoss,
    /// Packets until this time are another source's.
    skipped_until: Option<Timestamp>,
}

enum NextPacket {
    /// Of the handle with this index.
    Ready(usize),
    /// An earlier one may still arrive.
    Held,
    None,
}

impl Pcap {
    /// `buffer` is in bytes, for all interfaces.
    pub(super) fn open(
        interfaces: &[WatchedInterface],
        ports: &[u16],
        buffer: usize,
    ) -> Result<Self, LiveError> {
        let mut handles = Vec::with_capacity(2 * interfaces.len());
        let RingSizes { syns, others } = RingSizes::share(buffer, interfaces.len());
        for (class, size) in [(PacketClass::Syns, syns), (PacketClass::Others, others)] {
            for (number, interface) in (0..).zip(interfaces) {
                handles.push(Handle::open(&interface.name, number, class, ports, size)?);
            }
        }
        let names = interfaces.iter().map(|interface| interface.name.clone()).collect();
        Ok(Self { handles, names, closed_loss: CaptureLoss::default(), skipped_until: None })
    }

    /// Skips the packets captured until `at`, which another source delivers.
    #[cfg(feature = "ebpf")]
    pub(super) const fn skip_until(&mut self, at: Timestamp) {
        self.skipped_until = Some(at);
    }

    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, LiveError> {
        let mut ready = self.wait()?;
        while let (Some(until), Some(number)) = (self.skipped_until, ready) {
            let Some(handle) = self.handles.get_mut(number) else { break };
            if handle.next_at().is_none_or(|at| at > until) {
                // All later packets are later, too.
                self.skipped_until = None;
                break;
            }
            handle.take();
            ready = self.wait()?;
        }
        Ok(ready.and_then(|ready| self.handles.get_mut(ready)).map(Handle::take))
    }

    pub(super) fn loss(&mut self) -> CaptureLoss {
        let mut loss = self.closed_loss;
        for handle in &mut self.handles {
            add_drops(&mut loss, handle);
        }
        loss
    }

    /// Waits up to [`POLL_TIMEOUT`] for the next packet and returns the index of its handle.
    fn wait(&mut self) -> Result<Option<usize>, LiveError> {
        let mut deadline = None;
        loop {
            if self.handles.is_empty() {
                return Err(LiveError::NoInterfaceLeft);
            }
            let next = self.find_next()?;
            if let NextPacket::Ready(ready) = next {
                return Ok(Some(ready));
            }
            let now = Instant::now();
            let left = deadline.get_or_insert(now + POLL_TIMEOUT).saturating_duration_since(now);
            if left.is_zero() {
                return Ok(None);
            }
            match next {
                NextPacket::None => self.sleep(left),
                _ => thread::sleep(BATCH_PAUSE.min(left)),
            }
        }
    }

    /// Reads from the rings as far as needed to determine the next packet.
    fn find_next(&mut self) -> Result<NextPacket, LiveError> {
        let mut first: Option<(Timestamp, usize)> = None;
        for number in 0..self.handles.len() {
            let Some(handle) = self.handles.get_mut(number) else { break };
            let until = handle.complete_until();
            if until.is_none()
                && let Err(source) = handle.fill()
            {
                return Err(self.close(number, &source));
            }
            if let Some(at) = self.handles.get(number).and_then(Handle::next_at)
                && first.is_none_or(|(first, _)| at < first)
            {
                first = Some((at, number));
            }
        }
        // Re-reads handles that were found empty before the first packet was captured.
        for number in 0..self.handles.len() {
            let Some(handle) = self.handles.get_mut(number) else { break };
            let complete = handle.complete_until();
            if complete.is_none() || first.is_some_and(|(first, _)| complete >= Some(first)) {
                continue;
            }
            if let Err(source) = handle.fill() {
                return Err(self.close(number, &source));
            }
            if let Some(at) = self.handles.get(number).and_then(Handle::next_at)
                && first.is_none_or(|(first, _)| at < first)
            {
                first = Some((at, number));
            }
        }
        let Some((at, number)) = first else { return Ok(NextPacket::None) };
        let complete = |handle: &Handle| handle.complete_until().is_none_or(|until| until >= at);
        let ready = self.handles.iter().all(complete) || is_in_future(at);
        Ok(if ready { NextPacket::Ready(number) } else { NextPacket::Held })
    }

    /// Sleeps until one of the rings has a packet.
    fn sleep(&self, at_most: Duration) {
        let mut fds: Vec<_> = self
            .handles
            .iter()
            .map(|handle| PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN))
            .collect();
        // Errors of a ring are reported by libpcap at the next read.
        let _ = poll(&mut fds, Timespec::try_from(at_most).ok().as_ref());
    }

    /// Closes both handles of an interface after an error of one.
    fn close(&mut self, number: usize, source: &::pcap::Error) -> LiveError {
        let interface = self.handles.get(number).map_or(0, Handle::interface);
        let loss = &mut self.closed_loss;
        self.handles.retain_mut(|handle| {
            let keep = handle.interface() != interface;
            if !keep {
                add_drops(loss, handle);
            }
            keep
        });
        let name = self.names.get(interface as usize).cloned().unwrap_or_default();
        let remaining = self.handles.len() / 2;
        LiveError::InterfaceLost { name, reason: source.to_string(), remaining }
    }
}

/// The kernel waits a while for each socket that is closed, so many are closed at the same time.
impl Drop for Pcap {
    fn drop(&mut self) {
        let at_once = self.handles.len().div_ceil(CLOSING_THREADS).max(1);
        thread::scope(|scope| {
            while self.handles.len() > at_once {
                let some = self.handles.split_off(self.handles.len() - at_once);
                // Without a thread they are closed here.
                let _thread = thread::Builder::new().spawn_scoped(scope, || drop(some));
            }
            self.handles.clear();
        });
    }
}

/// The class of packets dropped by the card is unknown: they count once, as other packets.
fn add_drops(loss: &mut CaptureLoss, handle: &mut Handle) {
    let (dropped, dropped_by_card) = handle.drops();
    match handle.class() {
        PacketClass::Syns => loss.syns += dropped,
        PacketClass::Others => loss.packets += dropped + dropped_by_card,
    }
}

/// The clock was set back: such a packet is released at once, or all packets would wait until the clock has caught up.
fn is_in_future(at: Timestamp) -> bool {
    at > Timestamp::from_system_time(SystemTime::now()) + MAX_DELAY
}
