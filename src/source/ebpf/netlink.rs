//! Blocking dumps of rtnetlink(7): qdiscs, filters and the counters of interfaces.
//!
//! The capture has a thread without an async runtime. Attributes are read by hand, because a filter of a kind that a library
//! does not know must not hide the others.

use std::io;

use aya::programs::TcAttachType;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// PacketDirection of packets on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PacketDirection {
    In,
    Out,
}

impl PacketDirection {
    pub(super) const ALL: [Self; 2] = [Self::In, Self::Out];

    /// The direction, to follow "packets that".
    pub(super) const fn verb(self) -> &'static str {
        match self {
            Self::In => "arrive",
            Self::Out => "leave",
        }
    }

    /// The parent of filters in linux/pkt_sched.h: `TC_H_CLSACT` with `TC_H_MIN_INGRESS` or `TC_H_MIN_EGRESS`.
    const fn parent(self) -> u32 {
        match self {
            Self::In => 0xffff_fff2,
            Self::Out => 0xffff_fff3,
        }
    }
}

impl From<PacketDirection> for TcAttachType {
    fn from(direction: PacketDirection) -> Self {
        match direction {
            PacketDirection::In => Self::Ingress,
            PacketDirection::Out => Self::Egress,
        }
    }
}

/// The place of the qdiscs `ingress` and `clsact`, of which an interface can have one: `TC_H_INGRESS`.
const INGRESS_PARENT: u32 = 0xffff_fff1;

/// A filter of clsact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) preference: u16,
    /// In network byte order.
    pub(super) protocol: u16,
    pub(super) kind: String,
    pub(super) handle: u32,
    pub(super) chain: u32,
    /// Of kind `bpf`: the name given when it was attached.
    pub(super) name: Option<String>,
}

/// `ETH_P_ALL` in network byte order: the protocol of filters for all packets.
pub(super) const ALL_PROTOCOLS: u16 = 3_u16.to_be();

/// Counters of an interface, and its XDP program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkCounters {
    pub(super) index: u32,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) xdp: Option<u32>,
}

/// A connection to the kernel in the network namespace of the thread that opened it.
pub(super) struct RouteNetlink {
    socket: Socket,
}

// linux/rtnetlink.h and linux/netlink.h.
const RTM_GETLINK: u16 = 18;
const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
/// `sizeof(struct nlmsghdr)`
const HEADER: usize = 16;
/// `sizeof(struct tcmsg)`
const TCMSG: usize = 20;
/// `sizeof(struct ifinfomsg)`
const IFINFOMSG: usize = 16;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_CHAIN: u16 = 11;
const TCA_BPF_NAME: u16 = 7;
const IFLA_STATS64: u16 = 23;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const IFLA_XDP_PROG_ID: u16 = 4;

impl RouteNetlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// The name of the qdisc in the place of clsact, of each interface that has one.
    pub(super) fn ingress_qdiscs(&self) -> io::Result<Vec<(u32, String)>> {
        let mut found = Vec::new();
        self.dump(RTM_GETQDISC, &[0; TCMSG], |message| {
            let (Some(index), Some(parent)) = (u32_at(message, 4), u32_at(message, 12)) else {
                return;
            };
            if parent == INGRESS_PARENT
                && let Some(kind) = attributes(message, TCMSG).find(|(kind, _)| *kind == TCA_KIND)
            {
                found.push((index, text(kind.1)));
            }
        })?;
        Ok(found)
    }

    /// The filters of one direction of an interface, in the order in which they run; none without clsact.
    pub(super) fn filters(
        &self,
        index: u32,
        direction: PacketDirection,
    ) -> io::Result<Vec<Filter>> {
        let mut request = [0; TCMSG];
        put(&mut request, 4, index);
        put(&mut request, 12, direction.parent());
        let mut filters = Vec::new();
        self.dump(RTM_GETTFILTER, &request, |message| filters.extend(filter(message)))?;
        Ok(filters)
    }

    pub(super) fn link_counters(&self) -> io::Result<Vec<LinkCounters>> {
        let mut links = Vec::new();
        self.dump(RTM_GETLINK, &[0; IFINFOMSG], |message| links.extend(link(message)))?;
        Ok(links)
    }

    /// Calls `visit` with each message of the answer, without its netlink header.
    fn dump(&self, kind: u16, request: &[u8], mut visit: impl FnMut(&[u8])) -> io::Result<()> {
        let length = HEADER + request.len();
        let mut message = Vec::with_capacity(length);
        message.extend(u32::try_from(length).unwrap_or_default().to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(request);
        self.socket.send(&message, 0)?;
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            if rest.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            while let (Some(length), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                let Some(body) = rest.get(HEADER..length) else {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                };
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        let code = u32_at(body, 0).unwrap_or_default().cast_signed();
                        return match code {
                            0 => Ok(()),
                            code => Err(io::Error::from_raw_os_error(-code)),
                        };
                    }
                    _ => visit(body),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// `None` for the messages about a preference itself, which have no handle.
fn filter(message: &[u8]) -> Option<Filter> {
    let (handle, info) = (u32_at(message, 8)?, u32_at(message, 16)?);
    if handle == 0 {
        return None;
    }
    let mut filter = Filter {
        preference: (info >> 16) as u16,
        protocol: info as u16,
        kind: String::new(),
        handle,
        chain: 0,
        name: None,
    };
    for (kind, value) in attributes(message, TCMSG) {
        match kind {
            TCA_KIND => filter.kind = text(value),
            TCA_CHAIN => filter.chain = u32_at(value, 0)?,
            TCA_OPTIONS if filter.kind == "bpf" => {
                let name = attributes(value, 0).find(|(kind, _)| *kind == TCA_BPF_NAME);
                filter.name = name.map(|(_, name)| text(name));
            }
            _ => {}
        }
    }
    Some(filter)
}

fn link(message: &[u8]) -> Option<LinkCounters> {
    let mut counters = LinkCounters { index: u32_at(message, 4)?, received: 0, sent: 0, xdp: None };
    let mut is_counted = false;
    for (kind, value) in attributes(message, IFINFOMSG) {
        match kind {
            // struct rtnl_link_stats64
            IFLA_STATS64 => {
                (counters.received, counters.sent) = (u64_at(value, 0)?, u64_at(value, 8)?);
                is_counted = true;
            }
            IFLA_XDP => {
                let find = |wanted| attributes(value, 0).find(|(kind, _)| *kind == wanted);
                let is_attached = find(IFLA_XDP_ATTACHED).is_some_and(|(_, value)| value != [0]);
                let program = find(IFLA_XDP_PROG_ID).and_then(|(_, value)| u32_at(value, 0));
                counters.xdp = program.filter(|_| is_attached);
            }
            _ => {}
        }
    }
    is_counted.then_some(counters)
}

/// The attributes after the first `skip` bytes: their type without flags, and their value. Ends at a damaged one.
fn attributes(message: &[u8], skip: usize) -> impl Iterator<Item = (u16, &[u8])> {
    const FLAGS: u16 = 0xc000;
    let mut rest = message.get(skip..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)? & !FLAGS;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn text(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&value.to_ne_bytes());
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u16::from_ne_bytes(bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn filters_of_any_kind_are_read() {
        let message = |handle: u32, attributes: &[u8]| {
            let mut message = vec![0; TCMSG];
            put(&mut message, 8, handle);
            put(&mut message, 16, 25 << 16 | u32::from(ALL_PROTOCOLS));
            message.extend(attributes);
            message
        };
        let options = attribute(TCA_OPTIONS, &attribute(TCA_BPF_NAME, b"watch_frame_in\0"));
        let bpf = [attribute(TCA_KIND, b"bpf\0"), options].concat();
        let found = filter(&message(7, &bpf)).unwrap();
        assert_eq!((found.preference, found.protocol), (25, ALL_PROTOCOLS));
        assert_eq!((found.handle, found.name.as_deref()), (7, Some("watch_frame_in")));
        // Options of another kind are not read, and a damaged attribute ends the list.
        let strange = [
            attribute(TCA_KIND, b"strange\0"),
            attribute(TCA_CHAIN, &5_u32.to_ne_bytes()),
            attribute(TCA_OPTIONS, b"\xff\xff\xff\xff\xff"),
            vec![200, 0, 1, 0],
        ];
        let found = filter(&message(1, &strange.concat())).unwrap();
        assert_eq!((found.kind.as_str(), found.chain, found.name), ("strange", 5, None));
        assert_eq!(filter(&message(0, &bpf)), None);
        for cut in 0..TCMSG {
            assert_eq!(filter(&message(1, &bpf)[..cut]), None);
        }
    }

    #[test]
    fn counters_and_xdp_programs_are_read() {
        let stats: Vec<u8> = [3_u64, 5, 0, 0].iter().flat_map(|n| n.to_ne_bytes()).collect();
        let xdp = |attached: u8| {
            let program = attribute(IFLA_XDP_PROG_ID, &9_u32.to_ne_bytes());
            attribute(IFLA_XDP, &[attribute(IFLA_XDP_ATTACHED, &[attached]), program].concat())
        };
        let message = |attributes: Vec<u8>| {
            let mut message = vec![0; IFINFOMSG];
            put(&mut message, 4, 2);
            message.extend(attributes);
            message
        };
        let counters = LinkCounters { index: 2, received: 3, sent: 5, xdp: Some(9) };
        let both = [attribute(IFLA_STATS64, &stats), xdp(1)].concat();
        assert_eq!(link(&message(both)), Some(counters));
        let none = [attribute(IFLA_STATS64, &stats), xdp(0)].concat();
        assert_eq!(link(&message(none)), Some(LinkCounters { xdp: None, ..counters }));
        assert_eq!(link(&message(xdp(1))), None);
        assert_eq!(link(&message(attribute(IFLA_STATS64, &stats[..8]))), None);
    }
}
