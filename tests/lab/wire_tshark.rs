//! The packet decoder against tshark, for every packet of real captures and for the packets of `SyntheticConnection`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use crate::harness::tests;
use crate::support::{require_program, shared};
use gatepost::addr::Side;
use gatepost::time::Timestamp;
use gatepost::wire::{Decoded, Decoder, LinkType, Packet, SyntheticConnection};
use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};

tests![shared_captures_decode_as_in_tshark, tshark_reads_synthetic_connections_without_warnings,];

/// Packets where tshark differs and is wrong: file, packet number, our result, and the reason.
const KNOWN: [(&str, u64, &str, &str); 2] = [
    (
        "ipv6-malformed-fragments-22/frag-22.pcap",
        11,
        "damaged Reassembly",
        "of 175 bytes and not the last, which must be discarded (RFC 8200 section 4.5)",
    ),
    (
        "ipv6-malformed-fragments-22/frag-22.pcap",
        13,
        "damaged Reassembly",
        "of the same datagram, which is given up",
    ),
];

/// tshark's fields of a packet.
const FIELDS: [&str; 14] = [
    "frame.number",
    "ip.src",
    "ipv6.src",
    "ip.dst",
    "ipv6.dst",
    "icmp.type",
    "icmpv6.type",
    "tcp.srcport",
    "tcp.dstport",
    "tcp.seq_raw",
    "tcp.len",
    "tcp.payload",
    "udp.srcport",
    "udp.dstport",
];

fn shared_captures_decode_as_in_tshark() {
    require_program("tshark", "tshark");
    let (dir, files) = (shared::folder(), shared::captures());
    let mut differences = Vec::new();
    let mut counts = [0; 3];
    for file in &files {
        let (ours, theirs) = (read(file), tshark(file));
        let name = file.strip_prefix(&dir).unwrap().display().to_string();
        for word in ["tcp", "udp", "icmp"].into_iter().enumerate() {
            counts[word.0] += ours.values().filter(|text| text.starts_with(word.1)).count();
        }
        let mut numbers: Vec<_> = ours.keys().chain(theirs.keys()).copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        for number in numbers {
            let known = KNOWN.iter().find(|known| name.ends_with(known.0) && known.1 == number);
            let (ours, theirs) = (ours.get(&number), theirs.get(&number));
            match known {
                Some(known) if ours.is_some_and(|ours| ours == known.2) => {}
                None if ours == theirs => {}
                _ => differences.push(format!("{name} {number}: {ours:?}, tshark {theirs:?}")),
            }
        }
    }
    println!("{} files: {counts:?} of TCP, UDP and ICMP errors", files.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Our decoder's result for each packet of `file`, by number, in the form of [`tshark`].
fn read(file: &Path) -> BTreeMap<u64, String> {
    let mut decoder = Decoder::new();
    let mut found = BTreeMap::new();
    packets(file, |number, link, octets, wire_len| {
        let at = Timestamp::from_nanos(number);
        let packet = Packet::new(at, link, octets, wire_len);
        let text = match decoder.decode(&packet) {
            Decoded::Tcp(segment) => {
                let payload: String = segment.payload.iter().map(|b| format!("{b:02x}")).collect();
                let (src, dst, seq, len) = (segment.src, segment.dst, segment.seq, segment.len);
                format!("tcp {src} {dst} {seq} {len} {payload}")
            }
            Decoded::Udp(datagram) => format!("udp {} {}", datagram.src, datagram.dst),
            Decoded::Icmp(error) => format!("icmp {}", error.from),
            Decoded::Error(damage) => format!("damaged {damage:?}"),
            Decoded::Fragment | Decoded::Other => return,
        };
        found.insert(number, text);
    });
    found
}

fn packets(file: &Path, mut each: impl FnMut(u64, LinkType, &[u8], u32)) {
    let mut reader = create_reader(1 << 20, File::open(file).unwrap()).unwrap();
    let (mut links, mut number) = (Vec::new(), 0);
    let mut packet = |link: LinkType, octets: &[u8], wire_len: u32| {
        number += 1;
        each(number, link, octets, wire_len);
    };
    loop {
        let size = match reader.next() {
            Ok((size, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links.push(link(header.network.0)),
                    PcapBlockOwned::Legacy(block) => packet(links[0], block.data, block.origlen),
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                        links.push(link(interface.linktype.0));
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(block)) => {
                        let octets = &block.data[..block.caplen as usize];
                        packet(links[block.if_id as usize], octets, block.origlen);
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                size
            }
            Err(PcapError::Eof) => return,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().unwrap();
                continue;
            }
            Err(error) => panic!("{}: {error:?}", file.display()),
        };
        reader.consume(size);
    }
}

fn link(number: i32) -> LinkType {
    LinkType::from_number(u16::try_from(number & 0xffff).unwrap())
}

fn tshark(file: &Path) -> BTreeMap<u64, String> {
    let mut command = Command::new("tshark");
    command.args(["-n", "-T", "fields", "-E", "separator=;", "-E", "occurrence=f"]);
    command.arg("-r").arg(file);
    for field in FIELDS {
        command.args(["-e", field]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(packet_of_tshark).collect()
}

fn packet_of_tshark(line: &str) -> Option<(u64, String)> {
    let fields: Vec<_> = line.split(';').collect();
    let [number, src4, src6, dst4, dst6, icmp4, icmp6, sport, dport, seq, len, payload, from, to] =
        fields[..]
    else {
        panic!("{} fields: {line}", fields.len());
    };
    // The outer IP header decides: tunnels are not decoded.
    let (src, dst) = if src4.is_empty() { (src6, dst6) } else { (src4, dst4) };
    let end = |ip: &str, port: &str| SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap());
    let text = if !icmp4.is_empty() || !icmp6.is_empty() {
        // An ICMP error that quotes a segment.
        if sport.is_empty() {
            return None;
        }
        format!("icmp {src}")
    } else if !sport.is_empty() {
        format!("tcp {} {} {seq} {len} {payload}", end(src, sport), end(dst, dport))
    } else if !from.is_empty() {
        format!("udp {} {}", end(src, from), end(dst, to))
    } else {
        return None;
    };
    Some((number.parse().unwrap(), text))
}

fn tshark_reads_synthetic_connections_without_warnings() {
    require_program("tshark", "tshark");
    for (family, client, server) in [
        ("ipv4", "192.0.2.1:40000", "192.0.2.25:25"),
        ("ipv6", "[2001:db8::1]:40000", "[2001:db8::25]:25"),
    ] {
        let mut file = vec![];
        for number in [0xa1b2_3c4d, 0x0004_0002, 0, 0, 262_144_u32, 101] {
            file.extend(number.to_le_bytes());
        }
        let mut keep = |at: Timestamp, octets: &[u8], wire_len: u32| {
            let (seconds, rest) = (at.as_nanos() / 1_000_000_000, at.as_nanos() % 1_000_000_000);
            let len = octets.len() as u32;
            for number in [seconds as u32, rest as u32, len, wire_len] {
                file.extend(number.to_le_bytes());
            }
            file.extend(octets);
        };
        let mut connection =
            SyntheticConnection::new(client.parse().unwrap(), server.parse().unwrap());
        let mut nanos = 1_767_323_045_678_901_234;
        let mut at = || {
            nanos += 1_000_000;
            Timestamp::from_nanos(nanos)
        };
        connection.open(at(), &mut keep);
        connection.send(Side::Server, b"220 mx.example ESMTP\r\n", at(), &mut keep);
        connection.send(Side::Client, b"EHLO a.example\r\n", at(), &mut keep);
        connection.send(Side::Client, &b"A long message\r\n".repeat(20_000), at(), &mut keep);
        connection.send_omitted(Side::Client, 200_001, at(), &mut keep);
        connection.send(Side::Client, b".\r\n", at(), &mut keep);
        connection.close(Side::Client, at(), &mut keep);
        connection.send(Side::Server, b"250 OK\r\n", at(), &mut keep);
        connection.close(Side::Server, at(), &mut keep);
        let name = format!("gatepost-synthetic-{family}-{}.pcap", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, &file).unwrap();
        let output = Command::new("tshark")
            .args(["-n", "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"])
            .args(["-T", "fields", "-E", "separator=;", "-e", "frame.number", "-e", "tcp.len"])
            .args(["-e", "tcp.checksum.status", "-e", "_ws.expert.severity"])
            .args(["-e", "_ws.expert.message", "-d", "tcp.port==25,data", "-r"])
            .arg(&path)
            .output();
        fs::remove_file(&path).unwrap();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let mut octets = 0;
        for line in text.lines() {
            let fields: Vec<_> = line.split(';').collect();
            octets += fields[1].parse::<u64>().unwrap();
            // 1: good; 2: not verified, because the packet is not captured in full.
            assert!(matches!(fields[2], "1" | "2"), "{family}: {line}");
            // Chats ("connection established") and notes ("initiates the closing"), but no warnings or errors.
            let calm = |severity| matches!(severity, "" | "2097152" | "4194304");
            assert!(fields[3].split(',').all(calm), "{family}: {line}");
        }
        assert_eq!(octets, 22 + 16 + 320_000 + 200_001 + 3 + 8, "{family}");
    }
}
