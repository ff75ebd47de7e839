//! Files builder by hand, whole, cut and damaged. `tests/capture_files.rs` compares with other programs.

use std::io::{self, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::collection::vec;
use proptest::prelude::*;

use super::byte_order::ByteOrder::{self, Big, Little};
use super::{CaptureFile, MAX_PACKET, PacketSource, PcapngWriter};
use crate::time::Timestamp;
use crate::wire::{LinkType, PacketNote};

const MICROS: u32 = 0xa1b2_c3d4;
const NANOS: u32 = 0xa1b2_3c4d;
const MODIFIED: u32 = 0xa1b2_cd34;

#[derive(Clone, Debug, PartialEq)]
struct ReadPacket {
    nanos: u64,
    link: LinkType,
    bytes: Vec<u8>,
    wire_len: u32,
}

/// Builds a file. Records the end of each packet, and of each record or block.
#[derive(Clone)]
struct FileBuilder {
    order: ByteOrder,
    bytes: Vec<u8>,
    record_header: usize,
    packet_ends: Vec<usize>,
    boundaries: Vec<usize>,
}

impl FileBuilder {
    fn empty(order: ByteOrder) -> Self {
        Self {
            order,
            bytes: Vec::new(),
            record_header: 16,
            packet_ends: Vec::new(),
            boundaries: Vec::new(),
        }
    }

    fn pcap(order: ByteOrder, magic: u32, network: u32) -> Self {
        let mut builder = Self::empty(order).u32(magic).u16(2).u16(4).u32(0).u32(0);
        builder = builder.u32(262_144).u32(network);
        if magic == MODIFIED {
            builder.record_header = 24;
        }
        builder.boundary()
    }

    fn record(self, seconds: u32, units: u32, bytes: &[u8], wire_len: u32) -> Self {
        let padding = vec![0x55; self.record_header - 16];
        let builder = self.u32(seconds).u32(units).u32(bytes.len() as u32).u32(wire_len);
        builder.raw(&padding).raw(bytes).packet_end()
    }

    fn section(mut self, order: ByteOrder) -> Self {
        self.order = order;
        let body = Self::empty(order).u32(0x1a2b_3c4d).u16(1).u16(0).u32(u32::MAX).u32(u32::MAX);
        self.block(0x0a0d_0d0a, &body.bytes)
    }

    fn interface(self, link: u16, snap_len: u32, options: &[(u16, &[u8])]) -> Self {
        let mut body = Self::empty(self.order).u16(link).u16(0).u32(snap_len);
        for (code, value) in options {
            body = body.u16(*code).u16(value.len() as u16).raw(value).padded();
        }
        self.block(1, &body.bytes)
    }

    fn enhanced(self, interface: u32, ticks: u64, bytes: &[u8], wire_len: u32) -> Self {
        let body = Self::empty(self.order).u32(interface).u32((ticks >> 32) as u32);
        let body = body.u32(ticks as u32).u32(bytes.len() as u32).u32(wire_len);
        self.block(6, &body.raw(bytes).padded().bytes).packet_end()
    }

    fn obsolete(self, interface: u16, ticks: u64, bytes: &[u8], wire_len: u32) -> Self {
        let body = Self::empty(self.order).u16(interface).u16(7).u32((ticks >> 32) as u32);
        let body = body.u32(ticks as u32).u32(bytes.len() as u32).u32(wire_len);
        self.block(2, &body.raw(bytes).padded().bytes).packet_end()
    }

    fn simple(self, bytes: &[u8], wire_len: u32) -> Self {
        let body = Self::empty(self.order).u32(wire_len).raw(bytes).padded();
        self.block(3, &body.bytes).packet_end()
    }

    fn block(self, kind: u32, body: &[u8]) -> Self {
        let length = body.len() as u32 + 12;
        self.u32(kind).u32(length).raw(body).u32(length).boundary()
    }

    fn u16(self, value: u16) -> Self {
        let bytes = if self.order == Big { value.to_be_bytes() } else { value.to_le_bytes() };
        self.raw(&bytes)
    }

    fn u32(self, value: u32) -> Self {
        let bytes = if self.order == Big { value.to_be_bytes() } else { value.to_le_bytes() };
        self.raw(&bytes)
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn padded(mut self) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn boundary(mut self) -> Self {
        self.boundaries.push(self.bytes.len());
        self
    }

    fn packet_end(mut self) -> Self {
        self.packet_ends.push(self.bytes.len());
        self.boundary()
    }
}

/// Returns at most `at_most` bytes per read, with interruptions.
struct ShortReads<'a> {
    rest: &'a [u8],
    at_most: usize,
    reads: usize,
}

impl Read for ShortReads<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = into.len().min(self.at_most);
        self.rest.read(&mut into[..count])
    }
}

/// The packets and the error of a file. Asserts that the error is returned once and that memory is bounded.
fn read_from(reader: impl Read, size: u64) -> (Vec<ReadPacket>, Option<String>) {
    let mut file = match CaptureFile::from_reader(Path::new("a.pcap"), reader, size) {
        Ok(file) => file,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut packets = Vec::new();
    let error = loop {
        match file.next() {
            Ok(Some(packet)) => packets.push(ReadPacket {
                nanos: packet.at.as_nanos(),
                link: packet.link,
                bytes: packet.bytes.to_vec(),
                wire_len: packet.wire_len,
            }),
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    assert!(matches!(file.next(), Ok(None)), "an error is returned once");
    assert!(file.buffered() <= MAX_PACKET as usize);
    (packets, error)
}

fn read(bytes: &[u8]) -> (Vec<ReadPacket>, Option<String>) {
    read_from(bytes, bytes.len() as u64)
}

fn read_valid(bytes: &[u8]) -> Vec<ReadPacket> {
    let (packets, error) = read(bytes);
    assert_eq!(error, None);
    for at_most in [1, 7, 4096] {
        let reader = ShortReads { rest: bytes, at_most, reads: 0 };
        assert_eq!(read_from(reader, 0), (packets.clone(), None), "{at_most} bytes at a time");
    }
    packets
}

fn expected_packet(nanos: u64, link: LinkType, bytes: &[u8], wire_len: u32) -> ReadPacket {
    ReadPacket { nanos, link, bytes: bytes.to_vec(), wire_len }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn small_pcap(order: ByteOrder) -> FileBuilder {
    FileBuilder::pcap(order, NANOS, 1)
        .record(1, 2, b"first", 5)
        .record(3, 999_999_999, b"", 60)
        .record(u32::MAX, u32::MAX, b"the third", 1500)
}

fn small_pcapng(order: ByteOrder) -> FileBuilder {
    let other = if order == Big { Little } else { Big };
    FileBuilder::empty(order)
        .section(order)
        .interface(1, 0, &[(2, b"eth0"), (9, &[9]), (0, b"")])
        .enhanced(0, 5_000_000_006, b"first", 5)
        .block(0x0bad_cafe, b"nobody knows")
        .interface(101, 4, &[])
        .enhanced(1, 7, b"second", 60)
        .section(other)
        .interface(276, 0, &[])
        .simple(b"the third", 9)
        .block(5, &[0; 12])
}

#[test]
fn every_pcap_variant_is_read() {
    for order in [Little, Big] {
        for (magic, unit) in [(MICROS, 1000), (NANOS, 1), (MODIFIED, 1000)] {
            // The upper half of the link type flags a frame checksum.
            let builder = FileBuilder::pcap(order, magic, 0x2400_0000 | 113)
                .record(7, 8, b"abc", 3)
                .record(u32::MAX, u32::MAX, b"", 0)
                .record(0, 0, b"longer than it was", 2);
            let end = u64::from(u32::MAX);
            let link = LinkType::LinuxCooked;
            let expected = [
                expected_packet(7_000_000_000 + 8 * unit, link, b"abc", 3),
                expected_packet(end * 1_000_000_000 + end * unit, link, b"", 0),
                expected_packet(0, link, b"longer than it was", 18),
            ];
            assert_eq!(read_valid(&builder.bytes), expected, "{order:?} {magic:#x}");
        }
    }
}

#[test]
fn the_longer_ixia_header_is_read() {
    for order in [Little, Big] {
        for magic in [0x1c00_01ab, 0x1c00_01ac] {
            let builder = FileBuilder::pcap(order, magic, 1).u32(20).record(1, 2, b"abcd", 4);
            let expected = [expected_packet(1_000_002_000, LinkType::Ethernet, b"abcd", 4)];
            assert_eq!(read_valid(&builder.bytes), expected);
        }
    }
}

#[test]
fn sections_interfaces_and_all_packet_blocks_are_read() {
    for order in [Little, Big] {
        let builder = small_pcapng(order).interface(0, 3, &[]).obsolete(1, 1 << 40, b"old", 4);
        let expected = [
            expected_packet(5_000_000_006, LinkType::Ethernet, b"first", 5),
            expected_packet(7000, LinkType::Raw, b"second", 60),
            // A simple packet has no timestamp.
            expected_packet(7000, LinkType::LinuxCooked2, b"the third", 9),
            expected_packet((1 << 40) * 1000, LinkType::Loopback, b"old", 4),
        ];
        assert_eq!(read_valid(&builder.bytes), expected);
    }
}

#[test]
fn a_simple_packet_is_truncated_to_the_snap_length() {
    let builder =
        FileBuilder::empty(Little).section(Little).interface(1, 5, &[]).simple(b"first", 60);
    assert_eq!(read_valid(&builder.bytes), [expected_packet(0, LinkType::Ethernet, b"first", 60)]);
}

#[test]
fn resolutions_and_offsets_never_overflow() {
    let second = 1_000_000_000;
    for (resolution, offset, ticks, nanos) in [
        (6, 0, 1_234_567, 1_234_567_000),
        (0, 0, 3, 3 * second),
        (9, 0, u64::MAX, u64::MAX),
        (12, 0, 1_234_567, 1234),
        (28, 0, u64::MAX, 1),
        (29, 0, u64::MAX, 1),
        (127, 0, 17, 0),
        (0x80, 0, 3, 3 * second),
        (0x8a, 0, 1024 + 512, 1_500_000_000),
        (0xc0, 0, 1 << 63, second / 2),
        (0xff, 0, u64::MAX, 0),
        (0, 0, u64::MAX, u64::MAX),
        (6, 10, 1, 10 * second + 1000),
        (6, -1, 2_000_000, second),
        (6, -3, 2_000_000, 0),
        (0, i64::MIN, u64::MAX, u64::MAX),
        (6, i64::MIN, 5, 0),
        (6, i64::MAX, 5, u64::MAX),
    ] {
        for order in [Little, Big] {
            let offset_bytes =
                if order == Big { offset.to_be_bytes() } else { i64::to_le_bytes(offset) };
            let options: [(u16, &[u8]); 2] = [(9, &[resolution]), (14, &offset_bytes)];
            let builder = FileBuilder::empty(order).section(order).interface(1, 0, &options);
            let builder = builder.enhanced(0, ticks, b"", 0);
            let times: Vec<u64> =
                read_valid(&builder.bytes).iter().map(|packet| packet.nanos).collect();
            assert_eq!(times, [nanos], "{resolution:#x} {offset} {ticks} {order:?}");
        }
    }
}

#[test]
fn gzip_is_detected_by_its_magic_and_may_have_several_members() {
    for builder in [small_pcap(Big), small_pcapng(Little)] {
        let expected = read_valid(&builder.bytes);
        assert_eq!(read_valid(&gzip(&builder.bytes)), expected);
        let (first, second) = builder.bytes.split_at(41);
        assert_eq!(read_valid(&[gzip(first), gzip(b""), gzip(second)].concat()), expected);
    }
}

#[test]
fn a_file_truncated_anywhere_yields_all_complete_packets() {
    for builder in [small_pcap(Little), small_pcap(Big), small_pcapng(Little), small_pcapng(Big)] {
        let all = read_valid(&builder.bytes);
        for cut in 0..builder.bytes.len() {
            let (packets, error) = read(&builder.bytes[..cut]);
            let complete = builder.packet_ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(packets, all[..complete], "cut at {cut}");
            assert_eq!(
                error.is_none(),
                builder.boundaries.contains(&cut),
                "cut at {cut}: {error:?}"
            );
        }
    }
}

#[test]
fn a_gzip_file_truncated_anywhere_yields_its_decompressed_packets() {
    // Incompressible packets, so that the output grows with the input.
    let mut builder = FileBuilder::pcap(Little, MICROS, 1);
    let mut noise = 1_u32;
    for number in 0..40 {
        let bytes: Vec<u8> = (0..60)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        builder = builder.record(number, 0, &bytes, 60);
    }
    let all = read_valid(&builder.bytes);
    let compressed = gzip(&builder.bytes);
    for cut in 1..compressed.len() {
        let (packets, error) = read(&compressed[..cut]);
        assert!(all.starts_with(&packets) && error.is_some(), "cut at {cut}");
        // Noise does not compress; allows for the headers of gzip and deflate.
        let expected = cut.saturating_sub(24 + 150) / 76;
        assert!(packets.len() >= expected, "cut at {cut}: {} packets, {error:?}", packets.len());
    }
    let mut damaged = compressed.clone();
    let at = damaged.len() - 3;
    damaged[at] ^= 1;
    let (packets, error) = read(&damaged);
    assert_eq!(packets, all, "only the checksum is wrong");
    assert!(error.unwrap().contains("corrupt"));
}

#[test]
fn progress_counts_compressed_bytes() {
    let builder = small_pcap(Little);
    for bytes in [builder.bytes.clone(), gzip(&builder.bytes)] {
        let size = bytes.len() as u64;
        let mut file = CaptureFile::from_reader(Path::new("a"), &*bytes, size).unwrap();
        let mut before = 0;
        while file.next().unwrap().is_some() {
            let (now, of) = file.progress();
            assert!(before <= now && now <= of && of == size);
            before = now;
        }
        assert_eq!(file.progress(), (size, size));
    }
}

#[test]
fn a_length_field_allocates_nothing() {
    let pcap = FileBuilder::pcap(Little, MICROS, 1).u32(0).u32(0).u32(MAX_PACKET).u32(MAX_PACKET);
    let pcapng = FileBuilder::empty(Big).section(Big).interface(1, 0, &[]).u32(6).u32(MAX_PACKET);
    for builder in [pcap, pcapng] {
        let bytes = builder.raw(&[0; 1000]).bytes;
        let mut file = CaptureFile::from_reader(Path::new("a"), &*bytes, 0).unwrap();
        assert!(file.next().is_err());
        assert!(file.buffered() <= 1 << 20);
    }
}

#[test]
fn the_longest_packet_is_read() {
    let bytes = vec![b'x'; MAX_PACKET as usize];
    let builder = FileBuilder::pcap(Little, MICROS, 1).record(0, 0, &bytes, MAX_PACKET);
    let (packets, error) = read(&builder.record(1, 0, b"next", 4).bytes);
    assert_eq!((packets.len(), error), (2, None));
    assert!(packets[0].bytes == bytes && packets[1].bytes == b"next");
}

#[test]
fn damaged_pcapng_blocks_are_skipped() {
    let start = FileBuilder::empty(Big).section(Big).interface(1, 0, &[]).interface(101, 0, &[]);
    let damages = [
        // 99 bytes in a block with room for none
        start.clone().block(6, &FileBuilder::empty(Big).u32(0).u32(0).u32(0).u32(99).u32(99).bytes),
        // an unknown interface, and a block too short to have one
        start.clone().enhanced(2, 0, b"lost", 4),
        start.clone().block(6, b"abcd"),
        start.clone().block(3, b""),
        // a different length at its end
        start.clone().u32(6).u32(12).u32(16),
    ];
    let good = [
        expected_packet(1000, LinkType::Ethernet, b"good", 4),
        expected_packet(2000, LinkType::Raw, b"too", 3),
    ];
    for builder in damages {
        let builder = builder.enhanced(0, 1, b"good", 4).enhanced(1, 2, b"too", 3);
        let (packets, error) = read(&builder.bytes);
        assert_eq!(packets, good);
        let error = error.unwrap();
        assert!(error.contains("1 damaged block was skipped, 2 packets were read"), "{error}");
    }
}

#[test]
fn a_packet_has_its_interface() {
    let interfaces = |builder: FileBuilder| {
        let size = builder.bytes.len() as u64;
        let mut file = CaptureFile::from_reader(Path::new("a"), &builder.bytes[..], size).unwrap();
        let mut packets = Vec::new();
        while let Some(packet) = file.next().unwrap() {
            packets.push(packet.interface);
        }
        packets
    };
    let builder =
        FileBuilder::empty(Big).section(Big).interface(101, 0, &[]).interface(101, 0, &[]);
    let builder = builder.enhanced(1, 0, b"a", 1).enhanced(0, 0, b"b", 1).obsolete(1, 0, b"c", 1);
    let builder =
        builder.simple(b"d", 1).section(Little).interface(101, 0, &[]).enhanced(0, 0, b"e", 1);
    assert_eq!(interfaces(builder), [1, 0, 1, 0, 0]);
    assert_eq!(interfaces(small_pcap(Little)), [0, 0, 0]);
}

#[test]
fn a_damaged_interface_keeps_its_number() {
    let builder = FileBuilder::empty(Little).section(Little).block(1, b"").interface(101, 0, &[]);
    let builder = builder.enhanced(0, 1, b"lost", 4).enhanced(1, 1, b"good", 4);
    let (packets, error) = read(&builder.bytes);
    assert_eq!(packets, [expected_packet(1000, LinkType::Raw, b"good", 4)]);
    assert!(error.unwrap().contains("2 damaged blocks were skipped, 1 packet was read"));
}

#[test]
fn the_number_of_interfaces_is_bounded() {
    let mut builder = FileBuilder::empty(Little).section(Little);
    for _ in 0..70_000 {
        builder = builder.interface(1, 0, &[]);
    }
    let (_, error) = read(&builder.enhanced(65_536, 0, b"", 0).bytes);
    assert!(error.unwrap().contains("4465 damaged blocks were skipped"));
}

/// Fails after the last byte.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.0.read(into) {
            Ok(0) => Err(io::Error::other("the disk is gone")),
            read => read,
        }
    }
}

#[test]
fn error_messages() {
    let pcap = small_pcap(Little);
    let ng = small_pcapng(Little);
    let section = FileBuilder::empty(Little).section(Little);
    let with_damage = section.clone().interface(1, 0, &[]).block(6, b"").enhanced(0, 0, b"", 0);
    let compressed = gzip(&pcap.bytes);
    let mut no_gzip = compressed.clone();
    no_gzip[2] = 0;
    let second = pcap.clone().bytes[..60].to_vec();
    let length =
        |value| FileBuilder::pcap(Big, MICROS, 1).record(0, 0, b"", 0).u32(0).u32(0).u32(value);
    let mut errors: Vec<String> = [
        Vec::new(),
        b"From: a@a.example\r\n".to_vec(),
        vec![0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4, 5],
        gzip(b""),
        gzip(b"plain text"),
        no_gzip,
        compressed[..5].to_vec(),
        compressed[..compressed.len() - 5].to_vec(),
        pcap.bytes[..20].to_vec(),
        pcap.bytes[..30].to_vec(),
        second,
        pcap.bytes[..pcap.bytes.len() - 1].to_vec(),
        length(u32::MAX).u32(0).bytes,
        ng.bytes[..ng.bytes.len() - 30].to_vec(),
        ng.bytes[..60].to_vec(),
        section.clone().u32(6).u32(0xffff_fff0).u32(0).bytes,
        section.clone().u32(6).u32(0).u32(0).bytes,
        section.clone().u32(0x0a0d_0d0a).u32(28).u32(0x1234_5678).bytes,
        FileBuilder::empty(Little)
            .u32(0x0a0d_0d0a)
            .u32(28)
            .u32(0x1a2b_3c4d)
            .u16(2)
            .raw(&[0; 10])
            .u32(28)
            .bytes,
        with_damage.bytes.clone(),
        with_damage.clone().block(6, b"").bytes,
        with_damage.clone().raw(b"abc").bytes,
        section.u32(3).u32(12).u32(44).bytes,
    ]
    .iter()
    .map(|bytes| read(bytes).1.unwrap())
    .collect();
    errors.push(read_from(Failing(&pcap.bytes), 0).1.unwrap());
    errors.push(read_from(Failing(b""), 0).1.unwrap());
    errors
        .push(CaptureFile::open(Path::new("/nowhere/a.pcap")).map(|_| ()).unwrap_err().to_string());
    errors.push(CaptureFile::open(Path::new("/")).map(|_| ()).unwrap_err().to_string());
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn the_writer_rejects_unreadable_packets() {
    let mut writer = PcapngWriter::new(Vec::new(), LinkType::Raw, 0, "lo").unwrap();
    let at = Timestamp::default();
    assert!(writer.packet(at, &vec![0; MAX_PACKET as usize], 0, None).is_err());
    assert!(writer.packet_of(1, at, b"", 0, None).is_err());
    // The longest packet, with comments beyond the limit.
    let bytes = vec![0; MAX_PACKET as usize - (3 << 16)];
    let long = "é".repeat(40_000);
    writer.packet_with_note(at, &bytes, 0, Some(&long), PacketNote::Answers(&long)).unwrap();
    assert_eq!(read(&writer.finish().unwrap()).1, None);
}

#[test]
fn a_note_is_read_with_its_packet() {
    let notes = |bytes: &[u8]| {
        let mut file = CaptureFile::from_reader(Path::new("a"), bytes, 0).unwrap();
        let mut notes = Vec::new();
        while let Some(packet) = file.next().unwrap() {
            let note = packet.note.map(|note| note.to_string());
            notes.push((note, packet.omitted, packet.bytes.to_vec()));
        }
        notes
    };
    let mut writer = PcapngWriter::new(Vec::new(), LinkType::Raw, 0, "lo").unwrap();
    let at = Timestamp::default();
    let odd = b"odd".as_slice();
    writer.packet(at, odd, 9, Some("gatepost: verdict=accept")).unwrap();
    writer
        .packet_with_note(
            at,
            odd,
            9,
            Some("gatepost: verdict=accept"),
            PacketNote::Answers("[\"é\"]"),
        )
        .unwrap();
    writer.packet_with_note(at, b"even", 9, None, PacketNote::Listener("mx")).unwrap();
    writer
        .packet_with_note(at, odd, 9, Some("gatepost: omitted=6 bytes"), PacketNote::Answers("x"))
        .unwrap();
    writer.packet(at, odd, 9, Some("gatepost-answers:")).unwrap();
    writer.packet(at, odd, 9, None).unwrap();
    let file = writer.finish().unwrap();
    let expected = [
        (None, 0, odd),
        (Some("gatepost-answers: [\"é\"]"), 0, odd),
        (Some("gatepost-listener: mx"), 0, b"even".as_slice()),
        (Some("gatepost-answers: x"), 6, odd),
        (None, 0, odd),
        (None, 0, odd),
    ];
    let expected =
        expected.map(|(note, omitted, o)| (note.map(str::to_owned), omitted, o.to_vec()));
    assert_eq!(notes(&file), expected);
    // Invalid UTF-8 is not a note.
    let mut file = file;
    let at = file.windows(2).position(|two| two == b"[\"").unwrap();
    file[at] = 0xff;
    assert_eq!(notes(&file)[1].0, None);
}

proptest! {
    #[test]
    fn written_packets_are_read_back(
        links in vec(any::<u16>().prop_map(LinkType::from_number), 1..4),
        packets in vec((any::<u64>(), vec(any::<u8>(), 0..50), any::<u32>(), any::<usize>(), any::<Option<String>>()), 0..8),
    ) {
        let mut writer = PcapngWriter::new(Vec::new(), links[0], 0, "eth0").unwrap();
        for link in &links[1..] {
            writer.interface(*link, 65_535, "ein Gerät").unwrap();
        }
        let mut expected = Vec::new();
        for (nanos, bytes, wire_len, of, comment) in &packets {
            let of = of % links.len();
            let at = Timestamp::from_nanos(*nanos);
            writer.packet_of(of as u32, at, bytes, *wire_len, comment.as_deref()).unwrap();
            expected.push(expected_packet(*nanos, links[of], bytes, (*wire_len).max(bytes.len() as u32)));
        }
        let (packets, error) = read(&writer.finish().unwrap());
        prop_assert_eq!((packets, error), (expected, None));
    }

    /// Numbers of all sizes at random offsets: reading ends, after at most as many packets as fit.
    #[test]
    fn a_mutated_file_ends(
        which in 0..4,
        compressed in any::<bool>(),
        at_most in 1_usize..100,
        changes in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>().prop_map(u32::from), any::<u32>()]), 1..6),
        inserted in (any::<prop::sample::Index>(), vec(any::<u8>(), 0..10)),
    ) {
        let order = if which % 2 == 0 { Little } else { Big };
        let builder = if which < 2 { small_pcap(order) } else { small_pcapng(order) };
        let mut bytes = if compressed { gzip(&builder.bytes) } else { builder.bytes };
        for (at, value) in changes {
            let at = at.index(bytes.len());
            let value = value.to_le_bytes();
            let end = bytes.len().min(at + 4);
            let count = if value[1..] == [0; 3] { 1 } else { end - at };
            bytes[at..at + count].copy_from_slice(&value[..count]);
        }
        let (at, inserted) = inserted;
        let at = at.index(bytes.len());
        bytes.splice(at..at, inserted);
        let (packets, error) = read(&bytes);
        let most = if compressed { 1000 * bytes.len() } else { bytes.len() } / 12;
        prop_assert!(packets.len() <= most);
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            let reader = ShortReads { rest: &bytes, at_most, reads: 0 };
            prop_assert_eq!(read_from(reader, 0), (packets, error));
        }
    }
}
