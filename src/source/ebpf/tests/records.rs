//! Hand-made records, and error messages.

use std::time::Duration;

use super::super::error::EbpfError;
use super::super::netlink::PacketDirection;
use super::super::record::{self, Record, RecordHeader, SocketRecord};

fn packet(captured: u32, tail: u32, bytes: &[u8]) -> Vec<u8> {
    let mut record = 7_u64.to_ne_bytes().to_vec();
    for number in [3, 1500, 40, captured, tail, 1] {
        record.extend(u32::to_ne_bytes(number));
    }
    record.extend(bytes);
    record
}

#[test]
fn a_packet_excludes_unused_space() {
    let header = RecordHeader { at: 7, interface: 3, wire_len: 1500, omitted: 40, kind: 1 };
    let whole = packet(3, 0, b"abc-----");
    let parsed = Record::parse(&whole).unwrap();
    assert_eq!(parsed, Record { header, head: b"abc", tail: b"" });

    let mut bytes = b"yz".to_vec();
    bytes.resize(record::TAIL, b'-');
    bytes.extend(b"abc-----");
    let with_tail = packet(3, 2, &bytes);
    let parsed = Record::parse(&with_tail).unwrap();
    assert_eq!(parsed, Record { header, head: b"abc", tail: b"yz" });
}

#[test]
fn inconsistent_records_are_rejected() {
    for cut in 0..record::HEADER {
        assert_eq!(Record::parse(&packet(0, 0, b"")[..cut]), None);
    }
    let reserved = vec![0; record::TAIL];
    for (captured, tail, bytes) in [
        (4, 0, b"abc".as_slice()),
        (u32::MAX, 0, b"abc"),
        (0, 1, &reserved[1..]),
        (1, 1, &reserved),
        (0, 257, &reserved),
        (0, u32::MAX, &reserved),
    ] {
        assert_eq!(Record::parse(&packet(captured, tail, bytes)), None);
    }
    for cut in 0..48 {
        assert_eq!(SocketRecord::parse(&socket(10, [0; 16], 0, 0)[..cut]), None);
    }
    assert_eq!(SocketRecord::parse(&socket(1, [0; 16], 0, 0)), None);
}

fn socket(family: u16, local: [u8; 16], srtt: u32, closed: u16) -> Vec<u8> {
    let mut bytes = local.to_vec();
    bytes.extend([9; 16]);
    bytes.extend(srtt.to_ne_bytes());
    bytes.extend(2_u32.to_ne_bytes());
    for number in [25, 40_000, family, closed] {
        bytes.extend(u16::to_ne_bytes(number));
    }
    bytes
}

#[test]
fn sockets_of_both_families_are_parsed() {
    let mut local = [0; 16];
    local[..4].copy_from_slice(&[192, 0, 2, 1]);
    let parsed = SocketRecord::parse(&socket(2, local, 0, 0)).unwrap();
    assert_eq!((parsed.local, parsed.rtt), ("192.0.2.1:25".parse().unwrap(), None));
    assert_eq!(parsed.peer, "9.9.9.9:40000".parse().unwrap());
    assert_eq!((parsed.retransmits, parsed.closed), (2, false));

    // IPv4 over an IPv6 socket.
    let local = "::ffff:192.0.2.1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let parsed = SocketRecord::parse(&socket(10, local, 8_001, 1)).unwrap();
    assert_eq!(parsed.local, "192.0.2.1:25".parse().unwrap());
    assert_eq!(parsed.peer, "[909:909:909:909:909:909:909:909]:40000".parse().unwrap());
    assert_eq!((parsed.rtt, parsed.closed), (Some(Duration::from_nanos(1_000_125)), true));
}

#[test]
fn constants_match_the_header_file() {
    let header = include_str!("../../../bpf/watch.h");
    let defined = |name: &str| {
        let line = header.lines().find(|line| line.starts_with(&format!("#define {name} ")));
        line.unwrap().split_whitespace().nth(2).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(defined("WATCH_SOCKET"), record::SOCKET);
    assert_eq!(defined("WATCH_TAIL") as usize, record::TAIL);
    assert_eq!(defined("WATCH_SEEN"), record::SEEN_INTERFACES);
    assert_eq!(defined("WATCH_IN"), PacketDirection::In as u32);
    assert_eq!(defined("WATCH_OUT"), PacketDirection::Out as u32);
    assert_eq!(defined("WATCH_LOST_SYNS"), record::LOST_SYNS);
    assert_eq!(defined("WATCH_LOST_PACKETS"), record::LOST_PACKETS);
}

#[test]
fn refusals_of_the_kernel_suggest_remedies() {
    let denied = std::io::Error::from_raw_os_error(1);
    insta::assert_snapshot!(
        EbpfError::refused("attach programs to an interface", &denied),
        @"the kernel refused to attach programs to an interface (Operation not permitted (os error 1)) although this process has the capabilities: check whether they are those of a user namespace, or a security module forbids bpf(2)"
    );
    let unknown = std::io::Error::from_raw_os_error(38);
    insta::assert_snapshot!(
        EbpfError::refused("load the packet programs", &unknown),
        @"this kernel cannot load the packet programs: Function not implemented (os error 38); eBPF needs Linux 5.8 or later with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_ACT"
    );
}
