//! `src/bpf/door.bpf.c`: loaded, filled and attached to the network namespace of this thread. Dropped, it is gone, and so it
//! is when the process is killed: its link is a file descriptor and pinned nowhere.

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

use super::DoorError;
use crate::addr::{Family, Networks};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/door.bpf.o"));

const NETNS: &str = "/proc/thread-self/ns/net";
const LOAD: &str = "load the program that refuses connections";
const FILL: &str = "tell the program that refuses connections what to refuse";
const ATTACH: &str = "attach the program that refuses connections";

/// CAP_SYS_ADMIN was that before Linux 5.8, and still is.
const BPF: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::SYS_ADMIN);

/// An address as IPv6, and a port in the machine's byte order.
type Listener = [u8; 20];

/// The program and its maps.
pub(super) struct SkLookupDoor {
    closed: Array<MapData, u32>,
    refused: PerCpuArray<MapData, u64>,
    listeners: HashMap<MapData, Listener, u8>,
    _kernel: aya::Ebpf,
}

impl SkLookupDoor {
    /// Attached, with both doors open.
    pub(super) fn start(addresses: &[SocketAddr], exempt: &Networks) -> Result<Self, DoorError> {
        let missing = missing();
        if !missing.is_empty() {
            return Err(DoorError::Rights { missing });
        }
        // Before 5.11 maps count as locked memory of the process.
        if KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(5, 11, 0)) {
            // Where it is not allowed, making the maps says so.
            let _ = setrlimit(Resource::RLIMIT_MEMLOCK, rlim_t::MAX, rlim_t::MAX);
        }
        let mut kernel = EbpfLoader::new().load(OBJECT).map_err(|error| refused(LOAD, &error))?;
        let mut map = |name: &str| {
            let missing = || DoorError::Kernel { what: LOAD, reason: format!("no map `{name}`") };
            kernel.take_map(name).ok_or_else(missing)
        };
        let closed = Array::try_from(map("closed")?).map_err(|error| refused(LOAD, &error))?;
        let counts =
            PerCpuArray::try_from(map("refused")?).map_err(|error| refused(LOAD, &error))?;
        let listeners =
            HashMap::try_from(map("listeners")?).map_err(|error| refused(LOAD, &error))?;
        let mut networks: LpmTrie<MapData, [u8; 16], u8> =
            LpmTrie::try_from(map("exempt")?).map_err(|error| refused(LOAD, &error))?;
        for network in exempt.iter() {
            // The first 96 bits of an IPv4 address are those of ::ffff:0:0.
            let before = if network.addr().is_ipv4() { 96 } else { 0 };
            let length = u32::from(network.prefix_len()) + before;
            let key = Key::new(length, octets(network.addr()));
            networks.insert(&key, 1, 0).map_err(|error| refused(FILL, &error))?;
        }
        let mut lookup = Self { closed, refused: counts, listeners, _kernel: kernel };
        lookup.listen(addresses)?;
        lookup.attach()?;
        Ok(lookup)
    }

    fn attach(&mut self) -> Result<(), DoorError> {
        let netns = File::open(NETNS).map_err(|error| refused(ATTACH, &error))?;
        let missing = || DoorError::Kernel { what: LOAD, reason: "no program `door`".to_owned() };
        let program = self._kernel.program_mut("door").ok_or_else(missing)?;
        let program: &mut SkLookup =
            program.try_into().map_err(|error: ProgramError| refused(LOAD, &error))?;
        program.load().map_err(|error| refused(LOAD, &error))?;
        program.attach(netns).map_err(|error| refused(ATTACH, &error))?;
        Ok(())
    }

    /// The gateway listens there and nowhere else.
    pub(super) fn listen(&mut self, addresses: &[SocketAddr]) -> Result<(), DoorError> {
        let wanted: Vec<Listener> = addresses.iter().copied().map(listener).collect();
        let there: Vec<Listener> = self.listeners.keys().flatten().collect();
        for key in &wanted {
            self.listeners.insert(key, 1, 0).map_err(|error| refused(FILL, &error))?;
        }
        for key in there.iter().filter(|key| !wanted.contains(key)) {
            self.listeners.remove(key).map_err(|error| refused(FILL, &error))?;
        }
        Ok(())
    }

    pub(super) fn set(&mut self, family: Family, admits: bool) -> Result<(), DoorError> {
        let set = self.closed.set(family as u32, u32::from(!admits), 0);
        set.map_err(|error| refused(FILL, &error))
    }

    pub(super) fn refused(&self, family: Family) -> u64 {
        let counts = self.refused.get(&(family as u32), 0);
        counts.map_or(0, |counts| counts.iter().sum())
    }
}

/// Before Linux 5.19 a kernel with `kernel.unprivileged_bpf_disabled` asks for it with every bpf(2), also of maps that are open.
pub(super) fn required_capabilities() -> Option<CapabilitySet> {
    let asks = KernelVersion::current().is_ok_and(|kernel| kernel < KernelVersion::new(5, 19, 0));
    asks.then_some(BPF)
}

/// What the kernel asks for, of capabilities(7): CAP_BPF is of Linux 5.8; before, CAP_SYS_ADMIN was that, and still is.
/// All are taken to be there where the kernel does not tell: then it says what it thinks when it is asked.
fn missing() -> Vec<&'static str> {
    let Ok(sets) = capabilities(None) else { return Vec::new() };
    let lacks = |any: CapabilitySet| !sets.effective.intersects(any);
    let needed = [("CAP_BPF", BPF), ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN)];
    needed.into_iter().filter(|&(_, any)| lacks(any)).map(|(name, _)| name).collect()
}

/// As IPv6: IPv4 in its mapped form.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn listener(address: SocketAddr) -> Listener {
    let mut key = [0; 20];
    let (ip, port) = key.split_at_mut(16);
    ip.copy_from_slice(&octets(address.ip()));
    port.copy_from_slice(&u32::from(address.port()).to_ne_bytes());
    key
}

/// How the lines begin that the verifier ends with.
const STATISTICS: [&str; 4] = ["processed ", "stack depth ", "verification time ", "mark_read "];

/// The kernel's answer with its causes. Of the verifier's log, the last line that says something.
fn refused(what: &'static str, error: &(dyn Error + 'static)) -> DoorError {
    if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref() {
        let log = verifier_log.to_string();
        let last =
            log.lines().rfind(|line| !STATISTICS.iter().any(|begin| line.starts_with(begin)));
        let reason = format!("{io_error}: {}", last.unwrap_or("no reason was given"));
        return DoorError::Kernel { what, reason };
    }
    let mut reason = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !reason.ends_with(&said) {
            reason = format!("{reason}: {said}");
        }
        next = cause.source();
    }
    DoorError::Kernel { what, reason }
}
