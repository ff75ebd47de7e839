//! What libpcap's filter lets through, so that the kernel copies nothing else.
//!
//! pcap-filter(7). The filter cannot follow IPv6 extension headers (it has no loop), so packets that have any come whole; the
//! analyst sees what they are.

use crate::wire::LinkType;

/// What of a packet a filter selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// SYNs without ACK to a watched port: sessions that begin.
    Openings,
    /// All else that concerns SMTP.
    Packets,
}

/// The expression for `part`. No packet is of both parts.
pub(super) fn filter(part: Part, ports: &[u16], link: LinkType) -> String {
    let plain = match part {
        Part::Openings => openings(ports),
        Part::Packets => packets(ports),
    };
    match link {
        // Each `vlan` moves the offsets of all that follows behind one more tag.
        LinkType::Ethernet => format!("({plain}) or (vlan and ({plain})) or (vlan and ({plain}))"),
        _ => plain,
    }
}

/// `tcp[..]` is of IPv4, and of its first fragments only; for IPv6 the offsets are counted from the IP header.
fn openings(ports: &[u16]) -> String {
    let v4 = any(ports, &["tcp[2:2]"]);
    let v6 = any(ports, &["ip6[42:2]"]);
    format!(
        "(tcp[13] & 0x12 = 0x02 and ({v4})) or (ip6[6] = 6 and ip6[53] & 0x12 = 0x02 and ({v6}))"
    )
}

fn packets(ports: &[u16]) -> String {
    let v4 = any(ports, &["tcp[0:2]", "tcp[2:2]"]);
    let v6 = any(ports, &["ip6[40:2]", "ip6[42:2]"]);
    let mail = format!("({v4} or (ip6[6] = 6 and ({v6}))) and not ({})", openings(ports));
    // Errors of ICMP and ICMPv6.
    let errors = "icmp[0] = 3 or icmp[0] = 11 or icmp[0] = 12 \
                  or (ip6[6] = 58 and ip6[40] >= 1 and ip6[40] <= 4)";
    let names = "udp src port 53";
    let fragments = "ip[6:2] & 0x1fff != 0";
    let extended = any(&[0, 43, 44, 51, 60], &["ip6[6]"]);
    format!("({mail}) or {errors} or {names} or {fragments} or {extended}")
}

/// One of the fields has one of the values.
fn any(values: &[u16], fields: &[&str]) -> String {
    let each = values
        .iter()
        .flat_map(|value| fields.iter().map(move |field| format!("{field} = {value}")));
    each.collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use ::pcap::{BpfProgram, Capture, Linktype};
    use etherparse::{IpNumber, PacketBuilder, PacketBuilderStep, TcpHeader};

    use super::*;

    const PORTS: [u16; 3] = [25, 587, 2525];
    const V4: [[u8; 4]; 2] = [[192, 0, 2, 1], [198, 51, 100, 25]];
    const V6: [[u8; 16]; 2] = [[0x20; 16], [0x21; 16]];
    const ETHERNET: usize = 14;

    /// The filters for both parts.
    fn programs(link: LinkType) -> [BpfProgram; 2] {
        // The one that libpcap numbers otherwise than the registry.
        let number = if link == LinkType::Raw { 12 } else { link.number() };
        let dead = Capture::dead(Linktype(i32::from(number))).unwrap();
        [Part::Openings, Part::Packets]
            .map(|part| dead.compile(&filter(part, &PORTS, link), true).unwrap())
    }

    fn tcp_of(src: u16, dst: u16, flags: u8) -> TcpHeader {
        let mut header = TcpHeader::new(src, dst, 1, 1000);
        (header.fin, header.syn, header.rst) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
        header.ack = flags & 16 != 0;
        header
    }

    /// An Ethernet frame of each family.
    fn tcp(src: u16, dst: u16, flags: u8) -> [Vec<u8>; 2] {
        let ends = |step: PacketBuilderStep<_>| {
            let mut frame = Vec::new();
            step.tcp_header(tcp_of(src, dst, flags)).write(&mut frame, b"").unwrap();
            frame
        };
        let ethernet = || PacketBuilder::ethernet2([1; 6], [2; 6]);
        [ends(ethernet().ipv4(V4[0], V4[1], 9)), ends(ethernet().ipv6(V6[0], V6[1], 9))]
    }

    /// An Ethernet frame with this IP payload.
    fn ip(v6: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let mut frame = Vec::new();
        // The builder wants to write extension headers itself: the protocol is set when it is done.
        let other = IpNumber::SCTP;
        let field = match v6 {
            false => {
                ethernet.ipv4(V4[0], V4[1], 9).write(&mut frame, other, payload).unwrap();
                9
            }
            true => {
                ethernet.ipv6(V6[0], V6[1], 9).write(&mut frame, other, payload).unwrap();
                6
            }
        };
        frame[ETHERNET + field] = protocol;
        frame
    }

    /// The frame behind so many tags.
    fn tagged(frame: &[u8], tags: usize) -> Vec<u8> {
        let mut tagged = frame[..12].to_vec();
        for tag in 0..tags {
            tagged.extend(if tag == 0 && tags == 2 { [0x88, 0xa8, 0, 7] } else { [0x81, 0, 0, 7] });
        }
        tagged.extend(&frame[12..]);
        tagged
    }

    /// The filters of both link types that frames are tried with.
    struct Filters {
        ethernet: [BpfProgram; 2],
        raw: [BpfProgram; 2],
    }

    impl Filters {
        fn new() -> Self {
            Self { ethernet: programs(LinkType::Ethernet), raw: programs(LinkType::Raw) }
        }

        /// Which of the parts take the frame: alike behind every number of tags, and without a link layer.
        fn parts(&self, frame: &[u8]) -> [bool; 2] {
            let of = |programs: &[BpfProgram; 2], octets: &[u8]| {
                [programs[0].filter(octets), programs[1].filter(octets)]
            };
            let plain = of(&self.ethernet, frame);
            for tags in 1..=2 {
                assert_eq!(of(&self.ethernet, &tagged(frame, tags)), plain, "{tags} tags");
            }
            assert_eq!(of(&self.raw, &frame[ETHERNET..]), plain, "raw");
            plain
        }
    }

    const OPENING: [bool; 2] = [true, false];
    const PACKET: [bool; 2] = [false, true];
    const NEITHER: [bool; 2] = [false; 2];

    #[test]
    fn sessions_that_begin_come_apart() {
        let filters = Filters::new();
        for (src, dst, flags, expected) in [
            (40_000, 25, 0x02, OPENING),
            (40_000, 587, 0x02, OPENING),
            (40_000, 2525, 0x02, OPENING),
            (25, 25, 0x02, OPENING),
            (25, 40_000, 0x12, PACKET),
            (40_000, 25, 0x12, PACKET),
            (40_000, 25, 0x10, PACKET),
            (25, 40_000, 0x10, PACKET),
            (40_000, 2525, 0x11, PACKET),
            (587, 40_000, 0x04, PACKET),
            // Whoever opens from there is no client of this site's mail.
            (25, 40_000, 0x02, PACKET),
            (40_000, 26, 0x02, NEITHER),
            (40_000, 80, 0x10, NEITHER),
        ] {
            for frame in tcp(src, dst, flags) {
                assert_eq!(
                    filters.parts(&frame),
                    expected,
                    "{src} {dst} {flags:#x} {}",
                    frame.len()
                );
            }
        }
    }

    #[test]
    fn what_explains_sessions_comes_too() {
        let filters = Filters::new();
        let octets = [0; 40];
        for kind in 0..=255 {
            let mut error = octets;
            error[0] = kind;
            let expected = if matches!(kind, 3 | 11 | 12) { PACKET } else { NEITHER };
            assert_eq!(filters.parts(&ip(false, 1, &error)), expected, "ICMP {kind}");
            let expected = if matches!(kind, 1..=4) { PACKET } else { NEITHER };
            assert_eq!(filters.parts(&ip(true, 58, &error)), expected, "ICMPv6 {kind}");
        }
        let udp =
            |src: u16, dst: u16| [src.to_be_bytes(), dst.to_be_bytes(), [0, 8], [0, 0]].concat();
        for v6 in [false, true] {
            assert_eq!(filters.parts(&ip(v6, 17, &udp(53, 4000))), PACKET);
            assert_eq!(filters.parts(&ip(v6, 17, &udp(4000, 53))), NEITHER);
            assert_eq!(filters.parts(&ip(v6, 132, &octets)), NEITHER);
        }
        for next in 0..=255 {
            // UDP and the like look at ports of 0.
            let expected = if matches!(next, 0 | 43 | 44 | 51 | 60) { PACKET } else { NEITHER };
            assert_eq!(filters.parts(&ip(true, next, &octets)), expected, "next header {next}");
        }
        let mut frame = ip(false, 47, &octets);
        frame[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&[0x20, 0]);
        assert_eq!(filters.parts(&frame), NEITHER, "the first fragment of something else");
        frame[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&[0, 1]);
        assert_eq!(filters.parts(&frame), PACKET, "not the first fragment");
        let arp = [&frame[..12], &[8, 6], &octets].concat();
        assert_eq!([0, 1].map(|part| filters.ethernet[part].filter(&arp)), NEITHER);
    }

    #[test]
    fn every_link_that_is_read_has_filters() {
        for link in [
            LinkType::Ethernet,
            LinkType::Raw,
            LinkType::Loopback,
            LinkType::LinuxCooked,
            LinkType::LinuxCooked2,
        ] {
            for program in programs(link) {
                // What the kernel takes (BPF_MAXINSNS).
                assert!(program.get_instructions().len() < 4096, "{link:?}");
            }
        }
    }
}
