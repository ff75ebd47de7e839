//! libpcap filter expressions (pcap-filter(7)), so that the kernel copies only relevant packets.
//!
//! A filter has no loop and cannot skip IPv6 extension headers, so packets with any are all captured and classified later.
//! VLAN tags are matched by offset: the keyword `vlan` shifts all later offsets, and libpcap 1.10 keeps them on a live
//! capture in registers that it also uses for other computations.

use crate::wire::LinkType;

/// The two disjoint classes of captured packets, one handle each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketClass {
    /// SYNs without ACK to a watched port.
    Syns,
    /// All other packets relevant to SMTP.
    Others,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Hop-by-hop options, routing, fragment, authentication, destination options.
const EXTENSIONS: [u16; 5] = [0, 43, 44, 51, 60];
/// EtherTypes of VLAN tags.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// The filter expression for `class`. No packet matches both classes.
pub(super) fn filter(class: PacketClass, ports: &[u16], link: LinkType) -> String {
    let of = |ip: &IpOffset| match class {
        PacketClass::Syns => syns(ports, ip),
        PacketClass::Others => others(ports, ip),
    };
    let plain = of(&IpOffset::Plain);
    if link != LinkType::Ethernet {
        return plain;
    }
    let (one, two) = (of(&IpOffset::At(18)), of(&IpOffset::At(22)));
    let (outer, inner) = (any(&TAGS, &["ether[12:2]"]), any(&TAGS, &["ether[16:2]"]));
    format!("({plain}) or (({outer}) and (({one}) or (({inner}) and ({two}))))")
}

fn syns(ports: &[u16], ip: &IpOffset) -> String {
    let v4 = any(ports, &[&ip.v4_transport("tcp", 2, 2)]);
    let v6 = any(ports, &[&ip.v6(42, 2)]);
    let (v4_flags, v6_flags) = (ip.v4_transport("tcp", 13, 1), ip.v6(53, 1));
    format!(
        "({} and {v4_flags} & 0x12 = 0x02 and ({v4})) or ({} and {v6_flags} & 0x12 = 0x02 and ({v6}))",
        ip.v4_first(TCP),
        ip.v6_next(TCP),
    )
}

fn others(ports: &[u16], ip: &IpOffset) -> String {
    let tcp = |at| ip.v4_transport("tcp", at, 2);
    let v4 = any(ports, &[&tcp(0), &tcp(2)]);
    let v6 = any(ports, &[&ip.v6(40, 2), &ip.v6(42, 2)]);
    let mail = format!(
        "(({} and ({v4})) or ({} and ({v6}))) and not ({})",
        ip.v4_first(TCP),
        ip.v6_next(TCP),
        syns(ports, ip),
    );
    // Errors of ICMP and ICMPv6.
    let errors = format!(
        "({} and ({})) or ({} and {kind} >= 1 and {kind} <= 4)",
        ip.v4_first(1),
        any(&[3, 11, 12], &[&ip.v4_transport("icmp", 0, 1)]),
        ip.v6_next(58),
        kind = ip.v6(40, 1),
    );
    // DNS answers.
    let names = format!(
        "({} and {} = 53) or ({} and {} = 53)",
        ip.v4_first(UDP),
        ip.v4_transport("udp", 0, 2),
        ip.v6_next(UDP),
        ip.v6(40, 2),
    );
    let fragments = format!("({} and {} & 0x1fff != 0)", ip.is_v4(), ip.v4(6, 2));
    let extended = format!("({} and ({}))", ip.is_v6(), any(&EXTENSIONS, &[&ip.v6(6, 1)]));
    format!("({mail}) or {errors} or {names} or {fragments} or {extended}")
}

/// Position of the IP header.
enum IpOffset {
    /// After the link-layer header, as determined by libpcap.
    Plain,
    /// At this offset of the frame, directly after the EtherType.
    At(usize),
}

impl IpOffset {
    fn is_v4(&self) -> String {
        match self {
            Self::Plain => "ip".to_owned(),
            Self::At(start) => format!("ether[{}:2] = 0x0800", start - 2),
        }
    }

    fn is_v6(&self) -> String {
        match self {
            Self::Plain => "ip6".to_owned(),
            Self::At(start) => format!("ether[{}:2] = 0x86dd", start - 2),
        }
    }

    /// IPv4 with this protocol, except later fragments.
    fn v4_first(&self, protocol: u8) -> String {
        let (number, fragment) = (self.v4(9, 1), self.v4(6, 2));
        format!("{} and {number} = {protocol} and {fragment} & 0x1fff = 0", self.is_v4())
    }

    /// IPv6 with this next header.
    fn v6_next(&self, next: u8) -> String {
        format!("{} and {} = {next}", self.is_v6(), self.v6(6, 1))
    }

    /// A field of the IPv4 header.
    fn v4(&self, at: usize, length: usize) -> String {
        match self {
            Self::Plain => format!("ip[{at}:{length}]"),
            Self::At(start) => format!("ether[{}:{length}]", start + at),
        }
    }

    /// A field of the header that follows an IPv4 header.
    fn v4_transport(&self, name: &str, at: usize, length: usize) -> String {
        match self {
            Self::Plain => format!("{name}[{at}:{length}]"),
            Self::At(start) => {
                format!("ether[{} + 4 * (ether[{start}] & 0x0f):{length}]", start + at)
            }
        }
    }

    /// A field of the IPv6 header, or of the header directly after it.
    fn v6(&self, at: usize, length: usize) -> String {
        match self {
            Self::Plain => format!("ip6[{at}:{length}]"),
            Self::At(start) => format!("ether[{}:{length}]", start + at),
        }
    }
}

/// Matches if any of the fields has any of the values.
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

    /// The filters of both classes.
    fn programs(link: LinkType) -> [BpfProgram; 2] {
        // libpcap's number for raw IP differs from the registry.
        let number = if link == LinkType::Raw { 12 } else { link.number() };
        let dead = Capture::dead(Linktype(i32::from(number))).unwrap();
        [PacketClass::Syns, PacketClass::Others]
            .map(|class| dead.compile(&filter(class, &PORTS, link), true).unwrap())
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
        // The builder would write extension headers itself, so the protocol is set afterwards.
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

    /// `frame` with this many VLAN tags.
    fn tagged(frame: &[u8], tags: usize) -> Vec<u8> {
        let mut tagged = frame[..12].to_vec();
        for tag in 0..tags {
            tagged.extend(if tag == 0 && tags == 2 { [0x88, 0xa8, 0, 7] } else { [0x81, 0, 0, 7] });
        }
        tagged.extend(&frame[12..]);
        tagged
    }

    /// The filters of the two link types under test.
    struct Filters {
        ethernet: [BpfProgram; 2],
        raw: [BpfProgram; 2],
    }

    impl Filters {
        fn new() -> Self {
            Self { ethernet: programs(LinkType::Ethernet), raw: programs(LinkType::Raw) }
        }

        /// Which classes match the frame; asserts that VLAN tags and a missing link layer make no difference.
        fn classes(&self, frame: &[u8]) -> [bool; 2] {
            let of = |programs: &[BpfProgram; 2], bytes: &[u8]| {
                [programs[0].filter(bytes), programs[1].filter(bytes)]
            };
            let plain = of(&self.ethernet, frame);
            for tags in 1..=2 {
                assert_eq!(of(&self.ethernet, &tagged(frame, tags)), plain, "{tags} tags");
            }
            assert_eq!(of(&self.raw, &frame[ETHERNET..]), plain, "raw");
            plain
        }
    }

    const SYN: [bool; 2] = [true, false];
    const OTHER: [bool; 2] = [false, true];
    const NEITHER: [bool; 2] = [false; 2];

    #[test]
    fn syns_are_a_class_of_their_own() {
        let filters = Filters::new();
        for (src, dst, flags, expected) in [
            (40_000, 25, 0x02, SYN),
            (40_000, 587, 0x02, SYN),
            (40_000, 2525, 0x02, SYN),
            (25, 25, 0x02, SYN),
            (25, 40_000, 0x12, OTHER),
            (40_000, 25, 0x12, OTHER),
            (40_000, 25, 0x10, OTHER),
            (25, 40_000, 0x10, OTHER),
            (40_000, 2525, 0x11, OTHER),
            (587, 40_000, 0x04, OTHER),
            // A connection from a watched port is no SMTP session.
            (25, 40_000, 0x02, OTHER),
            (40_000, 26, 0x02, NEITHER),
            (40_000, 80, 0x10, NEITHER),
        ] {
            for frame in tcp(src, dst, flags) {
                assert_eq!(
                    filters.classes(&frame),
                    expected,
                    "{src} {dst} {flags:#x} {}",
                    frame.len()
                );
            }
        }
    }

    #[test]
    fn related_packets_are_captured() {
        let filters = Filters::new();
        let bytes = [0; 40];
        for kind in 0..=255 {
            let mut error = bytes;
            error[0] = kind;
            let expected = if matches!(kind, 3 | 11 | 12) { OTHER } else { NEITHER };
            assert_eq!(filters.classes(&ip(false, 1, &error)), expected, "ICMP {kind}");
            let expected = if matches!(kind, 1..=4) { OTHER } else { NEITHER };
            assert_eq!(filters.classes(&ip(true, 58, &error)), expected, "ICMPv6 {kind}");
        }
        let udp =
            |src: u16, dst: u16| [src.to_be_bytes(), dst.to_be_bytes(), [0, 8], [0, 0]].concat();
        for v6 in [false, true] {
            assert_eq!(filters.classes(&ip(v6, 17, &udp(53, 4000))), OTHER);
            assert_eq!(filters.classes(&ip(v6, 17, &udp(4000, 53))), NEITHER);
            assert_eq!(filters.classes(&ip(v6, 132, &bytes)), NEITHER);
        }
        for next in 0..=255 {
            // For UDP and others the ports are 0.
            let expected = if matches!(next, 0 | 43 | 44 | 51 | 60) { OTHER } else { NEITHER };
            assert_eq!(filters.classes(&ip(true, next, &bytes)), expected, "next header {next}");
        }
        let mut frame = ip(false, 47, &bytes);
        frame[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&[0x20, 0]);
        assert_eq!(filters.classes(&frame), NEITHER, "the first fragment of another protocol");
        frame[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&[0, 1]);
        assert_eq!(filters.classes(&frame), OTHER, "not the first fragment");
        let arp = [&frame[..12], &[8, 6], &bytes].concat();
        assert_eq!([0, 1].map(|class| filters.ethernet[class].filter(&arp)), NEITHER);
    }

    #[test]
    fn every_supported_link_type_has_filters() {
        for link in [
            LinkType::Ethernet,
            LinkType::Raw,
            LinkType::Loopback,
            LinkType::LinuxCooked,
            LinkType::LinuxCooked2,
        ] {
            for program in programs(link) {
                // The kernel's limit (BPF_MAXINSNS).
                assert!(program.get_instructions().len() < 4096, "{link:?}");
            }
        }
    }
}
