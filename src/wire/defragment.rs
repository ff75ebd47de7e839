//! Datagrams that came in fragments are put together, in bounded memory.
//!
//! RFC 791 §3.2, RFC 8200 §4.5, RFC 5722 (overlaps). etherparse's own pool of datagrams grows without bound, so only its
//! buffer for one of them is used.

use std::net::IpAddr;
use std::time::Duration;

use etherparse::defrag::{IpDefragBuf, MAX_IP_DEFRAG_LEN};
use etherparse::{IpFragOffset, IpNumber};

use super::DecodeError;
use super::ip::Ip;
use crate::time::Timestamp;

/// Datagrams that may be incomplete at once. Each holds at most 64 KiB and the places of its pieces (32 KiB if every one has 8
/// bytes): 6 MiB in all.
const MAX_OPEN: usize = 64;
/// From the first fragment to arrive (RFC 8200 §4.5; RFC 1122 §3.3.2 allows no less).
const MAX_AGE: Duration = Duration::from_secs(60);

/// Which part of a datagram a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fragment {
    pub(super) id: u32,
    pub(super) offset: IpFragOffset,
    pub(super) more: bool,
}

/// The datagrams that are not whole yet.
#[derive(Debug, Default)]
pub(super) struct Defragmenter {
    /// The oldest first.
    open: Vec<Open>,
    /// The last one that became whole.
    whole: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    key: Key,
    since: Timestamp,
    /// What the datagram begins with, as its first fragment says.
    protocol: IpNumber,
    /// `None`: spoiled, nothing more of it is taken.
    pieces: Option<IpDefragBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    src: IpAddr,
    dst: IpAddr,
    id: u32,
    /// In IPv4 only: an IPv6 datagram is known without it.
    protocol: Option<IpNumber>,
}

impl Defragmenter {
    /// Takes in the `fragment` that `ip` is. The datagram's payload and what that begins with, if now it is whole.
    pub(super) fn add(
        &mut self,
        at: Timestamp,
        ip: &Ip<'_>,
        fragment: Fragment,
    ) -> Result<Option<(IpNumber, &[u8])>, DecodeError> {
        if ip.body.is_cut() {
            return Err(DecodeError::Truncated);
        }
        self.open.retain(|open| at.since(open.since) <= MAX_AGE);
        let key = Key {
            src: ip.src,
            dst: ip.dst,
            id: fragment.id,
            protocol: ip.src.is_ipv4().then_some(ip.protocol),
        };
        let Some((place, open)) =
            self.open.iter_mut().enumerate().find(|(_, open)| open.key == key)
        else {
            return self.begin(at, key, ip, fragment);
        };
        if !open.add(ip, fragment)? {
            return Ok(None);
        }
        let open = self.open.remove(place);
        self.whole = open.pieces.map(|pieces| pieces.take_bufs().0).unwrap_or_default();
        Ok(Some((open.protocol, &self.whole)))
    }

    /// One fragment is never a whole datagram.
    fn begin(
        &mut self,
        at: Timestamp,
        key: Key,
        ip: &Ip<'_>,
        fragment: Fragment,
    ) -> Result<Option<(IpNumber, &[u8])>, DecodeError> {
        let lost = self.open.len() >= MAX_OPEN && self.open.remove(0).pieces.is_some();
        // The whole at once: a buffer that doubles as it grows could reach twice the bound.
        let bytes = Vec::with_capacity(MAX_IP_DEFRAG_LEN);
        let pieces = Some(IpDefragBuf::new(ip.protocol, bytes, Vec::new()));
        let mut open = Open { key, since: at, protocol: ip.protocol, pieces };
        let added = open.add(ip, fragment);
        self.open.push(open);
        match added {
            Ok(_) if lost => Err(DecodeError::Reassembly),
            Ok(_) => Ok(None),
            Err(damage) => Err(damage),
        }
    }
}

impl Open {
    /// Whether the datagram is whole now. Of one that contradicts itself nothing is used: which bytes its receiver took
    /// nobody can tell (RFC 5722 §4).
    fn add(&mut self, ip: &Ip<'_>, fragment: Fragment) -> Result<bool, DecodeError> {
        let pieces = self.pieces.as_mut().ok_or(DecodeError::Reassembly)?;
        let whole = place(pieces, fragment, ip.body.bytes());
        match whole {
            Some(_) if fragment.offset.value() == 0 => self.protocol = ip.protocol,
            Some(_) => {}
            None => self.pieces = None,
        }
        whole.ok_or(DecodeError::Reassembly)
    }
}

/// Whether `pieces` are whole with `bytes` too; `None` if they do not fit.
fn place(pieces: &mut IpDefragBuf, fragment: Fragment, bytes: &[u8]) -> Option<bool> {
    let start = fragment.offset.byte_offset();
    let end = start.checked_add(u16::try_from(bytes.len()).ok()?)?;
    if bytes.is_empty() {
        return None;
    }
    let had = pieces.sections();
    if let Some(section) = had.iter().find(|section| section.start < end && start < section.end) {
        // CapturedSlice twice, or sent twice (RFC 8200 §4.5): the same bytes again do no harm.
        let inside = section.start <= start && end <= section.end;
        let same = pieces.data().get(start.into()..end.into()) == Some(bytes);
        let is_last = pieces.end() == Some(end);
        return (inside && same && is_last != fragment.more).then_some(false);
    }
    if !fragment.more && had.iter().any(|section| section.end > end) {
        return None;
    }
    pieces.add(fragment.offset, fragment.more, bytes).ok()?;
    Some(pieces.is_complete())
}
