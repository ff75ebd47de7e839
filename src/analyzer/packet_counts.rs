//! Packets of a capture, and how many of them cannot be decoded.

use crate::wire::{DecodeError, Decoded, LinkType, Packet};

/// Totals over a whole capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PacketCounts {
    pub packets: u64,
    /// On the wire, which may be more than the capture holds.
    pub bytes: u64,
    pub segments: u64,
    /// Each kind of damage that occurred, and how often.
    pub damaged: Vec<(DecodeError, u64)>,
    /// The first link type without a decoder.
    pub unknown_link: Option<LinkType>,
}

impl PacketCounts {
    pub(super) fn count(&mut self, packet: &Packet<'_>, decoded: &Decoded<'_>) {
        self.packets += 1;
        self.bytes += u64::from(packet.wire_len);
        match decoded {
            Decoded::Tcp(_) => self.segments += 1,
            Decoded::Error(damage) => {
                match self.damaged.iter_mut().find(|(known, _)| known == damage) {
                    Some((_, count)) => *count += 1,
                    None => self.damaged.push((*damage, 1)),
                }
                if *damage == DecodeError::UnsupportedLink {
                    self.unknown_link.get_or_insert(packet.link);
                }
            }
            Decoded::Udp(_) | Decoded::Icmp(_) | Decoded::Fragment | Decoded::Other => {}
        }
    }
}
