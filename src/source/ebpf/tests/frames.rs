//! Hand-made frames with unusual headers, and the expected records.

use pnet::datalink::{self, Channel};

use super::namespaces::{CapturedPacket, Pair};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

const SYN: u8 = 2;
const ACK: u8 = 16;

/// MAC address of neither host, so that their stacks do not reply.
const FOREIGN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn ethernet(tags: &[u16], ip: &[u8]) -> Vec<u8> {
    let mut frame = [FOREIGN_MAC, [2, 0, 0, 0, 0, 8]].concat();
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    let kind: u16 = if ip[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    frame.extend(kind.to_be_bytes());
    frame.extend(ip);
    frame
}

/// The packet with source and destination exchanged.
fn reversed(mut packet: Vec<u8>) -> Vec<u8> {
    let (start, len) = if packet[0] >> 4 == 4 { (12, 4) } else { (8, 16) };
    packet[start..start + 2 * len].rotate_left(len);
    packet
}

/// `fragment` is the header field with flags and offset.
fn ipv4(protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(20 + options.len() + payload.len()).unwrap();
    let mut packet = vec![0x45 + u8::try_from(options.len() / 4).unwrap(), 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 192, 0, 2, 77, 192, 0, 2, 88]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

/// An extension header is its number and its bytes after the next-header field.
fn ipv6(extensions: &[(u8, &[u8])], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut numbers: Vec<u8> = extensions.iter().map(|(number, _)| *number).collect();
    numbers.push(protocol);
    let mut body = Vec::new();
    for ((_, rest), next) in extensions.iter().zip(&numbers[1..]) {
        body.push(*next);
        body.extend(*rest);
    }
    body.extend(payload);
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, len[0], len[1], numbers[0], 64];
    for last in [0x77, 0x88] {
        packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(body);
    packet
}

fn tcp(ports: (u16, u16), seq: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = ports.0.to_be_bytes().to_vec();
    segment.extend(ports.1.to_be_bytes());
    segment.extend(seq.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0x60, flags, 0xff, 0xff, 0, 0, 0, 0]);
    // MSS option.
    segment.extend([2, 4, 5, 0xb4]);
    segment.extend(payload);
    segment
}

fn udp(ports: (u16, u16), len: usize) -> Vec<u8> {
    let mut datagram = ports.0.to_be_bytes().to_vec();
    datagram.extend(ports.1.to_be_bytes());
    datagram.extend(u16::try_from(8 + len).unwrap().to_be_bytes());
    datagram.resize(10 + len, 0x5a);
    datagram
}

fn icmp(kind: u8, len: usize) -> Vec<u8> {
    let mut message = vec![kind, 0];
    message.resize(len, 0xa5);
    message
}

/// Six bytes of padding; valid as hop-by-hop, destination and (unused) routing header.
const OPTIONS: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
/// AH; its length field counts 32-bit words minus two.
const AUTHENTICATION: &[u8] =
    &[4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9];

/// A fragment header: offset and M flag, identification.
fn fragment(field: u16) -> [u8; 7] {
    let [high, low] = field.to_be_bytes();
    [0, high, low, 0, 0, 0, 5]
}

/// Frames to send, and the expected records: bytes from the IP header, packet length, omitted bytes.
#[derive(Default)]
struct Cases {
    frames: Vec<Vec<u8>>,
    expected: Vec<(Vec<u8>, u32, u32)>,
}

impl Cases {
    fn ignored(&mut self, frame: Vec<u8>) {
        self.frames.push(frame);
    }

    fn whole(&mut self, tags: &[u16], ip: &[u8]) {
        self.prefix(tags, ip, ip.len());
    }

    fn prefix(&mut self, tags: &[u16], ip: &[u8], max: usize) {
        self.frames.push(ethernet(tags, ip));
        self.expected.push((ip[..max.min(ip.len())].to_vec(), ip.len() as u32, 0));
    }

    /// The record omits `omitted` bytes after the first `head`.
    fn with_omission(&mut self, ip: &[u8], head: usize, omitted: usize) {
        self.frames.push(ethernet(&[], ip));
        let bytes = [&ip[..head], &ip[head + omitted..]].concat();
        self.expected.push((bytes, ip.len() as u32, omitted as u32));
    }

    fn run(self) {
        let pair = Pair::new();
        pair.both("link set LINK mtu 9000");
        let watched = pair.watch(&["far"], || pair.far(|| send(&self.frames)));
        let seen = watched.packets.iter();
        let seen: Vec<_> = seen
            .map(|CapturedPacket { bytes, wire_len, omitted, .. }| {
                (bytes.clone(), *wire_len, *omitted)
            })
            .collect();
        for (number, (seen, expected)) in seen.iter().zip(&self.expected).enumerate() {
            assert_eq!(seen, expected, "packet {number}");
        }
        assert_eq!(seen.len(), self.expected.len());
    }
}

fn send(frames: &[Vec<u8>]) {
    let interfaces = datalink::interfaces();
    let near = interfaces.iter().find(|interface| interface.name == "near").unwrap();
    let Ok(Channel::Ethernet(mut sender, _)) = datalink::channel(near, datalink::Config::default())
    else {
        panic!("no channel");
    };
    for frame in frames {
        sender.send_to(frame, None).unwrap().unwrap();
    }
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn all_headers_are_parsed() {
    let mut cases = Cases::default();
    let syn = tcp((40_000, 25), 1, SYN, b"");
    let other = tcp((40_000, 26), 1, SYN, b"");

    let v4 = ipv4(TCP, &[], 0, &syn);
    let v6 = ipv6(&[], TCP, &syn);
    for ip in [&v4, &v6] {
        cases.whole(&[], ip);
        cases.whole(&[0x8100], ip);
        cases.whole(&[0x88a8, 0x8100], ip);
        cases.ignored(ethernet(&[0x8100; 5], ip));
    }
    cases.ignored(ethernet(&[], &ipv4(TCP, &[], 0, &other)));
    cases.ignored(ethernet(&[0x8100], &ipv6(&[], TCP, &other)));
    cases.whole(&[], &ipv4(TCP, &[1; 40], 0, &syn));
    cases.whole(&[], &ipv4(51, &[], 0, &[&[TCP], AUTHENTICATION, &syn].concat()));

    // Ethernet padding, and a length field beyond the end of the packet.
    let mut padded = ethernet(&[], &v4);
    padded.extend([0; 18]);
    cases.ignored(padded);
    cases.expected.push((v4.clone(), v4.len() as u32, 0));
    let mut wrong_length = v4.clone();
    wrong_length[2..4].copy_from_slice(&[0x7f, 0xff]);
    cases.whole(&[], &wrong_length);
    // GSO packets of IPv4 beyond 64 KiB have length 0.
    wrong_length[2..4].copy_from_slice(&[0, 0]);
    cases.whole(&[], &wrong_length);

    let (hop, destination, routing) = ((0, OPTIONS), (60, OPTIONS), (43, OPTIONS));
    cases.whole(&[], &ipv6(&[destination], TCP, &syn));
    cases.whole(&[0x8100], &ipv6(&[hop, destination, routing, destination], TCP, &syn));
    cases.whole(&[], &ipv6(&[hop, (51, AUTHENTICATION), destination], TCP, &syn));
    cases.whole(&[], &ipv6(&[destination; 8], TCP, &syn));
    cases.ignored(ethernet(&[], &ipv6(&[destination; 9], TCP, &syn)));
    cases.ignored(ethernet(&[], &ipv6(&[hop, destination], TCP, &other)));

    // An invalid TCP header is copied, so that user space reports it.
    let mut short = syn.clone();
    short[12] = 0x40;
    cases.whole(&[], &ipv4(TCP, &[], 0, &short));
    short[12] = 0xf0;
    cases.whole(&[], &ipv6(&[], TCP, &short));

    cases.run();
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn relevant_fragments_are_copied_whole() {
    let mut cases = Cases::default();
    let long = [tcp((40_000, 25), 1, ACK, b""), vec![b'x'; 2000]].concat();
    let other = [tcp((40_000, 26), 1, ACK, b""), vec![b'x'; 2000]].concat();
    let (more, later) = (0x2000, 0x00ff);
    cases.whole(&[], &ipv4(TCP, &[], more, &long));
    cases.ignored(ethernet(&[], &ipv4(TCP, &[], more, &other)));
    cases.whole(&[], &ipv4(TCP, &[], later, b"later"));
    cases.whole(&[], &ipv4(UDP, &[], more | later, b"later"));
    cases.ignored(ethernet(&[], &ipv4(50, &[], later, b"later")));
    cases.whole(&[], &ipv4(UDP, &[], more, &udp((53, 4000), 3000)));
    cases.ignored(ethernet(&[], &ipv4(UDP, &[], more, &udp((2049, 4000), 3000))));
    // "Don't fragment" is not a fragment.
    cases.ignored(ethernet(&[], &ipv4(UDP, &[], 0x4000, &udp((2049, 4000), 30))));

    let (more, later, atomic) = (fragment(1), fragment(0x0800), fragment(0));
    cases.whole(&[], &ipv6(&[(44, &more)], TCP, &long));
    cases.ignored(ethernet(&[], &ipv6(&[(44, &more)], TCP, &other)));
    cases.whole(&[], &ipv6(&[(60, OPTIONS), (44, &later)], TCP, b"later"));
    cases.whole(&[], &ipv6(&[(44, &later)], 60, b"later"));
    cases.ignored(ethernet(&[], &ipv6(&[(44, &later)], 50, b"later")));
    cases.whole(&[], &ipv6(&[(44, &atomic)], TCP, &long));
    cases.ignored(ethernet(&[], &ipv6(&[(44, &atomic)], TCP, &other)));
    cases.run();
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn icmp_errors_and_dns_answers_are_truncated() {
    let mut cases = Cases::default();
    for kind in 0..=30 {
        let packet = ipv4(ICMP, &[], 0, &icmp(kind, 548));
        match kind {
            3 | 11 | 12 => cases.prefix(&[], &packet, 256),
            _ => cases.ignored(ethernet(&[], &packet)),
        }
    }
    for kind in [0, 1, 2, 3, 4, 5, 128, 135] {
        let packet = ipv6(&[(60, OPTIONS)], ICMPV6, &icmp(kind, 500));
        match kind {
            1..=4 => cases.prefix(&[], &packet, 256),
            _ => cases.ignored(ethernet(&[], &packet)),
        }
    }
    cases.whole(&[], &ipv4(ICMP, &[], 0, &icmp(3, 36)));
    // Each family has its own protocol number.
    cases.ignored(ethernet(&[], &ipv4(ICMPV6, &[], 0, &icmp(3, 36))));
    cases.ignored(ethernet(&[], &ipv6(&[], ICMP, &icmp(3, 36))));

    cases.whole(&[], &ipv4(UDP, &[], 0, &udp((53, 4000), 500)));
    cases.prefix(&[], &ipv6(&[], UDP, &udp((53, 4000), 4000)), 1500);
    cases.ignored(ethernet(&[], &ipv6(&[], UDP, &udp((4000, 53), 40))));
    cases.run();
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn message_content_starts_with_the_first_copy_of_a_354() {
    let mut cases = Cases::default();
    let (client, server) = ((40_000, 25), (25, 40_000));
    let content: Vec<u8> = (0..1200_u32).map(|at| (at % 251) as u8).collect();
    let server_sends =
        |seq: u32, text: &str| reversed(ipv6(&[], TCP, &tcp(server, seq, ACK, text.as_bytes())));
    let client_sends = |payload: &[u8]| ipv6(&[(60, OPTIONS)], TCP, &tcp(client, 5, ACK, payload));
    let head = 40 + 8 + 24;

    cases.whole(&[], &client_sends(&content));
    cases.whole(&[], &server_sends(1000, "354 go\r\n"));
    cases.with_omission(&client_sends(&content), head, 1200 - 256);
    cases.with_omission(&client_sends(&content[..1025]), head, 1025 - 256);
    cases.whole(&[], &client_sends(&content[..1024]));
    cases.whole(&[], &client_sends(b""));
    // Retransmission and keep-alive of the server.
    cases.whole(&[], &server_sends(1000, "354 go\r\n"));
    cases.whole(&[], &server_sends(1007, "\n"));
    cases.with_omission(&client_sends(&content), head, 1200 - 256);
    // With long headers.
    let many = [(60, OPTIONS); 8];
    let packet = ipv6(&many, TCP, &tcp(client, 5, ACK, &content));
    cases.with_omission(&packet, 40 + 64 + 24, 1200 - 256);

    cases.whole(&[], &server_sends(1008, "250 ok\r\n"));
    cases.whole(&[], &client_sends(&content));
    cases.whole(&[], &server_sends(1000, "354 go\r\n"));
    cases.whole(&[], &client_sends(&content));

    // The reply to DATA is the last of several replies.
    let several = format!("250 {}\r\n354 go\r\n", "long ".repeat(60));
    cases.whole(&[], &server_sends(1016, &several));
    cases.with_omission(&client_sends(&content), head, 1200 - 256);
    let now = 1016 + several.len() as u32;
    cases.whole(&[], &server_sends(now, "354 go\r\n250 ok\r\n"));
    cases.whole(&[], &client_sends(&content));
    cases.whole(&[], &server_sends(now + 16, "250 x354 y\r\n354"));
    cases.with_omission(&client_sends(&content), head, 1200 - 256);

    // Another connection.
    cases.whole(&[], &ipv6(&[], TCP, &tcp(client, 5, SYN, b"")));
    cases.whole(&[], &client_sends(&content));
    // A client with a watched port.
    let (client, server) = ((2525, 25), (25, 2525));
    cases.whole(&[], &reversed(ipv4(TCP, &[], 0, &tcp(server, 1, ACK, b"354 go\r\n"))));
    cases.with_omission(&ipv4(TCP, &[], 0, &tcp(client, 5, ACK, &content)), 20 + 24, 1200 - 256);
    cases.run();
}
