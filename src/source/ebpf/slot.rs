//! Ownership of clsact filters, which outlive their process on kernels before 6.6.
//!
//! Each process with such filters holds a slot in its network namespace: an abstract Unix socket (unix(7)), which the kernel
//! releases when the process ends, however it ends. The slot number is part of the handle of the process's filters, so
//! filters of a free slot are left over from a dead process.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use aya::programs::links::Link as _;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachType, TcHandle};
use nix::net::if_::if_nameindex;

use super::error::EbpfError;

/// Maximum number of processes with filters in one network namespace.
const SLOTS: u16 = 8;

/// Priority of the filters on an interface (`tc filter`, `pref`): before most others, which may end the chain.
const PRIORITY: u16 = 25;

/// Upper half of the filters' handle: "gp".
const HANDLE: u16 = 0x6770;

/// A slot, held until dropped.
#[derive(Debug)]
pub(super) struct FilterSlot {
    number: u16,
    _socket: UnixDatagram,
}

impl FilterSlot {
    /// Acquires a free slot, and removes the leftover filters of all free slots.
    pub(super) fn acquire() -> Result<Self, EbpfError> {
        let mut acquired = None;
        for number in 1..=SLOTS {
            let slot = match Self::hold(number) {
                Ok(slot) => slot,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(error) => return Err(EbpfError::refused("hold a Unix socket", &error)),
            };
            slot.remove_filters();
            acquired = acquired.or(Some(slot));
        }
        acquired.ok_or(EbpfError::TooManyProcesses(SLOTS))
    }

    /// Attachment options for filters of this slot.
    pub(super) const fn options(&self) -> NlOptions {
        NlOptions { priority: PRIORITY, handle: TcHandle::new(HANDLE, self.number), classid: None }
    }

    fn hold(number: u16) -> io::Result<Self> {
        let name = format!("gatepost/watch/{number}");
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        Ok(Self { number, _socket: socket })
    }

    /// Removes the slot's filters from all interfaces. The clsact qdisc stays: it may have filters of other programs.
    fn remove_filters(&self) {
        let handle = TcHandle::new(HANDLE, self.number);
        let interfaces = if_nameindex();
        let names =
            interfaces.iter().flatten().filter_map(|interface| interface.name().to_str().ok());
        for name in names {
            for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
                // Usually there is none, which is an error.
                if let Ok(link) =
                    SchedClassifierLink::attached(name, direction, PRIORITY, handle, None)
                {
                    let _ = link.detach();
                }
            }
        }
    }
}
