//! Loads `src/bpf/door.bpf.c`, fills its maps and attaches it to the network namespace of this thread. The kernel detaches it
//! on drop and when the process is killed, since its link is a file descriptor and not pinned.

use std::error::Error;
use std::fs::File;
use std::net::{IpAddr, SocketAddr};

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};
use aya::programs::{ProgramError, SkLookup};
use aya::util::KernelVersion;
use aya::{EbpfLoader, include_bytes_aligned};
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use super::error::DoorError;
use crate::addr::{Family, Networks};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/door.bpf.o"));

const NETNS: &str = "/proc/thread-self/ns/net";
const LOAD: &str = "load the program that refuses connections";
const FILL: &str = "fill the maps of the program that refuses connections";
const ATTACH: &str = "attach the program that refuses connections";

/// Before Linux 5.8 CAP_SYS_ADMIN, which is still accepted.
const BPF: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN);

/// An address as IPv6, and a port in native byte order.
type ListenerKey = [u8; 20];

/// The program and its maps.
pub(super) struct SkLookupDoor {
    closed: Array<MapData, u32>,
    refused: PerCpuArray<MapData, u64>,
    listeners: HashMap<MapData, ListenerKey, u8>,
    ebpf: aya::Ebpf,
}

impl SkLookupDoor {
    /// Attaches the program, with both doors open.
    pub(super) fn start(addresses: &[SocketAddr], exempt: &Networks) -> Result<Self, DoorError> {
        let missing = missing();
        if !missing.is_empty() {
            return Err(DoorError::Rights { missing });
        }
        // Before Linux 5.11 maps count as locked memory of the process.
        if KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(5, 11, 0)) {
            // If this is not allowed, creating the maps fails.
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, rlim_t::MAX, rlim_t::MAX);
        }
        let mut ebpf =
            EbpfLoader::new().load(OBJECT).map_err(|error| kernel_error(LOAD, &error))?;
        let mut map = |name: &str| {
            let missing = || DoorError::Kernel { action: LOAD, reason: format!("no map `{name}`") };
            ebpf.take_map(name).ok_or_else(missing)
        };
        let closed = Array::try_from(map("closed")?).map_err(|error| kernel_error(LOAD, &error))?;
        let counts =
            PerCpuArray::try_from(map("refused")?).map_err(|error| kernel_error(LOAD, &error))?;
        let listeners =
            HashMap::try_from(map("listeners")?).map_err(|error| kernel_error(LOAD, &error))?;
        let mut networks: LpmTrie<MapData, [u8; 16], u8> =
            LpmTrie::try_from(map("exempt")?).map_err(|error| kernel_error(LOAD, &error))?;
        for network in exempt.iter() {
            // An IPv4 address has the 96-bit prefix ::ffff:0:0.
            let mapped = if network.addr().is_ipv4() { 96 } else { 0 };
            let length = u32::from(network.prefix_len()) + mapped;
            let key = Key::new(length, as_ipv6(network.addr()));
            networks.insert(&key, 1, 0).map_err(|error| kernel_error(FILL, &error))?;
        }
        let mut door = Self { closed, refused: counts, listeners, ebpf };
        door.set_listeners(addresses)?;
        door.attach()?;
        Ok(door)
    }

    fn attach(&mut self) -> Result<(), DoorError> {
        let netns = File::open(NETNS).map_err(|error| kernel_error(ATTACH, &error))?;
        let missing = || DoorError::Kernel { action: LOAD, reason: "no program `door`".to_owned() };
        let program = self.ebpf.program_mut("door").ok_or_else(missing)?;
        let program: &mut SkLookup =
            program.try_into().map_err(|error: ProgramError| kernel_error(LOAD, &error))?;
        program.load().map_err(|error| kernel_error(LOAD, &error))?;
        program.attach(netns).map_err(|error| kernel_error(ATTACH, &error))?;
        Ok(())
    }

    /// Sets the addresses on which the gateway listens.
    pub(super) fn set_listeners(&mut self, addresses: &[SocketAddr]) -> Result<(), DoorError> {
        let wanted: Vec<ListenerKey> = addresses.iter().copied().map(listener_key).collect();
        let current: Vec<ListenerKey> = self.listeners.keys().flatten().collect();
        for key in &wanted {
            self.listeners.insert(key, 1, 0).map_err(|error| kernel_error(FILL, &error))?;
        }
        for key in current.iter().filter(|key| !wanted.contains(key)) {
            self.listeners.remove(key).map_err(|error| kernel_error(FILL, &error))?;
        }
        Ok(())
    }

    pub(super) fn set(&mut self, family: Family, admits: bool) -> Result<(), DoorError> {
        let set = self.closed.set(family as u32, u32::from(!admits), 0);
        set.map_err(|error| kernel_error(FILL, &error))
    }

    pub(super) fn refused_syns(&self, family: Family) -> u64 {
        let counts = self.refused.get(&(family as u32), 0);
        counts.map_or(0, |counts| counts.iter().sum())
    }
}

/// Before Linux 5.19, with `kernel.unprivileged_bpf_disabled`, every bpf(2) call needs it, also on open maps.
pub(super) fn required_capabilities() -> Option<CapabilitySet> {
    let needed = KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(5, 19, 0));
    needed.then_some(BPF)
}

/// The missing capabilities: CAP_BPF exists since Linux 5.8; before it was CAP_SYS_ADMIN, which is still accepted. If the
/// kernel does not report them, assumes that none is missing; the calls then fail with their own errors.
fn missing() -> Vec<&'static str> {
    let Ok(sets) = capabilities(None) else { return Vec::new() };
    let lacks = |any: CapabilitySet| !sets.effective.intersects(any);
    let needed = [("CAP_BPF", BPF), ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN)];
    needed.into_iter().filter(|&(_, any)| lacks(any)).map(|(name, _)| name).collect()
}

/// IPv4 in its mapped form.
fn as_ipv6(ip: IpAddr) -> [u8; 16] {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn listener_key(address: SocketAddr) -> ListenerKey {
    let mut key = [0; 20];
    let (ip, port) = key.split_at_mut(16);
    ip.copy_from_slice(&as_ipv6(address.ip()));
    port.copy_from_slice(&u32::from(address.port()).to_ne_bytes());
    key
}

/// Prefixes of the statistics at the end of the verifier's log.
const STATISTICS: [&str; 4] = ["processed ", "stack depth ", "verification time ", "mark_read "];

/// The error with its causes; of the verifier's log, the last line that is not statistics.
fn kernel_error(action: &'static str, error: &(dyn Error + 'static)) -> DoorError {
    if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref() {
        let log = verifier_log.to_string();
        let last =
            log.lines().rfind(|line| !STATISTICS.iter().any(|begin| line.starts_with(begin)));
        let reason = format!("{io_error}: {}", last.unwrap_or("no reason given"));
        return DoorError::Kernel { action, reason };
    }
    let mut reason = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !reason.ends_with(&text) {
            reason = format!("{reason}: {text}");
        }
        next = cause.source();
    }
    DoorError::Kernel { action, reason }
}
