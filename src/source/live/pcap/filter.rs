//! What libpcap's filter lets through, so that the kernel copies nothing else.
//!
//! pcap-filter(7). The filter cannot follow IPv6 extension headers (it has no loop), so packets that have any come whole; the
//! analyst sees what they are. VLAN tags are read by offsets: the word `vlan` moves all offsets behind it, and libpcap
//! 1.10 keeps them on a live capture in registers that it also uses for other sums.

use crate::wire::LinkType;

/// What of a packet a filter selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketClass {
    /// SYNs without ACK to a watched port: sessions that begin.
    Openings,
    /// All else that concerns SMTP.
    Packets,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
/// Hop-by-hop options, routing, fragment, authentication, destination options.
const EXTENSIONS: [u16; 5] = [0, 43, 44, 51, 60];
/// EtherTypes of VLAN tags.
const TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];

/// The expression for `part`. No packet is of both parts.
pub(super) fn filter(part: PacketClass, ports: &[u16], link: LinkType) -> String {
    let of = |ip: &IpOffset| match part {
        PacketClass::Openings => openings(ports, ip),
        PacketClass::Packets => packets(ports, ip),
    };
    let plain = of(&IpOffset::Plain);
    if link != LinkType::Ethernet {
        return plain;
    }
    let (one, two) = (of(&IpOffset::At(18)), of(&IpOffset::At(22)));
    let (outer, inner) = (any(&TAGS, &["ether[12:2]"]), any(&TAGS, &["ether[16:2]"]));
    format!("({plain}) or (({outer}) and (({one}) or (({inner}) and ({two}))))")
}

fn openings(ports: &[u16], ip: &IpOffset) -> String {
    let v4 = any(ports, &[&ip.v4_transport("tcp", 2, 2)]);
    let v6 = any(ports, &[&ip.v6(42, 2)]);
    let (v4_flags, v6_flags) = (ip.v4_transport("tcp", 13, 1), ip.v6(53, 1));
    format!(
        "({} and {v4_flags} & 0x12 = 0x02 and ({v4})) or ({} and {v6_flags} & 0x12 = 0x02 and ({v6}))",
        ip.v4_first(TCP),
        ip.v6_next(TCP),
    )
}

fn packets(ports: &[u16], ip: &IpOffset) -> String {
    let tcp = |at| ip.v4_transport("tcp", at, 2);
    let v4 = any(ports, &[&tcp(0), &tcp(2)]);
    let v6 = any(ports, &[&ip.v6(40, 2), &ip.v6(42, 2)]);
    let mail = format!(
        "(({} and ({v4})) or ({} and ({v6}))) and not ({})",
        ip.v4_first(TCP),
        ip.v6_next(TCP),
        openings(ports, ip),
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

/// Where the IP header is.
enum IpOffset {
    /// Where libpcap finds it.
    Plain,
    /// So many bytes into the frame, its EtherType before it.
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

    /// IPv4 and this protocol, not a later fragment of it.
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

    /// A field of the IPv6 header, or of what follows it at once.
    fn v6(&self, at: usize, length: usize) -> String {
        match self {
            Self::Plain => format!("ip6[{at}:{length}]"),
            Self::At(start) => format!("ether[{}:{length}]", start + at),
        }
    }
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
        [PacketClass::Openings, PacketClass::Packets]
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
        let bytes = [0; 40];
        for kind in 0..=255 {
            let mut error = bytes;
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
            assert_eq!(filters.parts(&ip(v6, 132, &bytes)), NEITHER);
        }
        for next in 0..=255 {
            // UDP and the like look at ports of 0.
            let expected = if matches!(next, 0 | 43 | 44 | 51 | 60) { PACKET } else { NEITHER };
            assert_eq!(filters.parts(&ip(true, next, &bytes)), expected, "next header {next}");
        }
        let mut frame = ip(false, 47, &bytes);
        frame[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&[0x20, 0]);
        assert_eq!(filters.parts(&frame), NEITHER, "the first fragment of something else");
        frame[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&[0, 1]);
        assert_eq!(filters.parts(&frame), PACKET, "not the first fragment");
        let arp = [&frame[..12], &[8, 6], &bytes].concat();
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
