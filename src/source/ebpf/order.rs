//! Who runs before gatepost's programs, and can hide packets from them by ending the chain.
//!
//! The kernel runs tcx programs in their order, then the filters of clsact by preference. Each may end the chain for a packet,
//! also to let it pass. gatepost's programs never do; so those of other gateposts may run first.

#![allow(
    unsafe_code,
    reason = "aya queries tcx only with CAP_SYS_ADMIN, for the names of the programs"
)]

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use aya::programs::SchedClassifier;
use nix::libc;

use super::netlink::{ALL_PROTOCOLS, Filter, PacketDirection, RouteNetlink};
use super::slot::{FilterSlot, is_of_gatepost};

/// Where a program of ours is attached.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) interface: &'a str,
    pub(super) index: u32,
    pub(super) direction: PacketDirection,
    pub(super) program: u32,
}

/// The programs around ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ChainPosition {
    /// Those of other software that run before ours, described; normally none.
    After(Vec<String>),
    /// Ours was detached.
    Missing,
}

/// The position of the program at `place`, as attached by tcx (without a slot) or as a filter of clsact. `None` if the kernel
/// does not tell.
pub(super) fn position(
    place: Place<'_>,
    slot: Option<&FilterSlot>,
    netlink: &RouteNetlink,
) -> Option<ChainPosition> {
    let attached = tcx_programs(place.index, place.direction);
    let Some(slot) = slot else {
        let attached = attached.ok()?;
        let Some(ours) = attached.iter().position(|&id| id == place.program) else {
            return Some(ChainPosition::Missing);
        };
        return Some(ChainPosition::After(foreign(
            place,
            attached.get(..ours).unwrap_or_default(),
        )));
    };
    let filters = netlink.filters(place.index, place.direction).ok()?;
    let ours = |filter: &Filter| filter.handle == slot.handle() && is_of_gatepost(filter);
    let Some(ours) = filters.iter().position(ours) else { return Some(ChainPosition::Missing) };
    // A kernel without tcx has none.
    let mut before = foreign(place, &attached.unwrap_or_default());
    for filter in filters.iter().take(ours) {
        if filter.chain == 0 && !is_of_gatepost(filter) {
            let text = described(filter);
            if !before.contains(&text) {
                before.push(text);
            }
        }
    }
    Some(ChainPosition::After(before))
}

/// `the filter of clsact with preference 1 (u32)`
fn described(filter: &Filter) -> String {
    let name = filter.name.as_ref().map_or_else(String::new, |name| format!(" {name:?}"));
    format!("the filter of clsact with preference {} ({}{name})", filter.preference, filter.kind)
}

/// Those of `programs` that are not of a gatepost.
fn foreign(place: Place<'_>, programs: &[u32]) -> Vec<String> {
    let mut foreign = programs.iter().filter(|&&id| !ProgramMark::exists(id)).peekable();
    if foreign.peek().is_none() {
        return Vec::new();
    }
    // Their names need CAP_SYS_ADMIN.
    let known = SchedClassifier::query_tcx(place.interface, place.direction.into());
    let known = known.map_or_else(|_| Vec::new(), |(_, programs)| programs);
    let name = |id: u32| {
        let program = known.iter().find(|program| program.id() == id)?;
        program.name_as_str().filter(|name| !name.is_empty())
    };
    let described = |&id: &u32| match name(id) {
        Some(name) => format!("the tcx program {name:?} (id {id})"),
        None => format!("the tcx program with id {id}"),
    };
    foreign.map(described).collect()
}

/// Marks a program as one of gatepost's for other gateposts in the network namespace: an abstract Unix socket (unix(7)), which
/// the kernel releases when the process ends. The name of a program would need CAP_SYS_ADMIN.
#[derive(Debug)]
pub(super) struct ProgramMark {
    _socket: UnixDatagram,
}

impl ProgramMark {
    pub(super) fn set(program: u32) -> io::Result<Self> {
        Ok(Self { _socket: UnixDatagram::bind_addr(&Self::address(program)?)? })
    }

    fn exists(program: u32) -> bool {
        let connected = || UnixDatagram::unbound()?.connect_addr(&Self::address(program)?);
        connected().is_ok()
    }

    fn address(program: u32) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("gatepost/watch/program/{program}"))
    }
}

/// `union bpf_attr` of `BPF_PROG_QUERY`, in linux/bpf.h since 6.6.
#[repr(C)]
#[derive(Default)]
struct ProgramQuery {
    index: u32,
    attach_type: u32,
    flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    unused: [u64; 3],
    revision: u64,
}

/// The kernel's limit for one direction of an interface (`BPF_MPROG_MAX`).
const MAX_PROGRAMS: usize = 64;

/// The ids of the programs attached by tcx, in the order in which they run. Needs CAP_NET_ADMIN only.
pub(super) fn tcx_programs(index: u32, direction: PacketDirection) -> io::Result<Vec<u32>> {
    const BPF_PROG_QUERY: libc::c_long = 16;
    const BPF_TCX_INGRESS: u32 = 46;
    let mut ids = [0_u32; MAX_PROGRAMS];
    let mut query = ProgramQuery {
        index,
        attach_type: match direction {
            PacketDirection::In => BPF_TCX_INGRESS,
            PacketDirection::Out => BPF_TCX_INGRESS + 1,
        },
        ids: ids.as_mut_ptr() as u64,
        count: MAX_PROGRAMS as u32,
        ..ProgramQuery::default()
    };
    // SAFETY: the kernel reads and writes `query` within its size, and writes at most `count` numbers to `ids`. Both live on.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut query,
            size_of::<ProgramQuery>() as libc::c_long,
        )
    };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    let count = usize::try_from(query.count).unwrap_or_default();
    Ok(ids.get(..count).unwrap_or_default().to_vec())
}

/// The lowest preference at which a filter of ours can be attached: the kernel allows one kind and one protocol for each, and
/// runs the newest filter of a preference first.
pub(super) fn lowest_preference(filters: &[Filter]) -> u16 {
    let is_free = |preference: &u16| {
        let mut there = filters.iter().filter(|filter| filter.preference == *preference);
        there.all(|filter| filter.kind == "bpf" && filter.protocol == ALL_PROTOCOLS)
    };
    (1..u16::MAX).find(is_free).unwrap_or(u16::MAX)
}

const _: () = assert!(size_of::<ProgramQuery>() == 64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_preference_is_free_or_of_the_same_kind() {
        let filter = |preference, kind: &str, protocol| Filter {
            preference,
            protocol,
            kind: kind.to_owned(),
            handle: 1,
            chain: 0,
            name: None,
        };
        let ip = 0x0800_u16.to_be();
        assert_eq!(lowest_preference(&[]), 1);
        assert_eq!(lowest_preference(&[filter(1, "bpf", ALL_PROTOCOLS)]), 1);
        assert_eq!(lowest_preference(&[filter(1, "bpf", ip)]), 2);
        let both = [filter(1, "u32", ALL_PROTOCOLS), filter(2, "matchall", ip)];
        assert_eq!(lowest_preference(&both), 3);
        assert_eq!(lowest_preference(&[filter(2, "u32", ALL_PROTOCOLS)]), 1);
    }
}
