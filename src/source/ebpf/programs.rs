//! Loads, configures and attaches the programs of `src/bpf`.

use std::os::unix::fs::MetadataExt as _;

use aya::maps::{MapData, PerCpuArray, RingBuf};
use aya::programs::links::LinkOrder;
use aya::programs::tc::{TcAttachOptions, TcError};
use aya::programs::{BtfTracePoint, ProgramError, SchedClassifier, TcAttachType, tc};
use aya::util::KernelVersion;
use aya::{Btf, EbpfLoader, include_bytes_aligned};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::resource::{Resource, rlim_t, setrlimit};

use super::error::EbpfError;
use super::slot::FilterSlot;
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

impl AttachMethod {
    pub(super) fn of_this_kernel() -> Self {
        let has_tcx =
            KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0));
        if has_tcx { Self::Tcx } else { Self::Netlink }
    }
}

/// The attached programs and their maps. Dropping them removes both from the kernel.
pub(super) struct Programs {
    pub(super) syns: RingBuf<MapData>,
    pub(super) packets: RingBuf<MapData>,
    pub(super) lost: PerCpuArray<MapData, u64>,
    /// Why there are no socket events.
    pub(super) no_socket_events: Option<String>,
    /// Declared before the slot, so that the filters are removed first.
    _kernel: aya::Ebpf,
    _slot: Option<FilterSlot>,
}

impl Programs {
    pub(super) fn start(
        interfaces: &[WatchedInterface],
        ports: &[u16],
        buffer: usize,
        method: AttachMethod,
    ) -> Result<Self, EbpfError> {
        let capabilities = EffectiveCapabilities::of_this_thread();
        if let Some(missing) = capabilities.missing_for(SourceKind::Ebpf) {
            return Err(EbpfError::Capabilities(missing));
        }
        let (mut kernel, mut no_socket_events) = load(ports, buffer)?;
        let syns = ring(&mut kernel, "syns")?;
        let packets = ring(&mut kernel, "packets")?;
        let lost = kernel
            .take_map("lost")
            .ok_or_else(|| missing("lost"))
            .and_then(|map| PerCpuArray::try_from(map).map_err(|error| refused(MAPS, &error)))?;
        if no_socket_events.is_none() {
            no_socket_events = match capabilities.missing_for_socket_events() {
                Some(capability) => Some(format!("{capability} is missing, see capabilities(7)")),
                None => trace(&mut kernel).err().map(|error| error.to_string()),
            };
        }
        let slot = match method {
            AttachMethod::Tcx => None,
            AttachMethod::Netlink => Some(FilterSlot::acquire()?),
        };
        let mut programs =
            Self { syns, packets, lost, no_socket_events, _kernel: kernel, _slot: slot };
        for interface in interfaces {
            programs.attach(interface)?;
        }
        Ok(programs)
    }

    fn attach(&mut self, interface: &WatchedInterface) -> Result<(), EbpfError> {
        let name = interface.name.as_str();
        let removed = || EbpfError::InterfaceRemoved { name: name.to_owned() };
        if if_nametoindex(name).ok() != Some(interface.index) {
            return Err(removed());
        }
        let link = LinkLayer::of(name);
        let program = classifier(&mut self._kernel, link.program())?;
        for &direction in link.directions() {
            let options = match &self._slot {
                None => TcAttachOptions::TcxOrder(LinkOrder::first()),
                Some(slot) => {
                    clsact(name)?;
                    TcAttachOptions::Netlink(slot.options())
                }
            };
            program.attach_with_options(name, direction, options).map_err(|error| {
                // It may have been removed just now.
                if if_nametoindex(name).is_err() { removed() } else { refused(ATTACH, &error) }
            })?;
        }
        Ok(())
    }
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

    const fn program(self) -> &'static str {
        match self {
            Self::Ethernet | Self::Loopback => "watch_frames",
            Self::None => "watch_ip",
        }
    }

    const fn directions(self) -> &'static [TcAttachType] {
        match self {
            Self::Loopback => &[TcAttachType::Ingress],
            Self::Ethernet | Self::None => &[TcAttachType::Ingress, TcAttachType::Egress],
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
    let size = buffer.clamp(MIN_RING, MAX_RING).next_power_of_two();
    let size = u32::try_from(size).unwrap_or(u32::MAX);
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

/// Adds the clsact qdisc, which the filters need, unless it exists.
fn clsact(interface: &str) -> Result<(), EbpfError> {
    const EEXIST: i32 = 17;
    match tc::qdisc_add_clsact(interface) {
        Ok(()) | Err(TcError::AlreadyAttached) => Ok(()),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(EEXIST) => Ok(()),
        Err(error) => Err(refused(ATTACH, &error)),
    }
}
