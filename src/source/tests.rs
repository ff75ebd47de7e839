//! Files made by hand, whole, cut and damaged. `tests/capture_files.rs` compares with other programs.

use std::io::{self, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::collection::vec;
use proptest::prelude::*;

use super::byte_order::ByteOrder::{self, Big, Little};
use super::{CaptureFile, MAX_PACKET, PacketSource, PcapngWriter};
use crate::time::Timestamp;
use crate::wire::LinkType;

const MICROS: u32 = 0xa1b2_c3d4;
const NANOS: u32 = 0xa1b2_3c4d;
const MODIFIED: u32 = 0xa1b2_cd34;

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    nanos: u64,
    link: LinkType,
    bytes: Vec<u8>,
    wire_len: u32,
}

/// A file that is being made. `ends` tells where each packet ends, `pieces` where each record or block does.
#[derive(Clone)]
struct Made {
    order: ByteOrder,
    bytes: Vec<u8>,
    record_header: usize,
    ends: Vec<usize>,
    pieces: Vec<usize>,
}

impl Made {
    fn empty(order: ByteOrder) -> Self {
        Self { order, bytes: Vec::new(), record_header: 16, ends: Vec::new(), pieces: Vec::new() }
    }

    fn pcap(order: ByteOrder, magic: u32, network: u32) -> Self {
        let mut made = Self::empty(order).u32(magic).u16(2).u16(4).u32(0).u32(0);
        made = made.u32(262_144).u32(network);
        if magic == MODIFIED {
            made.record_header = 24;
        }
        made.piece()
    }

    fn record(self, seconds: u32, units: u32, bytes: &[u8], wire_len: u32) -> Self {
        let padding = vec![0x55; self.record_header - 16];
        let made = self.u32(seconds).u32(units).u32(bytes.len() as u32).u32(wire_len);
        made.raw(&padding).raw(bytes).packet_end()
    }

    fn section(mut self, order: ByteOrder) -> Self {
        self.order = order;
        let body = Self::empty(order).u32(0x1a2b_3c4d).u16(1).u16(0).u32(u32::MAX).u32(u32::MAX);
        self.block(0x0a0d_0d0a, &body.bytes)
    }

    fn interface(self, link: u16, snap: u32, options: &[(u16, &[u8])]) -> Self {
        let mut body = Self::empty(self.order).u16(link).u16(0).u32(snap);
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
        self.u32(kind).u32(length).raw(body).u32(length).piece()
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

    fn piece(mut self) -> Self {
        self.pieces.push(self.bytes.len());
        self
    }

    fn packet_end(mut self) -> Self {
        self.ends.push(self.bytes.len());
        self.piece()
    }
}

/// Gives at most so many bytes at a time, and is interrupted now and then.
struct Dribble<'a> {
    rest: &'a [u8],
    at_most: usize,
    reads: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads.is_multiple_of(5) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = into.len().min(self.at_most);
        self.rest.read(&mut into[..count])
    }
}

/// The packets of a file, and what was said about it. After that it is over, and memory was bounded.
fn read_from(reader: impl Read, size: u64) -> (Vec<Seen>, Option<String>) {
    let mut file = match CaptureFile::from_reader(Path::new("a.pcap"), reader, size) {
        Ok(file) => file,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut seen = Vec::new();
    let error = loop {
        match file.next() {
            Ok(Some(packet)) => seen.push(Seen {
                nanos: packet.at.as_nanos(),
                link: packet.link,
                bytes: packet.bytes.to_vec(),
                wire_len: packet.wire_len,
            }),
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    assert!(matches!(file.next(), Ok(None)), "an error is said once");
    assert!(file.buffered() <= MAX_PACKET as usize);
    (seen, error)
}

fn read(bytes: &[u8]) -> (Vec<Seen>, Option<String>) {
    read_from(bytes, bytes.len() as u64)
}

fn read_well(bytes: &[u8]) -> Vec<Seen> {
    let (seen, error) = read(bytes);
    assert_eq!(error, None);
    for at_most in [1, 7, 4096] {
        let dribble = Dribble { rest: bytes, at_most, reads: 0 };
        assert_eq!(read_from(dribble, 0), (seen.clone(), None), "{at_most} bytes at a time");
    }
    seen
}

fn seen(nanos: u64, link: LinkType, bytes: &[u8], wire_len: u32) -> Seen {
    Seen { nanos, link, bytes: bytes.to_vec(), wire_len }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn small_pcap(order: ByteOrder) -> Made {
    Made::pcap(order, NANOS, 1).record(1, 2, b"first", 5).record(3, 999_999_999, b"", 60).record(
        u32::MAX,
        u32::MAX,
        b"the third",
        1500,
    )
}

fn small_pcapng(order: ByteOrder) -> Made {
    let other = if order == Big { Little } else { Big };
    Made::empty(order)
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
            // The upper half of the link type tells of checksums.
            let made = Made::pcap(order, magic, 0x2400_0000 | 113)
                .record(7, 8, b"abc", 3)
                .record(u32::MAX, u32::MAX, b"", 0)
                .record(0, 0, b"longer than it was", 2);
            let end = u64::from(u32::MAX);
            let link = LinkType::LinuxCooked;
            let expected = [
                seen(7_000_000_000 + 8 * unit, link, b"abc", 3),
                seen(end * 1_000_000_000 + end * unit, link, b"", 0),
                seen(0, link, b"longer than it was", 18),
            ];
            assert_eq!(read_well(&made.bytes), expected, "{order:?} {magic:#x}");
        }
    }
}

#[test]
fn ixia_writes_a_longer_header() {
    for order in [Little, Big] {
        for magic in [0x1c00_01ab, 0x1c00_01ac] {
            let made = Made::pcap(order, magic, 1).u32(20).record(1, 2, b"abcd", 4);
            let expected = [seen(1_000_002_000, LinkType::Ethernet, b"abcd", 4)];
            assert_eq!(read_well(&made.bytes), expected);
        }
    }
}

#[test]
fn sections_interfaces_and_every_kind_of_packet() {
    for order in [Little, Big] {
        let made = small_pcapng(order).interface(0, 3, &[]).obsolete(1, 1 << 40, b"old", 4);
        let expected = [
            seen(5_000_000_006, LinkType::Ethernet, b"first", 5),
            seen(7000, LinkType::Raw, b"second", 60),
            // A simple packet has no time of its own.
            seen(7000, LinkType::LinuxCooked2, b"the third", 9),
            seen((1 << 40) * 1000, LinkType::Loopback, b"old", 4),
        ];
        assert_eq!(read_well(&made.bytes), expected);
    }
}

#[test]
fn a_simple_packet_is_cut_to_the_snap_length() {
    let made = Made::empty(Little).section(Little).interface(1, 5, &[]).simple(b"first", 60);
    assert_eq!(read_well(&made.bytes), [seen(0, LinkType::Ethernet, b"first", 60)]);
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
            let made = Made::empty(order).section(order).interface(1, 0, &options);
            let made = made.enhanced(0, ticks, b"", 0);
            let times: Vec<u64> = read_well(&made.bytes).iter().map(|seen| seen.nanos).collect();
            assert_eq!(times, [nanos], "{resolution:#x} {offset} {ticks} {order:?}");
        }
    }
}

#[test]
fn gzip_is_known_by_its_magic_and_may_have_several_members() {
    for made in [small_pcap(Big), small_pcapng(Little)] {
        let expected = read_well(&made.bytes);
        assert_eq!(read_well(&gzip(&made.bytes)), expected);
        let (first, second) = made.bytes.split_at(41);
        assert_eq!(read_well(&[gzip(first), gzip(b""), gzip(second)].concat()), expected);
    }
}

#[test]
fn cut_at_each_octet_all_whole_packets_are_read() {
    for made in [small_pcap(Little), small_pcap(Big), small_pcapng(Little), small_pcapng(Big)] {
        let all = read_well(&made.bytes);
        for cut in 0..made.bytes.len() {
            let (seen, error) = read(&made.bytes[..cut]);
            let whole = made.ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(seen, all[..whole], "cut at {cut}");
            assert_eq!(error.is_none(), made.pieces.contains(&cut), "cut at {cut}: {error:?}");
        }
    }
}

#[test]
fn cut_at_each_octet_of_a_gz_nothing_is_lost_and_nothing_invented() {
    // Packets that do not compress, so that what is unpacked grows with what is there.
    let mut made = Made::pcap(Little, MICROS, 1);
    let mut noise = 1_u32;
    for number in 0..40 {
        let bytes: Vec<u8> = (0..60)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .collect();
        made = made.record(number, 0, &bytes, 60);
    }
    let all = read_well(&made.bytes);
    let packed = gzip(&made.bytes);
    for cut in 1..packed.len() {
        let (seen, error) = read(&packed[..cut]);
        assert!(all.starts_with(&seen) && error.is_some(), "cut at {cut}");
        // Noise takes as much room packed: a packet more or less for the header, its end and blocks of deflate.
        let expected = cut.saturating_sub(24 + 150) / 76;
        assert!(seen.len() >= expected, "cut at {cut}: {} packets, {error:?}", seen.len());
    }
    let mut damaged = packed.clone();
    let at = damaged.len() - 3;
    damaged[at] ^= 1;
    let (seen, error) = read(&damaged);
    assert_eq!(seen, all, "only the checksum is wrong");
    assert!(error.unwrap().contains("corrupt"));
}

#[test]
fn progress_is_of_the_file_as_it_is() {
    let made = small_pcap(Little);
    for bytes in [made.bytes.clone(), gzip(&made.bytes)] {
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
fn a_claimed_length_allocates_nothing() {
    let pcap = Made::pcap(Little, MICROS, 1).u32(0).u32(0).u32(MAX_PACKET).u32(MAX_PACKET);
    let pcapng = Made::empty(Big).section(Big).interface(1, 0, &[]).u32(6).u32(MAX_PACKET);
    for made in [pcap, pcapng] {
        let bytes = made.raw(&[0; 1000]).bytes;
        let mut file = CaptureFile::from_reader(Path::new("a"), &*bytes, 0).unwrap();
        assert!(file.next().is_err());
        assert!(file.buffered() <= 1 << 20);
    }
}

#[test]
fn the_longest_packet_is_read() {
    let bytes = vec![b'x'; MAX_PACKET as usize];
    let made = Made::pcap(Little, MICROS, 1).record(0, 0, &bytes, MAX_PACKET);
    let (seen, error) = read(&made.record(1, 0, b"next", 4).bytes);
    assert_eq!((seen.len(), error), (2, None));
    assert!(seen[0].bytes == bytes && seen[1].bytes == b"next");
}

#[test]
fn damage_within_pcapng_is_stepped_over() {
    let start = Made::empty(Big).section(Big).interface(1, 0, &[]).interface(101, 0, &[]);
    let damages = [
        // 99 bytes in a block of none
        start.clone().block(6, &Made::empty(Big).u32(0).u32(0).u32(0).u32(99).u32(99).bytes),
        // no such interface, and a block too short to name one
        start.clone().enhanced(2, 0, b"lost", 4),
        start.clone().block(6, b"abcd"),
        start.clone().block(3, b""),
        // another length at its end
        start.clone().u32(6).u32(12).u32(16),
    ];
    let good = [seen(1000, LinkType::Ethernet, b"good", 4), seen(2000, LinkType::Raw, b"too", 3)];
    for made in damages {
        let made = made.enhanced(0, 1, b"good", 4).enhanced(1, 2, b"too", 3);
        let (seen, error) = read(&made.bytes);
        assert_eq!(seen, good);
        let error = error.unwrap();
        assert!(error.contains("1 damaged block was skipped, 2 packets were read"), "{error}");
    }
}

#[test]
fn a_packet_tells_its_interface() {
    let interfaces = |made: Made| {
        let size = made.bytes.len() as u64;
        let mut file = CaptureFile::from_reader(Path::new("a"), &made.bytes[..], size).unwrap();
        let mut seen = Vec::new();
        while let Some(packet) = file.next().unwrap() {
            seen.push(packet.interface);
        }
        seen
    };
    let made = Made::empty(Big).section(Big).interface(101, 0, &[]).interface(101, 0, &[]);
    let made = made.enhanced(1, 0, b"a", 1).enhanced(0, 0, b"b", 1).obsolete(1, 0, b"c", 1);
    let made = made.simple(b"d", 1).section(Little).interface(101, 0, &[]).enhanced(0, 0, b"e", 1);
    assert_eq!(interfaces(made), [1, 0, 1, 0, 0]);
    assert_eq!(interfaces(small_pcap(Little)), [0, 0, 0]);
}

#[test]
fn a_damaged_interface_keeps_its_number() {
    let made = Made::empty(Little).section(Little).block(1, b"").interface(101, 0, &[]);
    let made = made.enhanced(0, 1, b"lost", 4).enhanced(1, 1, b"good", 4);
    let (packets, error) = read(&made.bytes);
    assert_eq!(packets, [seen(1000, LinkType::Raw, b"good", 4)]);
    assert!(error.unwrap().contains("2 damaged blocks were skipped, 1 packet was read"));
}

#[test]
fn interfaces_are_bounded() {
    let mut made = Made::empty(Little).section(Little);
    for _ in 0..70_000 {
        made = made.interface(1, 0, &[]);
    }
    let (_, error) = read(&made.enhanced(65_536, 0, b"", 0).bytes);
    assert!(error.unwrap().contains("4465 damaged blocks were skipped"));
}

/// Fails in the end, as a disk does.
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
fn what_is_said() {
    let pcap = small_pcap(Little);
    let ng = small_pcapng(Little);
    let section = Made::empty(Little).section(Little);
    let with_damage = section.clone().interface(1, 0, &[]).block(6, b"").enhanced(0, 0, b"", 0);
    let packed = gzip(&pcap.bytes);
    let mut no_gzip = packed.clone();
    no_gzip[2] = 0;
    let second = pcap.clone().bytes[..60].to_vec();
    let length = |claims| Made::pcap(Big, MICROS, 1).record(0, 0, b"", 0).u32(0).u32(0).u32(claims);
    let mut said: Vec<String> = [
        Vec::new(),
        b"From: a@a.example\r\n".to_vec(),
        vec![0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3, 4, 5],
        gzip(b""),
        gzip(b"plain text"),
        no_gzip,
        packed[..5].to_vec(),
        packed[..packed.len() - 5].to_vec(),
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
        Made::empty(Little)
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
    said.push(read_from(Failing(&pcap.bytes), 0).1.unwrap());
    said.push(read_from(Failing(b""), 0).1.unwrap());
    said.push(CaptureFile::open(Path::new("/nowhere/a.pcap")).map(|_| ()).unwrap_err().to_string());
    said.push(CaptureFile::open(Path::new("/")).map(|_| ()).unwrap_err().to_string());
    insta::assert_snapshot!(said.join("\n"));
}

#[test]
fn the_writer_refuses_what_cannot_be_read() {
    let mut writer = PcapngWriter::new(Vec::new(), LinkType::Raw, 0, "lo").unwrap();
    let at = Timestamp::default();
    assert!(writer.packet(at, &vec![0; MAX_PACKET as usize], 0, None).is_err());
    assert!(writer.packet_of(1, at, b"", 0, None).is_err());
    // The longest packet and comments longer than they may be.
    let bytes = vec![0; MAX_PACKET as usize - (3 << 16)];
    let long = "é".repeat(40_000);
    writer.noted_packet(at, &bytes, 0, Some(&long), &long).unwrap();
    assert_eq!(read(&writer.finish().unwrap()).1, None);
}

#[test]
fn a_note_is_handed_on_with_its_packet() {
    let notes = |bytes: &[u8]| {
        let mut file = CaptureFile::from_reader(Path::new("a"), bytes, 0).unwrap();
        let mut notes = Vec::new();
        while let Some(packet) = file.next().unwrap() {
            notes.push((packet.note.map(str::to_owned), packet.omitted, packet.bytes.to_vec()));
        }
        notes
    };
    let mut writer = PcapngWriter::new(Vec::new(), LinkType::Raw, 0, "lo").unwrap();
    let at = Timestamp::default();
    let odd = b"odd".as_slice();
    writer.packet(at, odd, 9, Some("gatepost: verdict=accept")).unwrap();
    writer.noted_packet(at, odd, 9, Some("gatepost: verdict=accept"), "[\"é\"]").unwrap();
    writer.noted_packet(at, b"even", 9, None, "").unwrap();
    writer.noted_packet(at, odd, 9, Some("gatepost: omitted=6 bytes"), "x").unwrap();
    writer.packet(at, odd, 9, Some("gatepost-answers:")).unwrap();
    writer.packet(at, odd, 9, None).unwrap();
    let file = writer.finish().unwrap();
    let expected = [
        (None, 0, odd),
        (Some("[\"é\"]"), 0, odd),
        (Some(""), 0, b"even".as_slice()),
        (Some("x"), 6, odd),
        (None, 0, odd),
        (None, 0, odd),
    ];
    let expected =
        expected.map(|(note, omitted, o)| (note.map(str::to_owned), omitted, o.to_vec()));
    assert_eq!(notes(&file), expected);
    // What is no text is no note.
    let mut file = file;
    let at = file.windows(2).position(|two| two == b"[\"").unwrap();
    file[at] = 0xff;
    assert_eq!(notes(&file)[1].0, None);
}

proptest! {
    #[test]
    fn what_is_written_is_read(
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
            expected.push(seen(*nanos, links[of], bytes, (*wire_len).max(bytes.len() as u32)));
        }
        let (seen, error) = read(&writer.finish().unwrap());
        prop_assert_eq!((seen, error), (expected, None));
    }

    /// Numbers of all sizes are put where they may hurt; the file ends, and not later than it can.
    #[test]
    fn a_mutated_file_ends(
        which in 0..4,
        packed in any::<bool>(),
        at_most in 1_usize..100,
        changes in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>().prop_map(u32::from), any::<u32>()]), 1..6),
        inserted in (any::<prop::sample::Index>(), vec(any::<u8>(), 0..10)),
    ) {
        let order = if which % 2 == 0 { Little } else { Big };
        let made = if which < 2 { small_pcap(order) } else { small_pcapng(order) };
        let mut bytes = if packed { gzip(&made.bytes) } else { made.bytes };
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
        let (seen, error) = read(&bytes);
        let most = if packed { 1000 * bytes.len() } else { bytes.len() } / 12;
        prop_assert!(seen.len() <= most);
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            let dribble = Dribble { rest: &bytes, at_most, reads: 0 };
            prop_assert_eq!(read_from(dribble, 0), (seen, error));
        }
    }
}
