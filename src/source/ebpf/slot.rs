//! Filters of kernels before 6.6, which outlive the process that made them.
//!
//! Each process that has such filters holds a slot of its network namespace: an abstract Unix socket (unix(7)), which the
//! kernel frees when the process ends, however it does. The slot's number is the handle of the process's filters, so filters
//! whose slot nobody holds are those of the dead.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use aya::programs::links::Link as _;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachType, TcHandle};
use nix::net::if_::if_nameindex;

use super::EbpfError;

/// How many processes may have filters in one network namespace.
const SLOTS: u16 = 8;

/// Of our filters among those of an interface (`tc filter`, `pref`): before most others, which may end the chain.
const PRIORITY: u16 = 25;

/// The upper half of the handle of our filters: "gp".
const HANDLE: u16 = 0x6770;

/// One slot, for as long as this lives.
#[derive(Debug)]
pub(super) struct Slot {
    number: u16,
    _held: UnixDatagram,
}

impl Slot {
    /// Takes a free slot, and removes the filters of every one that is free: nobody lives who made them.
    pub(super) fn take() -> Result<Self, EbpfError> {
        let mut ours = None;
        for number in 1..=SLOTS {
            let slot = match Self::hold(number) {
                Ok(slot) => slot,
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                Err(error) => return Err(EbpfError::refused("hold a Unix socket", &error)),
            };
            slot.clear();
            ours = ours.or(Some(slot));
        }
        ours.ok_or(EbpfError::Crowded(SLOTS))
    }

    /// How to attach a filter of this slot.
    pub(super) const fn options(&self) -> NlOptions {
        NlOptions { priority: PRIORITY, handle: TcHandle::new(HANDLE, self.number), classid: None }
    }

    fn hold(number: u16) -> io::Result<Self> {
        let name = format!("gatepost/watch/{number}");
        let held = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
        Ok(Self { number, _held: held })
    }

    /// Removes the slot's filters from all interfaces. The qdisc `clsact` stays: others may have filters there.
    fn clear(&self) {
        let handle = TcHandle::new(HANDLE, self.number);
        let interfaces = if_nameindex();
        let names =
            interfaces.iter().flatten().filter_map(|interface| interface.name().to_str().ok());
        for name in names {
            for side in [TcAttachType::Ingress, TcAttachType::Egress] {
                // Mostly there is none to remove, which is an error.
                if let Ok(link) = SchedClassifierLink::attached(name, side, PRIORITY, handle, None)
                {
                    let _ = link.detach();
                }
            }
        }
    }
}
