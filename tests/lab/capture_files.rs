//! Capture files written or read by Wireshark's programs: capinfos, editcap, mergecap and tshark.
//!
//! The captures of other projects are in `../shared/captures`, which is no part of this repository.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::tests;
use crate::support::{require_program, shared};
use flate2::Compression;
use flate2::write::GzEncoder;
use gatepost::source::{CaptureFile, PacketSource, PcapngWriter};
use gatepost::time::Timestamp;
use gatepost::wire::LinkType;

tests![
    every_shared_capture_reads_as_capinfos_does,
    many_interfaces_read_as_tshark_does,
    files_converted_by_editcap_have_the_same_packets,
    sections_and_interfaces_that_mergecap_joins,
    other_byte_orders_and_magics_are_read_as_tshark_does,
    tshark_reads_written_files_with_comments,
];

#[derive(Clone, Debug, PartialEq)]
struct Seen {
    nanos: u64,
    link: LinkType,
    octets: Vec<u8>,
    wire_len: u32,
}

fn read(path: &Path) -> Vec<Seen> {
    let mut file = CaptureFile::open(path).unwrap_or_else(|error| panic!("{error}"));
    let mut seen = Vec::new();
    while let Some(packet) = file.next().unwrap_or_else(|error| panic!("{error}")) {
        seen.push(Seen {
            nanos: packet.at.as_nanos(),
            link: packet.link,
            octets: packet.bytes.to_vec(),
            wire_len: packet.wire_len,
        });
    }
    let size = fs::metadata(path).unwrap().len();
    assert_eq!(file.progress(), (size, size), "{}", path.display());
    seen
}

/// A shared capture, by the end of its path.
fn capture(end: &str) -> PathBuf {
    require_tshark();
    let found = shared::captures().into_iter().find(|path| path.ends_with(end));
    found.unwrap_or_else(|| panic!("no capture {end}"))
}

/// Debian's package also has capinfos, editcap and mergecap.
fn require_tshark() {
    require_program("tshark", "tshark");
}

/// A program's output.
fn run(program: &str, arguments: &[&dyn AsRef<OsStr>]) -> String {
    let arguments = arguments.iter().map(AsRef::as_ref);
    let output = Command::new(program).args(arguments).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// `1439753725.701568` in nanoseconds.
fn nanos(seconds: &str) -> u64 {
    let (whole, part) = seconds.trim().split_once('.').unwrap();
    whole.parse::<u64>().unwrap() * 1_000_000_000 + format!("{part:0<9}").parse::<u64>().unwrap()
}

/// Wireshark's short name of a link type.
fn encapsulation(link: LinkType) -> &'static [&'static str] {
    match link {
        LinkType::Ethernet => &["ether"],
        LinkType::Loopback => &["null", "loop"],
        LinkType::Raw => &["rawip", "rawip4", "rawip6"],
        LinkType::LinuxCooked => &["linux-sll"],
        LinkType::LinuxCooked2 => &["linux-sll2"],
        LinkType::Other(_) => &[],
    }
}

/// Compares the number of packets, the link type, the first and the last time with capinfos.
fn agrees_with_capinfos(path: &Path) -> Vec<Seen> {
    let seen = read(path);
    let line = run("capinfos", &[&"-TMSrcaeE", &path]);
    let columns: Vec<&str> = line.trim_end().rsplit('\t').collect();
    let [end, start, count, link, ..] = columns[..] else {
        panic!("capinfos printed {line}");
    };
    assert_eq!(seen.len().to_string(), count, "{line}");
    assert_eq!(seen.iter().map(|packet| packet.nanos).min(), Some(nanos(start)), "{line}");
    assert_eq!(seen.iter().map(|packet| packet.nanos).max(), Some(nanos(end)), "{line}");
    let links: BTreeSet<_> = seen.iter().map(|packet| encapsulation(packet.link)).collect();
    match link {
        "per-packet" => assert!(links.len() > 1 || path.to_str().unwrap().contains("interfaces")),
        one => {
            assert!(links.len() == 1 && links.iter().all(|names| names.contains(&one)), "{line}")
        }
    }
    seen
}

/// Compares the time and the lengths of each packet with tshark.
fn agrees_with_tshark(path: &Path) -> Vec<Seen> {
    let seen = agrees_with_capinfos(path);
    let fields = ["frame.time_epoch", "frame.cap_len", "frame.len"];
    let fields: Vec<&str> = fields.iter().flat_map(|field| ["-e", *field]).collect();
    let mut arguments: Vec<&dyn AsRef<OsStr>> = vec![&"-n", &"-r", &path, &"-T", &"fields"];
    arguments.extend(fields.iter().map(|field| field as &dyn AsRef<OsStr>));
    let printed = run("tshark", &arguments);
    assert_eq!(printed.lines().count(), seen.len());
    for (number, (line, packet)) in printed.lines().zip(&seen).enumerate() {
        let columns: Vec<&str> = line.split('\t').collect();
        assert_eq!(nanos(columns[0]), packet.nanos, "packet {}", number + 1);
        assert_eq!(columns[1], packet.octets.len().to_string(), "packet {}", number + 1);
        assert_eq!(columns[2], packet.wire_len.to_string(), "packet {}", number + 1);
    }
    seen
}

/// A folder for one test's files.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("capture-files-{name}"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn written(path: PathBuf, octets: &[u8]) -> PathBuf {
    fs::write(&path, octets).unwrap();
    path
}

fn gzip(octets: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

fn every_shared_capture_reads_as_capinfos_does() {
    require_tshark();
    for path in shared::captures() {
        agrees_with_capinfos(&path);
    }
}

fn many_interfaces_read_as_tshark_does() {
    agrees_with_tshark(&capture("many_interfaces-1.pcapng"));
}

fn files_converted_by_editcap_have_the_same_packets() {
    let folder = folder("editcap");
    for end in ["nanosecs_big_endian.pcap", "smtp-pipelining/input.pcap", "truncated-header.pcap"] {
        let path = capture(end);
        let original = agrees_with_tshark(&path);
        for format in ["nsecpcap", "pcapng", "modpcap", "pcap"] {
            let converted = folder.join(format!("{}.{format}", original.len()));
            run("editcap", &[&"-F", &format, &path, &converted]);
            let mut seen = agrees_with_tshark(&converted);
            if matches!(format, "modpcap" | "pcap") {
                // These two formats have microseconds only.
                for (packet, before) in seen.iter_mut().zip(&original) {
                    assert_eq!(packet.nanos, before.nanos / 1000 * 1000);
                    packet.nanos = before.nanos;
                }
            }
            assert!(seen == original, "{end} as {format}");
            let octets = fs::read(&converted).unwrap();
            let packed = written(converted.with_extension("misnamed"), &gzip(&octets));
            assert!(read(&packed) == read(&converted), "{end} as {format}, packed");
        }
    }
}

fn sections_and_interfaces_that_mergecap_joins() {
    let folder = folder("mergecap");
    let merged = folder.join("merged.pcapng");
    let ends = ["smtp-rset/input.pcap", "raw_ip.pcap", "zeek/testing/btest/Traces/smtp.pcap"];
    let paths = ends.map(capture);
    let [loopback, raw, ether] = &paths;
    run("mergecap", &[&"-F", &"pcapng", &"-a", &"-w", &merged, loopback, raw, ether]);
    let separate: Vec<Seen> = paths.iter().flat_map(|path| read(path)).collect();
    assert!(agrees_with_tshark(&merged) == separate);
    // Two sections in one file, which tshark reads too.
    let doubled = fs::read(&merged).unwrap().repeat(2);
    let doubled = written(folder.join("sections.pcapng"), &doubled);
    assert!(agrees_with_tshark(&doubled) == [&separate[..], &separate[..]].concat());
}

/// A pcap file in the other byte order: its 32-bit fields and the two 16-bit ones of the version are swapped.
fn swapped(octets: &[u8]) -> Vec<u8> {
    let mut swapped = octets.to_vec();
    let mut swap = |at: usize, width: usize| swapped[at..at + width].reverse();
    for (at, width) in [(0, 4), (4, 2), (6, 2), (8, 4), (12, 4), (16, 4), (20, 4)] {
        swap(at, width);
    }
    let mut at = 24;
    while at < octets.len() {
        (0..4).for_each(|field| swap(at + 4 * field, 4));
        let captured = u32::from_le_bytes(octets[at + 8..at + 12].try_into().unwrap());
        at += 16 + captured as usize;
    }
    swapped
}

fn other_byte_orders_and_magics_are_read_as_tshark_does() {
    let path = capture("smtp-pipelining/input.pcap");
    let folder = folder("magics");
    let original = read(&path);
    let octets = fs::read(&path).unwrap();
    let big = written(folder.join("big.pcap"), &swapped(&octets));
    assert!(agrees_with_tshark(&big) == original);

    // IXIA's magic, then the length of all records after the header.
    for magic in [0x1c00_01ab_u32, 0x1c00_01ac] {
        let length = octets.len() as u32 - 24;
        let ixia = [&magic.to_le_bytes(), &octets[4..24], &length.to_le_bytes(), &octets[24..]];
        let ixia = written(folder.join(format!("{magic:x}.pcap")), &ixia.concat());
        assert!(agrees_with_tshark(&ixia) == original);
    }
}

fn tshark_reads_written_files_with_comments() {
    require_tshark();
    let path = folder("written").join("written.pcapng");
    let file = fs::File::create(&path).unwrap();
    let mut writer = PcapngWriter::new(file, LinkType::Raw, 262_144, "client").unwrap();
    let ether = writer.interface(LinkType::Ethernet, 0, "upstream").unwrap();
    let at = |nanos: u64| Timestamp::from_nanos(1_767_323_045_000_000_000 + nanos);
    let ip = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2];
    writer.packet(at(1), &ip, 20, Some("verdict: reject (ipv6-ptr), 550 5.7.25 – grün")).unwrap();
    writer.packet_of(ether, at(2), &[0; 33], 1500, None).unwrap();
    writer.packet(at(678_901_234), &ip[..19], 40, Some("")).unwrap();
    writer.finish().unwrap();

    let seen = agrees_with_tshark(&path);
    assert_eq!(seen[1].link, LinkType::Ethernet);
    assert_eq!((seen[2].nanos, seen[2].wire_len), (at(678_901_234).as_nanos(), 40));
    let printed = run(
        "tshark",
        &[&"-r", &path, &"-T", &"fields", &"-e", &"frame.interface_name", &"-e", &"frame.comment"],
    );
    let expected = "client\tverdict: reject (ipv6-ptr), 550 5.7.25 – grün\nupstream\t\nclient\t\n";
    assert_eq!(printed, expected);
    let program = run("capinfos", &[&"-F", &path]);
    assert!(program.contains(&format!("gatepost {}", env!("CARGO_PKG_VERSION"))), "{program}");
}
