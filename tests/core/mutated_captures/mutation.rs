//! Random damage to a recording: to the octets of the file, or to its packets.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use gatepost::source::{CaptureFile, PacketSource, PcapngWriter};
use gatepost::time::Timestamp;
use gatepost::wire::LinkType;

/// Marsaglia's xorshift: the same numbers on every machine.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `0..count`; 0 of none.
    fn below(&mut self, count: usize) -> usize {
        (self.next() >> 11) as usize % count.max(1)
    }

    /// A part of `0..length`, more often a short one.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let longest = length >> self.below(12);
        let start = self.below(length);
        start..(start + 1 + self.below(longest)).min(length)
    }
}

#[derive(Clone)]
struct Packet {
    at: Timestamp,
    link: LinkType,
    octets: Vec<u8>,
    wire_len: u32,
}

pub(crate) struct Recording {
    pub(crate) path: PathBuf,
    pub(crate) octets: Vec<u8>,
    packets: Vec<Packet>,
}

impl Recording {
    pub(crate) fn open(path: PathBuf) -> Self {
        let octets = fs::read(&path).unwrap();
        let mut packets = Vec::new();
        if let Ok(mut file) = CaptureFile::open(&path) {
            while let Ok(Some(packet)) = file.next() {
                let (at, link, wire_len) = (packet.at, packet.link, packet.wire_len);
                packets.push(Packet { at, link, octets: packet.bytes.to_vec(), wire_len });
            }
        }
        Self { path, octets, packets }
    }

    /// The file, damaged in its octets if `number` is even, else in its packets.
    pub(crate) fn mutant(&self, number: u64, chance: &mut Chance) -> Vec<u8> {
        let times = 1 + chance.below(4);
        if number.is_multiple_of(2) {
            let mut octets = self.octets.clone();
            (0..times).for_each(|_| damage(&mut octets, chance));
            octets
        } else {
            let mut packets = self.packets.clone();
            (0..times * 2).for_each(|_| disorder(&mut packets, chance));
            written(&packets)
        }
    }
}

/// Flips bits, removes, repeats, moves or overwrites a block, or cuts off the end.
fn damage(octets: &mut Vec<u8>, chance: &mut Chance) {
    let part = chance.part(octets.len());
    match chance.below(7) {
        0 => octets.truncate(part.start),
        1 => drop(octets.drain(part)),
        2 => {
            let block = octets[part.clone()].to_vec();
            drop(octets.splice(part.start..part.start, block));
        }
        3 => {
            let block: Vec<u8> = octets.drain(part).collect();
            let to = chance.below(octets.len());
            drop(octets.splice(to..to, block));
        }
        4 => {
            let octet = [0, 0xff, 0x80, b'\n'][chance.below(4)];
            octets[part].fill(octet);
        }
        _ => {
            for _ in 0..1 + chance.below(16) {
                let at = chance.below(octets.len());
                if let Some(octet) = octets.get_mut(at) {
                    *octet ^= 1 << chance.below(8);
                }
            }
        }
    }
}

/// Changes packets as a network, a capture program or an attacker could.
fn disorder(packets: &mut Vec<Packet>, chance: &mut Chance) {
    if packets.is_empty() {
        return;
    }
    let (at, to) = (chance.below(packets.len()), chance.below(packets.len()));
    match chance.below(10) {
        0 => drop(packets.remove(at)),
        1 => drop(packets.drain(chance.part(packets.len()))),
        2 => packets.insert(to, packets[at].clone()),
        3 => packets.swap(at, to),
        4 => packets[at..].rotate_left(to.saturating_sub(at)),
        5 => {
            // The snap length, of one packet or of all.
            let snap = chance.below(packets[at].octets.len());
            let some = if chance.below(2) == 0 { &mut packets[at..=at] } else { &mut packets[..] };
            some.iter_mut().for_each(|packet| packet.octets.truncate(snap.max(20)));
        }
        6 => {
            let later = Duration::from_nanos(chance.next() >> chance.below(64));
            packets[at..].iter_mut().for_each(|packet| packet.at = packet.at + later);
        }
        // Short packets are lost, such as acknowledgements.
        7 => {
            let shortest = packets[at].wire_len;
            packets.retain(|packet| packet.wire_len >= shortest);
        }
        // All later packets have the same time.
        8 => {
            let now = packets[at].at;
            packets[at..].iter_mut().for_each(|packet| packet.at = now);
        }
        _ => {
            let octets = &mut packets[at].octets;
            let place = chance.below(octets.len());
            if let Some(octet) = octets.get_mut(place) {
                *octet ^= 1 << chance.below(8);
            }
        }
    }
}

fn written(packets: &[Packet]) -> Vec<u8> {
    let first = packets.first().map_or(LinkType::Raw, |packet| packet.link);
    let mut writer = PcapngWriter::new(Vec::new(), first, 0, "").unwrap();
    let mut interfaces = vec![(first, 0)];
    for packet in packets {
        let known = interfaces.iter().find(|(link, _)| *link == packet.link);
        let interface = match known {
            Some((_, interface)) => *interface,
            None => {
                let interface = writer.interface(packet.link, 0, "").unwrap();
                interfaces.push((packet.link, interface));
                interface
            }
        };
        writer.packet_of(interface, packet.at, &packet.octets, packet.wire_len, None).unwrap();
    }
    writer.finish().unwrap()
}
