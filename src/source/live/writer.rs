//! Writes what a live source saw as pcapng, so that a replay of the file gives the same sessions.
//!
//! An interface is described when its first packet comes: then its link type is known. What a source left out on purpose
//! stands in a comment of the packet, which [`CaptureFile`](crate::source::CaptureFile) reads back; to other programs
//! the packet is one that was not captured whole, and they show the comment.

use std::io::{self, Write};

use super::WatchedInterface;
use crate::source::pcapng_writer::{OMITTED, PcapngWriter};
use crate::wire::{LinkType, Packet};

/// A pcapng file of several interfaces that is being written. Each block goes out with one `write_all`.
pub struct LiveWriter<W: Write> {
    writer: PcapngWriter<W>,
    interfaces: Vec<WatchedInterface>,
    /// What is described already: position in `interfaces`, link type, number in the file.
    described: Vec<(u32, LinkType, u32)>,
}

impl<W: Write> LiveWriter<W> {
    /// Writes the head of the file. `interfaces` are those that [`Packet::interface`] counts.
    ///
    /// # Errors
    /// `to` cannot be written.
    pub fn new(to: W, interfaces: &[WatchedInterface]) -> io::Result<Self> {
        let writer = PcapngWriter::empty(to)?;
        Ok(Self { writer, interfaces: interfaces.to_vec(), described: Vec::new() })
    }

    /// Writes one packet.
    ///
    /// # Errors
    /// The file cannot be written, or the packet is longer than a reader takes.
    pub fn packet(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let Packet { at, link, bytes, wire_len, omitted, interface, .. } = *packet;
        let number = self.number(interface, link)?;
        let comment = (omitted > 0).then(|| {
            format!(
                "{OMITTED}{omitted} bytes of TCP payload, between the headers and what is captured"
            )
        });
        self.writer.packet_of(number, at, bytes, wire_len, comment.as_deref())
    }

    /// Hands what is written so far to whoever reads the file.
    ///
    /// # Errors
    /// It cannot be flushed.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Flushes, and gives back what was written to.
    ///
    /// # Errors
    /// It cannot be flushed.
    pub fn finish(self) -> io::Result<W> {
        self.writer.finish()
    }

    /// The number that the file has for an interface.
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
    fn what_a_live_source_saw_is_read_back() {
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
            // All that was not captured was left out on purpose.
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
    fn only_what_can_be_true_is_believed() {
        let file = |comment: &str| {
            let mut writer = PcapngWriter::new(Vec::new(), LinkType::Raw, 0, "lo").unwrap();
            writer.packet(Timestamp::default(), b"bytes", 100, Some(comment)).unwrap();
            let [packet] = read(&writer.finish().unwrap()).try_into().unwrap();
            packet.4
        };
        for (comment, expected) in [
            ("gatepost: omitted=94", 94),
            ("gatepost: omitted=94, says somebody", 94),
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
    fn comments_of_others_are_stepped_over() {
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
        // An option that claims more than there is ends them.
        patched[ours + 2] = 255;
        assert_eq!(read(&patched)[0].4, 0);
    }
}
