//! Link layers, IP and its extension headers, TCP, UDP.

use etherparse::{PacketBuilder, TcpOptionElement};

use super::*;
use crate::wire::{Datagram, DecodeError};

const MAIL: &[u8] = b"MAIL FROM:<a@a.example>\r\n";

const RAW: LinkType = LinkType::Raw;

fn ethernet(tags: &[u8], ether_type: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&[2; 12], tags, &ether_type, packet].concat()
}

#[test]
fn every_link_layer_is_decoded() {
    let sll2 = |protocol: [u8; 2]| [&protocol[..], &[0; 18]].concat();
    // Of a loopback device (ARPHRD 772), common in captures on "any".
    let sll = |protocol: [u8; 2]| [&[0, 0, 3, 4, 0, 6], &[0; 8][..], &protocol].concat();
    let link_headers = [
        (LinkType::Raw, vec![], vec![]),
        (LinkType::Ethernet, ethernet(&[], [8, 0], &[]), ethernet(&[], [0x86, 0xdd], &[])),
        (
            LinkType::Ethernet,
            ethernet(&[0x81, 0, 0, 7], [8, 0], &[]),
            ethernet(&[0x81, 0, 0, 7], [0x86, 0xdd], &[]),
        ),
        (
            LinkType::Ethernet,
            ethernet(&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9], [8, 0], &[]),
            ethernet(&[0x91, 0, 0, 7, 0x81, 0, 0, 9], [0x86, 0xdd], &[]),
        ),
        (LinkType::LinuxCooked, sll([8, 0]), sll([0x86, 0xdd])),
        (LinkType::LinuxCooked2, sll2([8, 0]), sll2([0x86, 0xdd])),
        (LinkType::Loopback, vec![2, 0, 0, 0], vec![10, 0, 0, 0]),
        (LinkType::Loopback, vec![0, 0, 0, 2], vec![0, 0, 0, 24]),
        (LinkType::Loopback, vec![2, 0, 0, 0], vec![28, 0, 0, 0]),
        (LinkType::Loopback, vec![0, 0, 0, 2], vec![0, 0, 0, 30]),
        (LinkType::Loopback, vec![15, 0, 8, 0], vec![15, 0, 0x86, 0xdd]),
    ];
    for (link, before_v4, before_v6) in link_headers {
        assert_decodes(
            link,
            &[before_v4, tcp4(MAIL)].concat(),
            Decoded::Tcp(expected(MAIL, false)),
        );
        assert_decodes(link, &[before_v6, tcp6(MAIL)].concat(), Decoded::Tcp(expected(MAIL, true)));
    }
}

#[test]
fn omitted_bytes_precede_the_payload() {
    let whole = tcp4(MAIL);
    let headers = whole.len() - MAIL.len();
    for omitted_len in [1, 7, MAIL.len()] {
        let bytes = [&whole[..headers], &MAIL[omitted_len..]].concat();
        let omitted = u32::try_from(omitted_len).unwrap();
        let packet = Packet { omitted, interface: 3, ..packet(RAW, &bytes, whole.len()) };
        let expected = Segment {
            omitted,
            payload: &MAIL[omitted_len..],
            interface: 3,
            ..expected(MAIL, false)
        };
        assert_eq!(Decoder::new().decode(&packet), Decoded::Tcp(expected));
        // Bytes beyond the packet's length are padding.
        let padded = [&bytes[..], &[0; 9]].concat();
        let packet = Packet { bytes: &padded, ..packet };
        assert_eq!(Decoder::new().decode(&packet), Decoded::Tcp(expected));
    }
    let packet = Packet { omitted: u32::MAX, ..packet(RAW, &whole, whole.len()) };
    let omitted = u32::try_from(MAIL.len()).unwrap();
    let expected = Segment { omitted, payload: &[], ..expected(MAIL, false) };
    assert_eq!(Decoder::new().decode(&packet), Decoded::Tcp(expected));
}

#[test]
fn other_protocols_are_not_decoded() {
    assert_decodes(LinkType::Ethernet, &ethernet(&[], [8, 6], &[0; 28]), Decoded::Other);
    assert_decodes(
        LinkType::Ethernet,
        &ethernet(&[0x81, 0, 0, 7], [8, 6], &[0; 28]),
        Decoded::Other,
    );
    assert_decodes(LinkType::Loopback, &[[7, 0, 0, 0], [1; 4]].concat(), Decoded::Other);
    assert_decodes(LinkType::Loopback, &[[7, 1, 0, 0], [1; 4]].concat(), Decoded::Other);
    assert_decodes(LinkType::Other(105), &tcp4(MAIL), Decoded::Error(DecodeError::UnsupportedLink));
}

#[test]
fn registry_numbers_map_to_link_types() {
    for (numbers, link) in [
        (&[1][..], LinkType::Ethernet),
        (&[0, 108], LinkType::Loopback),
        (&[101, 12, 14, 228, 229], LinkType::Raw),
        (&[113], LinkType::LinuxCooked),
        (&[276], LinkType::LinuxCooked2),
        (&[105], LinkType::Other(105)),
    ] {
        assert_eq!(link.number(), numbers[0]);
        assert!(numbers.iter().all(|&number| LinkType::from_number(number) == link), "{link:?}");
    }
}

#[test]
fn padding_is_not_payload() {
    for (ether_type, mut packet, v6) in
        [([8, 0], tcp4(b"."), false), ([0x86, 0xdd], tcp6(b"."), true)]
    {
        packet.extend(*b"padding and a checksum");
        let frame = ethernet(&[], ether_type, &packet);
        assert_decodes(LinkType::Ethernet, &frame, Decoded::Tcp(expected(b".", v6)));
    }
}

/// Before segmentation offload the header has no length.
#[test]
fn without_a_length_all_captured_bytes_are_payload() {
    let mut v4 = tcp4(MAIL);
    v4[2..4].fill(0);
    assert_decodes(RAW, &v4, Decoded::Tcp(expected(MAIL, false)));
    let mut v6 = tcp6(MAIL);
    v6[4..6].fill(0);
    assert_decodes(RAW, &v6, Decoded::Tcp(expected(MAIL, true)));
    // Truncated as well: the file's wire length counts.
    let len = v4.len();
    let mut decoder = Decoder::new();
    let Decoded::Tcp(segment) = decoder.decode(&packet(RAW, &v4[..45], len)) else {
        panic!("a segment")
    };
    assert_eq!((segment.payload, segment.len), (&MAIL[..5], 25));
}

#[test]
fn a_jumbogram_has_its_length_in_an_option() {
    let jumbo = [6, 0, 0xc2, 4, 0, 0, 0, 8 + 20 + 25];
    let mut jumbogram = extended(&tcp6(MAIL), 0, &[&jumbo]);
    jumbogram[4..6].fill(0);
    jumbogram.extend(*b"padding");
    assert_decodes(RAW, &jumbogram, Decoded::Tcp(expected(MAIL, true)));
}

#[test]
fn extension_headers_are_skipped() {
    let options = |next: u8| vec![next, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let routing = |next: u8| [&[next, 2, 0, 1, 0, 0, 0, 0][..], &V6.1].concat();
    let atomic = |next: u8| vec![next, 0, 0, 0, 1, 2, 3, 4];
    let authentication = |next: u8| [&[next, 4, 0, 0][..], &[9; 20]].concat();
    for (first, headers) in [
        (0, vec![options(6)]),
        (60, vec![options(6)]),
        (43, vec![routing(6)]),
        (44, vec![atomic(6)]),
        (51, vec![authentication(6)]),
        (
            0,
            vec![options(60), options(43), routing(44), atomic(51), authentication(60), options(6)],
        ),
    ] {
        let headers: Vec<&[u8]> = headers.iter().map(Vec::as_slice).collect();
        let packet = extended(&tcp6(MAIL), first, &headers);
        assert_decodes(RAW, &packet, Decoded::Tcp(expected(MAIL, true)));
    }
    let late = extended(&tcp6(MAIL), 60, &[&options(0), &options(6)]);
    assert_decodes(RAW, &late, Decoded::Error(DecodeError::InvalidHeader));
    let encrypted = extended(&tcp6(MAIL), 50, &[&[0; 16]]);
    assert_decodes(RAW, &encrypted, Decoded::Other);

    let v4 = tcp4(MAIL);
    let mut v4 = [&v4[..20], &authentication(6), &v4[20..]].concat();
    (v4[9], v4[3]) = (51, u8::try_from(v4.len()).unwrap());
    assert_decodes(RAW, &v4, Decoded::Tcp(expected(MAIL, false)));
}

#[test]
fn invalid_headers_are_rejected() {
    let invalid = |at: usize, value: u8| {
        let mut packet = tcp4(MAIL);
        packet[at] = value;
        assert_decodes(RAW, &packet, Decoded::Error(DecodeError::InvalidHeader));
    };
    invalid(0, 0x55); // Not an IP version.
    invalid(0, 0x44); // A header of 16 bytes.
    invalid(3, 19); // Shorter than its header.
    invalid(3, 39); // Ends within the TCP header.
    invalid(20 + 12, 4 << 4); // A TCP header of 16 bytes.
    invalid(20 + 12, 15 << 4); // A TCP header beyond the end.
}

#[test]
fn fields_before_the_snap_length_are_decoded() {
    let syn = |bytes: usize| {
        let mut whole = Vec::new();
        let options =
            [TcpOptionElement::Timestamp(1, 2), TcpOptionElement::MaximumSegmentSize(1460)];
        let tcp = PacketBuilder::ipv4(V4.0, V4.1, 64).tcp(40000, 25, 1000, 500).syn();
        tcp.options(&options).unwrap().write(&mut whole, MAIL).unwrap();
        let mut decoder = Decoder::new();
        match decoder.decode(&packet(RAW, &whole[..bytes], whole.len())) {
            Decoded::Tcp(segment) => {
                Ok((segment.seq, segment.mss, segment.payload.len(), segment.len))
            }
            other => Err(format!("{other:?}")),
        }
    };
    assert_eq!(syn(81), Ok((1000, Some(1460), 25, 25)));
    assert_eq!(syn(60), Ok((1000, Some(1460), 4, 25)));
    assert_eq!(syn(56), Ok((1000, Some(1460), 0, 25)));
    assert_eq!(syn(55), Ok((1000, None, 0, 25)), "within the options");
    assert_eq!(syn(40), Ok((1000, None, 0, 25)));
    assert_eq!(syn(39), Err("Error(Truncated)".to_owned()));
    assert_eq!(syn(0), Err("Error(Truncated)".to_owned()));
}

#[test]
fn the_mss_is_found_behind_unknown_options() {
    let with = |options: &[u8]| {
        let mut bytes = Vec::new();
        let tcp = PacketBuilder::ipv4(V4.0, V4.1, 64).tcp(40000, 25, 1000, 500).syn();
        tcp.options_raw(options).unwrap().write(&mut bytes, &[]).unwrap();
        decoded(RAW, &bytes, |decoded| match decoded {
            Decoded::Tcp(segment) => segment.mss,
            _ => panic!("a segment"),
        })
    };
    assert_eq!(with(&[34, 2, 1, 1, 2, 4, 5, 0xb4]), Some(1460));
    assert_eq!(with(&[0, 0, 0, 0, 2, 4, 5, 0xb4]), None, "behind the end of options");
    assert_eq!(with(&[34, 0, 2, 4, 5, 0xb4, 0, 0]), None, "an option without a length");
    assert_eq!(with(&[34, 40, 2, 4]), None, "an option beyond the end");
    assert_eq!(with(&[1, 1, 1, 2]), None);
}

#[test]
fn udp_datagrams_are_decoded() {
    let mut bytes = Vec::new();
    let udp = PacketBuilder::ipv6(V6.0, V6.1, 64).udp(40000, 25);
    udp.write(&mut bytes, MAIL).unwrap();
    let (src, dst) = ends(true);
    let datagram = |payload| Decoded::Udp(Datagram { at: AT, src, dst, payload });
    assert_decodes(RAW, &bytes, datagram(MAIL));
    bytes[45] = 8 + 4;
    assert_decodes(RAW, &bytes, datagram(b"MAIL"));
    bytes[45] = 7;
    assert_decodes(RAW, &bytes, Decoded::Error(DecodeError::InvalidHeader));
    bytes[45] = 8 + 26;
    assert_decodes(RAW, &bytes, Decoded::Error(DecodeError::InvalidHeader));
    bytes[45] = 0;
    assert_decodes(RAW, &bytes, datagram(MAIL));
}
