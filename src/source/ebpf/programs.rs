//! The programs of `src/bpf`: loaded, set and attached. Dropped, they are gone from the kernel.

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

use super::EbpfError;
use super::slot::Slot;
use crate::source::capabilities::Capabilities;
use crate::source::live::{SourceKind, WatchedInterface};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watch.bpf.o"));

/// The ring of packets has at least so many bytes: two of the longest records.
const LEAST: usize = 256 << 10;

/// And at most: what nobody needs is refused by no kernel yet.
const MOST: usize = 1 << 30;

/// How programs are attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attach {
    /// By tcx, Linux 6.6: the kernel detaches them with the process.
    Tcx,
    /// As filters of the qdisc clsact, by netlink. They stay when the process is killed; see [`Slot`].
    Netlink,
}

impl Attach {
    pub(super) fn of_this_kernel() -> Self {
        let has_tcx =
            KernelVersion::current().is_ok_and(|kernel| kernel >= KernelVersion::new(6, 6, 0));
        if has_tcx { Self::Tcx } else { Self::Netlink }
    }
}

/// What runs in the kernel, and its maps.
pub(super) struct Programs {
    pub(super) openings: RingBuf<MapData>,
    pub(super) packets: RingBuf<MapData>,
    pub(super) lost: PerCpuArray<MapData, u64>,
    /// Why nothing is heard of sockets.
    pub(super) no_sockets: Option<String>,
    /// Declared before the slot: the filters go first.
    _kernel: aya::Ebpf,
    _slot: Option<Slot>,
}

impl Programs {
    pub(super) fn start(
        interfaces: &[WatchedInterface],
        ports: &[u16],
        buffer: usize,
        attach: Attach,
    ) -> Result<Self, EbpfError> {
        let rights = Capabilities::of_this_thread();
        if let Some(lack) = rights.missing_for(SourceKind::Ebpf) {
            return Err(EbpfError::Right(lack));
        }
        let (mut kernel, mut no_sockets) = load(ports, buffer)?;
        let openings = ring(&mut kernel, "openings")?;
        let packets = ring(&mut kernel, "packets")?;
        let lost = kernel
            .take_map("lost")
            .ok_or_else(|| missing("lost"))
            .and_then(|map| PerCpuArray::try_from(map).map_err(|error| refused(MAPS, &error)))?;
        if no_sockets.is_none() {
            no_sockets = match rights.missing_for_sockets() {
                Some(capability) => Some(format!("{capability} of capabilities(7) is missing")),
                None => trace(&mut kernel).err().map(|error| error.to_string()),
            };
        }
        let slot = match attach {
            Attach::Tcx => None,
            Attach::Netlink => Some(Slot::take()?),
        };
        let mut programs =
            Self { openings, packets, lost, no_sockets, _kernel: kernel, _slot: slot };
        for interface in interfaces {
            programs.attach(interface)?;
        }
        Ok(programs)
    }

    fn attach(&mut self, interface: &WatchedInterface) -> Result<(), EbpfError> {
        let name = interface.name.as_str();
        let gone = || EbpfError::Gone { name: name.to_owned() };
        if if_nametoindex(name).ok() != Some(interface.index) {
            return Err(gone());
        }
        let link = Link::of(name);
        let program = classifier(&mut self._kernel, link.program())?;
        for &side in link.sides() {
            let options = match &self._slot {
                None => TcAttachOptions::TcxOrder(LinkOrder::first()),
                Some(slot) => {
                    clsact(name)?;
                    TcAttachOptions::Netlink(slot.options())
                }
            };
            program.attach_with_options(name, side, options).map_err(|error| {
                // It may have gone a moment ago.
                if if_nametoindex(name).is_err() { gone() } else { refused(ATTACH, &error) }
            })?;
        }
        Ok(())
    }
}

const LOAD: &str = "load the programs that look at packets";
const MAPS: &str = "make the maps of the programs that look at packets";
const ATTACH: &str = "attach programs to an interface";
const TRACE: &str = "trace the states of sockets";

fn refused<E: std::error::Error + 'static>(what: &'static str, error: &E) -> EbpfError {
    EbpfError::refused(what, error)
}

/// A part of the object that is not in it.
fn missing(part: &str) -> EbpfError {
    EbpfError::Kernel { what: LOAD, reason: format!("`{part}` is not among them") }
}

/// How the packets of an interface begin, and where programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Ethernet,
    /// Begins with an Ethernet header, too. What is sent there is received there: one side sees all.
    Loopback,
    /// With the IP header.
    Bare,
}

impl Link {
    /// By netdevice(7)'s type of device (`ARPHRD_` of linux/if_arp.h). What has no address there is no Ethernet.
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
            _ => Self::Bare,
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Ethernet | Self::Loopback => "watch_frames",
            Self::Bare => "watch_bare",
        }
    }

    const fn sides(self) -> &'static [TcAttachType] {
        match self {
            Self::Loopback => &[TcAttachType::Ingress],
            Self::Ethernet | Self::Bare => &[TcAttachType::Ingress, TcAttachType::Egress],
        }
    }
}

/// The object in the kernel, but for its programs; and why nothing will be heard of sockets.
fn load(ports: &[u16], buffer: usize) -> Result<(aya::Ebpf, Option<String>), EbpfError> {
    allow_memory();
    let mut watched = [0_u64; 1024];
    for &port in ports {
        if let Some(word) = watched.get_mut(usize::from(port >> 6)) {
            *word |= 1 << (port & 63);
        }
    }
    let size = buffer.clamp(LEAST, MOST).next_power_of_two();
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
    // What reads kernel structures needs to know them. The rest does not.
    let (btf, mut no_sockets) = match Btf::from_sys_fs() {
        Ok(btf) => (Some(btf), None),
        Err(error) => (None, Some(format!("the kernel does not describe itself (BTF): {error}"))),
    };
    if netns.is_none() {
        no_sockets = Some("/proc does not tell which network namespace this is".to_owned());
    }
    let kernel = match load(btf.as_ref()) {
        Err(aya::EbpfError::BtfRelocationError(error)) => {
            no_sockets = Some(format!("the kernel's structures are not as expected: {error}"));
            load(None)
        }
        result => result,
    };
    Ok((kernel.map_err(|error| refused(MAPS, &error))?, no_sockets))
}

/// Before 5.11 maps count as locked memory of the process.
fn allow_memory() {
    if KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(5, 11, 0)) {
        // Where it is not allowed, making the maps says so.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, rlim_t::MAX, rlim_t::MAX);
    }
}

/// The inode number of the network namespace of this thread, by which the kernel tells sockets of others.
fn own_netns() -> Option<u32> {
    let inode = std::fs::metadata("/proc/thread-self/ns/net").ok()?.ino();
    u32::try_from(inode).ok()
}

fn ring(kernel: &mut aya::Ebpf, name: &str) -> Result<RingBuf<MapData>, EbpfError> {
    let map = kernel.take_map(name).ok_or_else(|| missing(name))?;
    RingBuf::try_from(map).map_err(|error| refused(MAPS, &error))
}

/// The program of that name, loaded.
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

/// Adds the qdisc that filters hang on, unless it is there.
fn clsact(interface: &str) -> Result<(), EbpfError> {
    const EEXIST: i32 = 17;
    match tc::qdisc_add_clsact(interface) {
        Ok(()) | Err(TcError::AlreadyAttached) => Ok(()),
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(EEXIST) => Ok(()),
        Err(error) => Err(refused(ATTACH, &error)),
    }
}
