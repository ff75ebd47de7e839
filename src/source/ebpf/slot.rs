//! Ownership of clsact filters, which outlive their process on kernels without tcx.
//!
//! Each process with such filters holds a slot in its network namespace: an abstract Unix socket (unix(7)), which the kernel
//! releases when the process ends, however it ends. The slot number is part of the handle of the process's filters, so
//! filters of a free slot are left over from a dead process. A filter is gatepost's only if it has both the handle and the
//! name of a program.

use std::collections::BTreeSet;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use aya::programs::links::Link as _;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcHandle};
use nix::net::if_::if_indextoname;

use super::error::EbpfError;
use super::netlink::{Filter, PacketDirection, RouteNetlink};
use crate::source::capabilities::{EffectiveCapabilities, MissingCapabilities};
use crate::source::kind::SourceKind;
use crate::source::leftovers::Leftovers;

/// Maximum number of processes with filters in one network namespace.
const SLOTS: u16 = 8;

/// Upper half of the filters' handle: "gp".
const HANDLE: u16 = 0x6770;

/// The programs of `src/bpf/watch.bpf.c`; filters have their names.
pub(super) const PROGRAM_NAMES: [&str; 4] =
    ["watch_frame_in", "watch_frame_out", "watch_ip_in", "watch_ip_out"];

/// A slot, held until dropped.
#[derive(Debug)]
pub(super) struct FilterSlot {
    number: u16,
    _socket: UnixDatagram,
}

impl FilterSlot {
    /// Acquires a free slot. Before, [`remove_leftovers`] must have removed the filters of free slots.
    pub(super) fn acquire() -> Result<Self, EbpfError> {
        for number in 1..=SLOTS {
            if let Some(slot) = Self::hold(number)? {
                return Ok(slot);
            }
        }
        Err(EbpfError::TooManyProcesses(SLOTS))
    }

    /// Attachment options for filters of this slot.
    pub(super) const fn options(&self, priority: u16) -> NlOptions {
        NlOptions { priority, handle: TcHandle::new(HANDLE, self.number), classid: None }
    }

    /// The handle of this slot's filters.
    pub(super) fn handle(&self) -> u32 {
        TcHandle::new(HANDLE, self.number).into()
    }

    /// `None` if another process holds it.
    fn hold(number: u16) -> Result<Option<Self>, EbpfError> {
        let name = format!("gatepost/watch/{number}");
        let bound =
            SocketAddr::from_abstract_name(name).and_then(|name| UnixDatagram::bind_addr(&name));
        match bound {
            Ok(socket) => Ok(Some(Self { number, _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(EbpfError::refused("hold a Unix socket", &error)),
        }
    }
}

/// Whether a filter was attached by a gatepost.
pub(super) fn is_of_gatepost(filter: &Filter) -> bool {
    let name = filter.name.as_deref();
    filter.kind == "bpf"
        && filter.handle >> 16 == u32::from(HANDLE)
        && name.is_some_and(|name| PROGRAM_NAMES.contains(&name))
}

/// Removes the filters of free slots from all interfaces of this network namespace, and with the last one their programs and
/// maps. The clsact qdisc stays: it may have filters of other programs.
pub(super) fn remove_leftovers(netlink: &RouteNetlink) -> Result<Leftovers, EbpfError> {
    let mut leftovers = Leftovers::default();
    let slots: BTreeSet<u16> = ours(netlink)?.iter().map(|(_, _, filter)| slot(filter)).collect();
    for number in slots {
        // Held until its filters are gone: a process that starts now takes another.
        let held = FilterSlot::hold(number)?;
        let filters = ours(netlink)?.into_iter().filter(|(_, _, filter)| slot(filter) == number);
        for (index, direction, filter) in filters {
            if held.is_none() {
                leftovers.in_use += 1;
                continue;
            }
            let Ok(name) = if_indextoname(index) else { continue };
            let name = name.to_string_lossy().into_owned();
            remove(&name, direction, &filter)?;
            match leftovers.removed.iter_mut().find(|(known, _)| *known == name) {
                Some((_, count)) => *count += 1,
                None => leftovers.removed.push((name, 1)),
            }
        }
    }
    Ok(leftovers)
}

fn remove(interface: &str, direction: PacketDirection, filter: &Filter) -> Result<(), EbpfError> {
    const REMOVE: &str = "remove a filter";
    const NET_ADMIN: &str = "CAP_NET_ADMIN";
    let handle = filter.handle.into();
    let direction = direction.into();
    let link = SchedClassifierLink::attached(interface, direction, filter.preference, handle, None);
    // An interface that was removed meanwhile has no filters.
    let Ok(link) = link else { return Ok(()) };
    link.detach().map_err(|error| {
        // CAP_BPF is not needed.
        let missing = EffectiveCapabilities::of_this_thread().missing_for(SourceKind::Ebpf);
        let missing = missing.filter(|missing| missing.names.contains(&NET_ADMIN));
        match missing {
            Some(missing) => {
                EbpfError::Capabilities(MissingCapabilities { names: vec![NET_ADMIN], ..missing })
            }
            None => EbpfError::refused(REMOVE, &error),
        }
    })
}

/// All filters of gatepost, in this network namespace.
fn ours(netlink: &RouteNetlink) -> Result<Vec<(u32, PacketDirection, Filter)>, EbpfError> {
    let list = || {
        let mut ours = Vec::new();
        for (index, qdisc) in netlink.ingress_qdiscs()? {
            if qdisc != "clsact" {
                continue;
            }
            for direction in PacketDirection::ALL {
                let filters = netlink.filters(index, direction)?.into_iter();
                let filters = filters.filter(is_of_gatepost);
                ours.extend(filters.map(|filter| (index, direction, filter)));
            }
        }
        Ok(ours)
    };
    list().map_err(|error: io::Error| EbpfError::refused("list filters", &error))
}

const fn slot(filter: &Filter) -> u16 {
    filter.handle as u16
}
