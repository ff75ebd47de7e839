//! Loads, configures and attaches the programs of `src/bpf`.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::links::LinkOrder;
use aya::programs::tc::{SchedClassifierLinkId, TcAttachOptions, TcError};
use aya::programs::{BtfTracePoint, ProgramError, SchedClassifier, tc};
use aya::util::KernelVersion;
use aya::{Btf, EbpfLoader, include_bytes_aligned};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::resource::{Resource, rlim_t, setrlimit};

use super::error::EbpfError;
use super::netlink::{PacketDirection, RouteNetlink};
use super::order::{self, ChainPosition, Place, ProgramMark, lowest_preference};
use super::record::SEEN_INTERFACES;
use super::slot::{self, FilterSlot, PROGRAM_NAMES};
use crate::source::capabilities::EffectiveCapabilities;
use crate::source::interface::WatchedInterface;
use crate::source::kind::SourceKind;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watch.bpf.o"));

/// Minimum bytes of the ring of packets: two records of maximum length.
const MIN_RING: usize = 256 << 10;

/// Maximum bytes of the ring of packets, which every kernel accepts.
const MAX_RING: usize = 1 << 30;

/// How programs are attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttachMethod {
    /// tcx (Linux 6.6): the kernel detaches the programs when the process ends.
    Tcx,
    /// Filters of the clsact qdisc, through netlink. They remain if the process is killed; see [`FilterSlot`].
    Netlink,
}

/// A program on an interface, in one direction.
struct Attachment {
    interface: String,
    index: u32,
    direction: PacketDirection,
    /// Its name in the object file.
    name: &'static str,
    /// Its number in the kernel.
    id: u32,
    link: Option<SchedClassifierLinkId>,
}

impl Attachment {
    fn place(&self) -> Place<'_> {
        let Self { interface, index, direction, id, .. } = self;
        Place { interface, index: *index, direction: *direction, program: *id }
    }
}

/// The attached programs and their maps. Dropping them removes both from the kernel.
pub(super) struct Programs {
    pub(super) syns: RingBuf<MapData>,
    pub(super) packets: RingBuf<MapData>,
    pub(super) lost: PerCpuArray<MapData, u64>,
    seen: PerCpuArray<MapData, u64>,
    /// Why there are no socket events.
    pub(super) no_socket_events: Option<String>,
    attached: Vec<Attachment>,
    /// `None` until the first program is attached.
    method: Option<AttachMethod>,
    /// Of the programs, for other gateposts.
    marks: HashMap<u32, Option<ProgramMark>>,
    /// Declared before the slot, so that the filters are removed first.
    kernel: aya::Ebpf,
    slot: Option<FilterSlot>,
}

impl Programs {
    /// Without a method, tcx is tried: distributions have it in older kernels, too.
    pub(super) fn start(
        interfaces: &[WatchedInterface],
        ports: &[u16],
        buffer: usize,
        method: Option<AttachMethod>,
        netlink: &RouteNetlink,
    ) -> Result<Self, EbpfError> {
        let capabilities = EffectiveCapabilities::of_this_thread();
        if let Some(missing) = capabilities.missing_for(SourceKind::Ebpf) {
            return Err(EbpfError::Capabilities(missing));
        }
        // Also before tcx is used: an earlier process may have had other rights or another kernel's features. What cannot be
        // removed does not prevent the capture.
        let _leftovers = slot::remove_leftovers(netlink);
        let (mut kernel, mut no_socket_events) = load(ports, buffer)?;
        let syns = ring(&mut kernel, "syns")?;
        let packets = ring(&mut kernel, "packets")?;
        let (lost, seen) = (counters(&mut kernel, "lost")?, counters(&mut kernel, "seen")?);
        if no_socket_events.is_none() {
            no_socket_events = match capabilities.missing_for_socket_events() {
                Some(capability) => Some(format!("{capability} is missing, see capabilities(7)")),
                None => trace(&mut kernel).err().map(|error| error.to_string()),
            };
        }
        let mut programs = Self {
            syns,
            packets,
            lost,
            seen,
            no_socket_events,
            attached: Vec::new(),
            method,
            marks: HashMap::new(),
            kernel,
            slot: None,
        };
        for interface in interfaces {
            programs.attach_all(interface, netlink)?;
        }
        Ok(programs)
    }

    /// Packets that the programs saw on an interface.
    pub(super) fn seen(&self, index: u32, direction: PacketDirection) -> Option<u64> {
        let counter = index % SEEN_INTERFACES * 2 + direction as u32;
        Some(self.seen.get(&counter, 0).ok()?.iter().sum())
    }

    /// The directions in which an interface has a program of ours.
    pub(super) fn places(&self) -> impl Iterator<Item = Place<'_>> {
        self.attached.iter().map(Attachment::place)
    }

    pub(super) fn interface_name(&self, index: u32) -> Option<&str> {
        let place = self.places().find(|place| place.index == index);
        place.map(|place| place.interface)
    }

    /// Detaches all programs for packets; what they have submitted can still be read.
    pub(super) fn detach(&mut self) {
        for attachment in std::mem::take(&mut self.attached) {
            if let Some(link) = attachment.link
                && let Ok(program) = classifier(&mut self.kernel, attachment.name)
            {
                let _detached_when_dropped = program.take_link(link);
            }
        }
    }

    /// The position of each program among others. `None` if the kernel does not tell.
    pub(super) fn positions(
        &self,
        netlink: &RouteNetlink,
    ) -> impl Iterator<Item = (Place<'_>, Option<ChainPosition>)> {
        self.places().map(|place| (place, order::position(place, self.slot.as_ref(), netlink)))
    }

    /// Attaches a program again that someone else detached.
    pub(super) fn attach_again(
        &mut self,
        index: u32,
        direction: PacketDirection,
        netlink: &RouteNetlink,
    ) -> Result<(), EbpfError> {
        let is_it = |one: &Attachment| one.index == index && one.direction == direction;
        let Some(position) = self.attached.iter().position(is_it) else { return Ok(()) };
        let mut attachment = self.attached.swap_remove(position);
        if let Some(link) = attachment.link.take() {
            // Dropped, as it leads nowhere.
            let _link = classifier(&mut self.kernel, attachment.name)?.take_link(link);
        }
        let result = self.attach(&mut attachment, netlink);
        self.attached.push(attachment);
        result
    }

    fn attach_all(
        &mut self,
        interface: &WatchedInterface,
        netlink: &RouteNetlink,
    ) -> Result<(), EbpfError> {
        let link = LinkLayer::of(&interface.name);
        for &direction in link.directions() {
            let mut attachment = Attachment {
                interface: interface.name.clone(),
                index: interface.index,
                direction,
                name: link.program(direction),
                id: 0,
                link: None,
            };
            self.attach(&mut attachment, netlink)?;
            self.attached.push(attachment);
        }
        Ok(())
    }

    /// Attaches a program before those of others where the kernel allows it.
    fn attach(
        &mut self,
        attachment: &mut Attachment,
        netlink: &RouteNetlink,
    ) -> Result<(), EbpfError> {
        let Attachment { interface, index, direction, .. } = attachment;
        let (interface, index, direction) = (interface.as_str(), *index, *direction);
        let removed = || EbpfError::InterfaceRemoved { name: interface.to_owned() };
        if if_nametoindex(interface).ok() != Some(index) {
            return Err(removed());
        }
        let program = classifier(&mut self.kernel, attachment.name)?;
        attachment.id = program.info().map_err(|error| refused(LOAD, &error))?.id();
        // A program without a mark is taken for foreign by other gateposts, which then only warn.
        self.marks.entry(attachment.id).or_insert_with(|| ProgramMark::set(attachment.id).ok());
        let failed = |error: &ProgramError| {
            // It may have been removed just now.
            if if_nametoindex(interface).is_err() { removed() } else { refused(ATTACH, error) }
        };
        if self.method != Some(AttachMethod::Netlink) {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            match program.attach_with_options(interface, direction.into(), options) {
                Ok(link) => {
                    attachment.link = Some(link);
                    self.method = Some(AttachMethod::Tcx);
                    return Ok(());
                }
                Err(error) if self.method.is_none() && lacks_tcx(&error) => {
                    self.method = Some(AttachMethod::Netlink);
                }
                Err(error) => return Err(failed(&error)),
            }
        }
        clsact(interface, index, netlink)?;
        let slot = match self.slot.take() {
            Some(slot) => slot,
            None => FilterSlot::acquire()?,
        };
        let slot = self.slot.insert(slot);
        let filters = netlink.filters(index, direction).map_err(|error| refused(ATTACH, &error))?;
        let options = TcAttachOptions::Netlink(slot.options(lowest_preference(&filters)));
        let attached = program.attach_with_options(interface, direction.into(), options);
        attachment.link = Some(attached.map_err(|error| failed(&error))?);
        Ok(())
    }
}

/// Whether the kernel has no tcx, as before Linux 6.6: it knows this kind of attachment not at all.
fn lacks_tcx(error: &ProgramError) -> bool {
    const E2BIG: i32 = 7;
    const EINVAL: i32 = 22;
    const EOPNOTSUPP: i32 = 95;
    let ProgramError::SyscallError(error) = error else { return false };
    matches!(error.io_error.raw_os_error(), Some(E2BIG | EINVAL | EOPNOTSUPP))
}

const LOAD: &str = "load the packet programs";
const MAPS: &str = "create the maps of the packet programs";
const ATTACH: &str = "attach programs to an interface";
const TRACE: &str = "trace socket states";

fn refused<E: std::error::Error + 'static>(operation: &'static str, error: &E) -> EbpfError {
    EbpfError::refused(operation, error)
}

/// The error for a program or map that the object file does not contain.
fn missing(part: &str) -> EbpfError {
    EbpfError::Unsupported { operation: LOAD, reason: format!("`{part}` is missing") }
}

/// Link layer of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkLayer {
    Ethernet,
    /// Ethernet header, too. Every packet is both sent and received here, so one direction suffices.
    Loopback,
    /// Packets start with the IP header.
    None,
}

impl LinkLayer {
    /// By the device type of netdevice(7) (`ARPHRD_` in linux/if_arp.h). A device without a link-layer address is not
    /// Ethernet.
    fn of(name: &str) -> Self {
        const ETHER: u16 = 1;
        const LOOPBACK: u16 = 772;
        let kind = getifaddrs().ok().and_then(|mut interfaces| {
            interfaces.find_map(|interface| {
                let is_it = interface.interface_name == name;
                interface.address.filter(|_| is_it)?.as_link_addr().map(|link| link.hatype())
            })
        });
        match kind {
            Some(ETHER) => Self::Ethernet,
            Some(LOOPBACK) => Self::Loopback,
            _ => Self::None,
        }
    }

    const fn program(self, direction: PacketDirection) -> &'static str {
        let [frame_in, frame_out, ip_in, ip_out] = PROGRAM_NAMES;
        match (self, direction) {
            (Self::Ethernet | Self::Loopback, PacketDirection::In) => frame_in,
            (Self::Ethernet | Self::Loopback, PacketDirection::Out) => frame_out,
            (Self::None, PacketDirection::In) => ip_in,
            (Self::None, PacketDirection::Out) => ip_out,
        }
    }

    const fn directions(self) -> &'static [PacketDirection] {
        match self {
            Self::Loopback => &[PacketDirection::In],
            Self::Ethernet | Self::None => &PacketDirection::ALL,
        }
    }
}

/// Creates the maps in the kernel. Also returns why there will be no socket events, if so.
fn load(ports: &[u16], buffer: usize) -> Result<(aya::Ebpf, Option<String>), EbpfError> {
    raise_memlock_limit();
    let mut watched = [0_u64; 1024];
    for &port in ports {
        if let Some(word) = watched.get_mut(usize::from(port >> 6)) {
            *word |= 1 << (port & 63);
        }
    }
    let size = ring_size(buffer);
    let quarter = size / 4;
    let netns = own_netns();
    let load = |btf: Option<&Btf>| {
        EbpfLoader::new()
            .btf(btf)
            .override_global("watched_ports", watched.as_slice(), true)
            .override_global("packets_quarter", &quarter, true)
            .override_global("own_netns", &netns.unwrap_or_default(), true)
            .map_max_entries("packets", size)
            .load(OBJECT)
    };
    // Only the program for socket events accesses kernel structures and needs BTF.
    let (btf, mut no_socket_events) = match Btf::from_sys_fs() {
        Ok(btf) => (Some(btf), None),
        Err(error) => (None, Some(format!("the kernel has no type information (BTF): {error}"))),
    };
    if netns.is_none() {
        no_socket_events = Some("/proc does not show the network namespace".to_owned());
    }
    let kernel = match load(btf.as_ref()) {
        Err(aya::EbpfError::BtfRelocationError(error)) => {
            no_socket_events = Some(format!("unexpected kernel structures: {error}"));
            load(None)
        }
        result => result,
    };
    Ok((kernel.map_err(|error| refused(MAPS, &error))?, no_socket_events))
}

/// The largest size within `buffer` that a ring can have: a power of two.
fn ring_size(buffer: usize) -> u32 {
    let size = buffer.clamp(MIN_RING, MAX_RING);
    u32::try_from(1_usize << size.ilog2()).unwrap_or(MIN_RING as u32)
}

/// Before Linux 5.11 maps count as locked memory of the process.
fn raise_memlock_limit() {
    if KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(5, 11, 0)) {
        // If this fails, the creation of the maps reports it.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, rlim_t::MAX, rlim_t::MAX);
    }
}

/// Inode number of this thread's network namespace, which identifies its sockets in the kernel.
fn own_netns() -> Option<u32> {
    let inode = std::fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
    u32::try_from(inode).ok()
}

fn counters(kernel: &mut aya::Ebpf, name: &str) -> Result<PerCpuArray<MapData, u64>, EbpfError> {
    let map = kernel.take_map(name).ok_or_else(|| missing(name))?;
    PerCpuArray::try_from(map).map_err(|error| refused(MAPS, &error))
}

fn ring(kernel: &mut aya::Ebpf, name: &str) -> Result<RingBuf<MapData>, EbpfError> {
    let map = kernel.take_map(name).ok_or_else(|| missing(name))?;
    RingBuf::try_from(map).map_err(|error| refused(MAPS, &error))
}

/// Loads the program `name` unless it is loaded.
fn classifier<'a>(
    kernel: &'a mut aya::Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, EbpfError> {
    let program = kernel.program_mut(name).ok_or_else(|| missing(name))?;
    let program: &mut SchedClassifier =
        program.try_into().map_err(|error: ProgramError| refused(LOAD, &error))?;
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
        Err(error) => Err(refused(LOAD, &error)),
    }
}

fn trace(kernel: &mut aya::Ebpf) -> Result<(), EbpfError> {
    let program = kernel.program_mut("watch_socket").ok_or_else(|| missing("watch_socket"))?;
    let traced = |program: &mut aya::programs::Program| {
        let program: &mut BtfTracePoint = program.try_into()?;
        program.load("inet_sock_set_state", &Btf::from_sys_fs()?)?;
        program.attach()
    };
    traced(program).map(drop).map_err(|error: ProgramError| refused(TRACE, &error))
}

/// Adds the clsact qdisc, which the filters need, unless it exists. The qdisc `ingress` would take its place.
fn clsact(interface: &str, index: u32, netlink: &RouteNetlink) -> Result<(), EbpfError> {
    const EEXIST: i32 = 17;
    let qdiscs = netlink.ingress_qdiscs().map_err(|error| refused(ATTACH, &error))?;
    match qdiscs.iter().find(|(known, _)| *known == index) {
        Some((_, kind)) if kind == "clsact" => return Ok(()),
        Some(_) => return Err(EbpfError::IngressQdisc { name: interface.to_owned() }),
        None => {}
    }
    match tc::qdisc_add_clsact(interface) {
        Ok(()) | Err(TcError::AlreadyAttached) => Ok(()),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(EEXIST) => Ok(()),
        Err(error) => Err(refused(ATTACH, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_stays_within_the_buffer() {
        for (buffer, size) in [
            (0, MIN_RING),
            (64 << 10, MIN_RING),
            (64 << 20, 64 << 20),
            ((64 << 20) - 1, 32 << 20),
            (100 << 20, 64 << 20),
            (4 << 30, MAX_RING),
        ] {
            assert_eq!(ring_size(buffer) as usize, size, "{buffer}");
        }
    }
}
