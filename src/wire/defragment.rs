//! IP reassembly in bounded memory.
//!
//! RFC 791 §3.2, RFC 8200 §4.5, RFC 5722 (overlaps). etherparse's own pool of datagrams grows without bound, so only its
//! buffer for a single datagram is used.

use std::net::IpAddr;
use std::time::Duration;

use etherparse::IpNumber;
use etherparse::defrag::{IpDefragBuf, MAX_IP_DEFRAG_LEN};

use super::DecodeError;
use super::ip::{Fragment, IpPacket};
use crate::time::Timestamp;

/// Maximum number of incomplete datagrams. Each takes at most 64 KiB and its section list (32 KiB when every fragment
/// carries 8 bytes): 6 MiB in total.
const MAX_DATAGRAMS: usize = 64;
/// Reassembly timeout, from the first fragment to arrive (RFC 8200 §4.5; RFC 1122 §3.3.2 allows no less).
const TIMEOUT: Duration = Duration::from_secs(60);

/// Incomplete datagrams.
#[derive(Debug, Default)]
pub(super) struct Defragmenter {
    /// Oldest first.
    incomplete: Vec<PartialDatagram>,
    /// Payload of the datagram that was completed last.
    completed: Vec<u8>,
}

#[derive(Debug)]
struct PartialDatagram {
    key: DatagramKey,
    since: Timestamp,
    /// Protocol at the start of the payload, from the first fragment (offset 0).
    protocol: IpNumber,
    /// `None` after a contradiction: further fragments are rejected.
    buffer: Option<IpDefragBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DatagramKey {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// IPv4 only: the protocol is not part of an IPv6 datagram's identity (RFC 8200 §4.5).
    protocol: Option<IpNumber>,
}

impl Defragmenter {
    /// Adds `ip`, which is `fragment`. Returns the datagram's payload and its protocol once it is complete.
    pub(super) fn add(
        &mut self,
        at: Timestamp,
        ip: &IpPacket<'_>,
        fragment: Fragment,
    ) -> Result<Option<(IpNumber, &[u8])>, DecodeError> {
        if ip.body.is_truncated() {
            return Err(DecodeError::Truncated);
        }
        self.incomplete.retain(|datagram| at.since(datagram.since) <= TIMEOUT);
        let key = DatagramKey {
            src: ip.src,
            dst: ip.dst,
            id: fragment.id,
            protocol: ip.src.is_ipv4().then_some(ip.protocol),
        };
        let mut known = self.incomplete.iter_mut().enumerate();
        let Some((index, datagram)) = known.find(|(_, datagram)| datagram.key == key) else {
            return self.start(at, key, ip, fragment);
        };
        if !datagram.add(ip, fragment)? {
            return Ok(None);
        }
        let datagram = self.incomplete.remove(index);
        self.completed = datagram.buffer.map(|buffer| buffer.take_bufs().0).unwrap_or_default();
        Ok(Some((datagram.protocol, &self.completed)))
    }

    /// Starts a datagram; a single fragment never completes one.
    fn start(
        &mut self,
        at: Timestamp,
        key: DatagramKey,
        ip: &IpPacket<'_>,
        fragment: Fragment,
    ) -> Result<Option<(IpNumber, &[u8])>, DecodeError> {
        let evicted =
            self.incomplete.len() >= MAX_DATAGRAMS && self.incomplete.remove(0).buffer.is_some();
        // Full capacity at once: a buffer that doubles as it grows could exceed the bound twofold.
        let bytes = Vec::with_capacity(MAX_IP_DEFRAG_LEN);
        let buffer = Some(IpDefragBuf::new(ip.protocol, bytes, Vec::new()));
        let mut datagram = PartialDatagram { key, since: at, protocol: ip.protocol, buffer };
        let added = datagram.add(ip, fragment);
        self.incomplete.push(datagram);
        match added {
            Ok(_) if evicted => Err(DecodeError::Reassembly),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl PartialDatagram {
    /// Returns whether the datagram is complete. After a contradiction all of it is rejected: which bytes its receiver
    /// accepted is unknown (RFC 5722 §4).
    fn add(&mut self, ip: &IpPacket<'_>, fragment: Fragment) -> Result<bool, DecodeError> {
        let buffer = self.buffer.as_mut().ok_or(DecodeError::Reassembly)?;
        let complete = insert(buffer, fragment, ip.body.bytes());
        match complete {
            Some(_) if fragment.offset.value() == 0 => self.protocol = ip.protocol,
            Some(_) => {}
            None => self.buffer = None,
        }
        complete.ok_or(DecodeError::Reassembly)
    }
}

/// Inserts `bytes` and returns whether `buffer` is complete; `None` if they contradict it.
fn insert(buffer: &mut IpDefragBuf, fragment: Fragment, bytes: &[u8]) -> Option<bool> {
    let start = fragment.offset.byte_offset();
    let end = start.checked_add(u16::try_from(bytes.len()).ok()?)?;
    if bytes.is_empty() {
        return None;
    }
    let sections = buffer.sections();
    let overlap = sections.iter().find(|section| section.start < end && start < section.end);
    if let Some(section) = overlap {
        // Captured twice, or sent twice (RFC 8200 §4.5): an exact duplicate is harmless.
        let inside = section.start <= start && end <= section.end;
        let same = buffer.data().get(start.into()..end.into()) == Some(bytes);
        let is_last = buffer.end() == Some(end);
        return (inside && same && is_last != fragment.more).then_some(false);
    }
    if !fragment.more && sections.iter().any(|section| section.end > end) {
        return None;
    }
    buffer.add(fragment.offset, fragment.more, bytes).ok()?;
    Some(buffer.is_complete())
}
