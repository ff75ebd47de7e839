//! Packets and capture files.

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use gatepost::source::{CaptureFile, MAX_PACKET, PacketSource, PcapngWriter};
use gatepost::time::Timestamp;
use gatepost::wire::{Decoded, Decoder, LinkType, Packet};

/// Packets: the first octet chooses the link type; its bit 0x80 makes the source leave out the start of the octets that
/// were not captured. Each packet is two octets of length, one octet with the number of octets not captured (in units of
/// 8; 0x80 adds 40 s to the time), and its octets.
pub(crate) fn wire(input: &[u8]) {
    const LINKS: [u16; 6] = [1, 0, 101, 113, 276, 105];
    let Some((&choice, mut rest)) = input.split_first() else {
        return;
    };
    let link = LinkType::from_number(LINKS[usize::from(choice & 0x7f) % LINKS.len()]);
    let (mut decoder, mut at) = (Decoder::new(), Timestamp::default());
    while let [high, low, beyond, octets @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(octets.len());
        let (octets, after) = octets.split_at(len);
        rest = after;
        at = at + Duration::from_secs(u64::from(beyond >> 7) * 40);
        let wire_len = u32::try_from(len).unwrap() + u32::from(beyond & 0x7f) * 8;
        let omitted = if choice & 0x80 == 0 { 0 } else { u32::from(beyond & 0x7f) * 6 };
        let packet = Packet { omitted, interface: 7, ..Packet::new(at, link, octets, wire_len) };
        match decoder.decode(&packet) {
            Decoded::Tcp(segment) => {
                assert!(segment.omitted as usize + segment.payload.len() <= segment.len as usize);
                assert_eq!(segment.interface, 7);
            }
            Decoded::Icmp(error) => assert_eq!(error.interface, 7),
            Decoded::Udp(datagram) => assert!(datagram.payload.len() <= 65_535),
            _ => {}
        }
    }
}

/// A capture file: read in parts it has the same packets, and they survive being written and read again.
pub(crate) fn file(input: &[u8]) {
    let (read, error) = packets(input, usize::MAX);
    if !input.starts_with(&[0x1f, 0x8b]) {
        assert_eq!(packets(input, 5), (read.clone(), error));
    }
    let mut writer = PcapngWriter::new(Vec::new(), LinkType::Raw, 0, "").unwrap();
    for (at, octets, wire_len) in &read {
        writer.packet(*at, octets, *wire_len, None).unwrap();
    }
    assert_eq!(packets(&writer.finish().unwrap(), usize::MAX), (read, None));
}

type Captured = (Timestamp, Vec<u8>, u32);

struct Pieces<'a> {
    rest: &'a [u8],
    at_a_time: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(self.at_a_time);
        self.rest.read(&mut into[..count])
    }
}

/// The packets of `input`, read `at_a_time` octets at once, and the error.
fn packets(input: &[u8], at_a_time: usize) -> (Vec<Captured>, Option<String>) {
    let reader = Pieces { rest: input, at_a_time };
    let mut file = match CaptureFile::from_reader(Path::new("a"), reader, input.len() as u64) {
        Ok(file) => file,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut read = Vec::new();
    let error = loop {
        match file.next() {
            Ok(Some(packet)) => read.push((packet.at, packet.bytes.to_vec(), packet.wire_len)),
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    assert!(matches!(file.next(), Ok(None)), "an error is returned once");
    assert!(read.iter().all(|(_, octets, wire_len)| {
        octets.len() <= MAX_PACKET as usize && *wire_len as usize >= octets.len()
    }));
    (read, error)
}
