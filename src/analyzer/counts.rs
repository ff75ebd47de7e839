//! How many packets there were, and how many of them could not be read.

use crate::wire::{Damage, Decoded, LinkType, Packet};

/// Counted over a whole capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub packets: u64,
    pub octets: u64,
    pub segments: u64,
    /// Kinds of damage that were met, with how often.
    pub damaged: Vec<(Damage, u64)>,
    /// The first link type met that cannot be read.
    pub unknown_link: Option<LinkType>,
}

impl Counts {
    pub(super) fn count(&mut self, packet: &Packet<'_>, decoded: &Decoded<'_>) {
        self.packets += 1;
        self.octets += u64::from(packet.wire_len);
        match decoded {
            Decoded::Tcp(_) => self.segments += 1,
            Decoded::Damaged(damage) => {
                match self.damaged.iter_mut().find(|(known, _)| known == damage) {
                    Some((_, count)) => *count += 1,
                    None => self.damaged.push((*damage, 1)),
                }
                if *damage == Damage::Link {
                    self.unknown_link.get_or_insert(packet.link);
                }
            }
            Decoded::Udp(_) | Decoded::Icmp(_) | Decoded::Fragment | Decoded::Other => {}
        }
    }
}
