//! Writes the packets of a live source as pcapng; a replay of the file gives the same sessions.
//!
//! An interface is described at its first packet, which determines the link type. The number of omitted bytes is stored in a
//! comment of the packet, which [`CaptureFile`](crate::source::CaptureFile) reads; other programs show a truncated packet
//! with a comment.

use std::io::{self, Write};

use crate::source::interface::WatchedInterface;
use crate::source::pcapng_writer::{OMITTED_PREFIX, PcapngWriter};
use crate::wire::{LinkType, Packet};

/// Writer of a pcapng file with several interfaces. Each block is written with one `write_all`.
pub struct LiveWriter<W: Write> {
    writer: PcapngWriter<W>,
    interfaces: Vec<WatchedInterface>,
    /// Interfaces described so far: index in `interfaces`, link type, number in the file.
    described: Vec<(u32, LinkType, u32)>,
}

impl<W: Write> LiveWriter<W> {
    /// Writes the section header. [`Packet::interface`] is an index of `interfaces`.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn new(output: W, interfaces: &[WatchedInterface]) -> io::Result<Self> {
        let writer = PcapngWriter::empty(output)?;
        Ok(Self { writer, interfaces: interfaces.to_vec(), described: Vec::new() })
    }

    /// Writes one packet.
    ///
    /// # Errors
    /// The file cannot be written, or the packet is longer than a reader accepts.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let Packet { at, link, bytes, wire_len, omitted, interface, .. } = *packet;
        let number = self.number(interface, link)?;
        let comment = (omitted > 0).then(|| {
            format!(
                "{OMITTED_PREFIX}{omitted} bytes of TCP payload, between the headers and the captured bytes"
            )
        });
        self.writer.packet_of(number, at, bytes, wire_len, comment.as_deref())
    }

    /// Flushes the output.
    ///
    /// # Errors
    /// The output cannot be flushed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Flushes and returns the output.
    ///
    /// # Errors
    /// The output cannot be flushed.
    pub fn finish(self) -> io::Result<W> {
        self.writer.finish()
    }

    /// The number of an interface in the file.
    fn number(&mut self, interface: u32, link: LinkType) -> io::Result<u32> {
        let known = self.described.iter().find(|known| (known.0, known.1) == (interface, link));
        if let Some((_, _, number)) = known {
            return Ok(*number);
        }
        let number = match self.interfaces.get(interface as usize) {
            Some(WatchedInterface { name, addresses, .. }) => {
                self.writer.interface_with(link, 0, name, addresses)?
            }
            None => self.writer.interface(link, 0, "unknown")?,
        };
        self.described.push((interface, link, number));
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::{CaptureFile, PacketSource};
    use crate::time::Timestamp;

    fn interface(name: &str, addresses: &[&str]) -> WatchedInterface {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        WatchedInterface { name: name.to_owned(), index: 7, addresses }
    }

    fn packet(nanos: u64, link: LinkType, bytes: &[u8]) -> Packet<'_> {
        Packet::new(Timestamp::from_nanos(nanos), link, bytes, bytes.len() as u32)
    }

    fn read(bytes: &[u8]) -> Vec<(Timestamp, LinkType, Vec<u8>, u32, u32, u32)> {
        let mut file = CaptureFile::from_reader(Path::new("a"), bytes, 0).unwrap();
        let mut seen = Vec::new();
        while let Some(packet) = file.next().unwrap() {
            let Packet { at, link, bytes, wire_len, omitted, interface, .. } = packet;
            seen.push((at, link, bytes.to_vec(), wire_len, omitted, interface));
        }
        seen
    }

    #[test]
    fn written_packets_are_read_back() {
        let interfaces =
            [interface("eth0", &["192.0.2.1/24", "2001:db8::1/64"]), interface("tun0", &[])];
        let mut writer = LiveWriter::new(Vec::new(), &interfaces).unwrap();
        let now = 1_767_323_045_678_901_234;
        let whole = packet(now, LinkType::Ethernet, b"whole");
        let cut = Packet { wire_len: 3000, ..packet(now + 1, LinkType::Raw, b"odd") };
        let packets = [
            whole,
            Packet { interface: 1, ..cut },
            Packet { interface: 1, omitted: 2990, ..cut },
            // All bytes that were not captured are omitted.
            Packet { interface: 1, omitted: 2997, ..cut },
            Packet { wire_len: 70_000, omitted: 1, ..whole },
        ];
        for packet in &packets {
            writer.packet(packet).unwrap();
        }
        let seen = read(&writer.finish().unwrap());
        let expected =
            packets.map(|Packet { at, link, bytes, wire_len, omitted, interface, .. }| {
                (at, link, bytes.to_vec(), wire_len, omitted, interface)
            });
        assert_eq!(seen, expected);
    }

    #[test]
    fn only_plausible_omissions_are_accepted() {
        let file = |comment: &str| {
            let mut writer = PcapngWriter::new(Vec::new(), LinkType::Raw, 0, "lo").unwrap();
            writer.packet(Timestamp::default(), b"packet", 100, Some(comment)).unwrap();
            let [packet] = read(&writer.finish().unwrap()).try_into().unwrap();
            packet.4
        };
        for (comment, expected) in [
            ("gatepost: omitted=94", 94),
            ("gatepost: omitted=94, with a remark", 94),
            ("gatepost: omitted=95", 0),
            ("gatepost: omitted=", 0),
            ("gatepost: omitted=-1", 0),
            ("gatepost: omitted=99999999999999999999", 0),
            ("gatepost: omitted", 0),
            ("a comment", 0),
            ("", 0),
        ] {
            assert_eq!(file(comment), expected, "{comment}");
        }
    }

    #[test]
    fn foreign_comments_are_skipped() {
        let mut writer = PcapngWriter::new(Vec::new(), LinkType::Raw, 0, "lo").unwrap();
        writer.packet(Timestamp::default(), b"bytes", 100, Some("gatepost: omitted=50")).unwrap();
        let bytes = writer.finish().unwrap();
        // epb_flags, and a comment of five bytes, before ours.
        let others = [&[2, 0, 4, 0, 1, 0, 0, 0][..], &[1, 0, 5, 0], b"hello\0\0\0"].concat();
        let ours = bytes.windows(9).position(|window| window == b"gatepost:").unwrap() - 4;
        let start = ours - 28 - 8;
        let length = (bytes.len() - start + others.len()) as u32;
        let mut patched = bytes[..ours].to_vec();
        patched.extend(others);
        patched.extend(&bytes[ours..]);
        let end = patched.len();
        patched[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
        patched[end - 4..].copy_from_slice(&length.to_le_bytes());
        assert_eq!(read(&patched)[0].4, 50);
        // An option beyond the end of the block ends the list.
        patched[ours + 2] = 255;
        assert_eq!(read(&patched)[0].4, 0);
    }
}
