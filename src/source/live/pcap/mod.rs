//! Packets by libpcap: two handles an interface, merged by time.
//!
//! Sessions that begin come by a handle of their own, which hardly ever overflows. A packet is let go when every other
//! handle either has a later one or was found empty after it: so a SYN comes before its SYN-ACK, and what one interface
//! saw before what another saw later. Packets are taken in drains with rests between them, so that a busy link does not
//! cost a wake-up a packet.

mod filter;
mod handle;
mod outgoing;

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::filter::PacketClass;
use self::handle::{Handle, LATE};
use super::{LiveError, POLL_TIMEOUT, WatchedInterface};
use crate::source::CaptureLoss;
use crate::time::Timestamp;
use crate::wire::Packet;

/// Between two drains.
const REST: Duration = Duration::from_millis(10);

pub(super) struct Pcap {
    /// Those for openings first: of packets of the same time theirs go first.
    handles: Vec<Handle>,
    names: Vec<String>,
    /// By handles that are closed.
    lost: CaptureLoss,
}

/// What is next.
enum Next {
    /// The packet of this handle.
    Ready(usize),
    /// There is one, but an earlier one may come yet.
    Held,
    Nothing,
}

impl Pcap {
    pub(super) fn open(
        interfaces: &[WatchedInterface],
        ports: &[u16],
        buffer: usize,
    ) -> Result<Self, LiveError> {
        let mut handles = Vec::with_capacity(2 * interfaces.len());
        for part in [PacketClass::Openings, PacketClass::Packets] {
            for (number, interface) in (0..).zip(interfaces) {
                handles.push(Handle::open(&interface.name, number, part, ports, buffer)?);
            }
        }
        let names = interfaces.iter().map(|interface| interface.name.clone()).collect();
        Ok(Self { handles, names, lost: CaptureLoss::default() })
    }

    pub(super) fn next(&mut self) -> Result<Option<Packet<'_>>, LiveError> {
        let ready = self.wait()?;
        Ok(ready.and_then(|ready| self.handles.get_mut(ready)).map(Handle::take))
    }

    pub(super) fn loss(&mut self) -> CaptureLoss {
        let mut lost = self.lost;
        for handle in &mut self.handles {
            add(&mut lost, handle);
        }
        lost
    }

    /// The handle whose packet is next, at most [`POLL_TIMEOUT`] from now.
    fn wait(&mut self) -> Result<Option<usize>, LiveError> {
        let mut deadline = None;
        loop {
            if self.handles.is_empty() {
                return Err(LiveError::Over);
            }
            let next = self.look()?;
            if let Next::Ready(ready) = next {
                return Ok(Some(ready));
            }
            let now = Instant::now();
            let left = deadline.get_or_insert(now + POLL_TIMEOUT).saturating_duration_since(now);
            if left.is_zero() {
                return Ok(None);
            }
            match next {
                Next::Nothing => self.sleep(left),
                _ => thread::sleep(REST.min(left)),
            }
        }
    }

    /// Looks into the rings as far as that decides what is next.
    fn look(&mut self) -> Result<Next, LiveError> {
        let mut first: Option<(Timestamp, usize)> = None;
        for number in 0..self.handles.len() {
            let Some(handle) = self.handles.get_mut(number) else { break };
            let until = handle.complete_until();
            if until.is_none()
                && let Err(source) = handle.look()
            {
                return Err(self.close(number, &source));
            }
            if let Some(at) = self.handles.get(number).and_then(Handle::head)
                && first.is_none_or(|(first, _)| at < first)
            {
                first = Some((at, number));
            }
        }
        // Those that were found empty before the first came, once more.
        for number in 0..self.handles.len() {
            let Some(handle) = self.handles.get_mut(number) else { break };
            let complete = handle.complete_until();
            if complete.is_none() || first.is_some_and(|(first, _)| complete >= Some(first)) {
                continue;
            }
            if let Err(source) = handle.look() {
                return Err(self.close(number, &source));
            }
            if let Some(at) = self.handles.get(number).and_then(Handle::head)
                && first.is_none_or(|(first, _)| at < first)
            {
                first = Some((at, number));
            }
        }
        let Some((at, number)) = first else { return Ok(Next::Nothing) };
        let complete = |handle: &Handle| handle.complete_until().is_none_or(|until| until >= at);
        let ready = self.handles.iter().all(complete) || is_to_come(at);
        Ok(if ready { Next::Ready(number) } else { Next::Held })
    }

    /// Until one of the rings has something.
    fn sleep(&self, at_most: Duration) {
        let mut fds: Vec<_> = self
            .handles
            .iter()
            .map(|handle| PollFd::from_borrowed_fd(handle.as_fd(), PollFlags::IN))
            .collect();
        // What is wrong with a ring is said by libpcap when it looks.
        let _ = poll(&mut fds, Timespec::try_from(at_most).ok().as_ref());
    }

    /// Gives up the interface of a handle that failed.
    fn close(&mut self, number: usize, source: &::pcap::Error) -> LiveError {
        let interface = self.handles.get(number).map_or(0, Handle::interface);
        let lost = &mut self.lost;
        self.handles.retain_mut(|handle| {
            let stays = handle.interface() != interface;
            if !stays {
                add(lost, handle);
            }
            stays
        });
        let name = self.names.get(interface as usize).cloned().unwrap_or_default();
        LiveError::Gone { name, reason: source.to_string(), left: self.handles.len() / 2 }
    }
}

/// The card does not say what it dropped, so that counts once, as packets.
fn add(lost: &mut CaptureLoss, handle: &mut Handle) {
    let (dropped, never_seen) = handle.lost();
    match handle.part() {
        PacketClass::Openings => lost.syns += dropped,
        PacketClass::Packets => lost.packets += dropped + never_seen,
    }
}

/// The clock was put back: to wait until it has caught up would hold all packets.
fn is_to_come(at: Timestamp) -> bool {
    at > Timestamp::from_system_time(SystemTime::now()) + LATE
}
