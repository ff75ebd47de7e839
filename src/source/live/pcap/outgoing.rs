//! Restricts a packet socket to incoming packets: packet(7), `PACKET_IGNORE_OUTGOING` (Linux 4.20).
//!
//! A packet on the loopback device passes a packet socket twice, outgoing and incoming. libpcap drops the first copy, but
//! only after it took room in the ring and was possibly counted as lost. The filter keyword `inbound` does not help: libpcap
//! itself filters the first packets, without knowing their direction.

#![allow(unsafe_code, reason = "neither rustix nor nix supports this socket option")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

pub(super) fn ignore_outgoing(socket: &impl AsFd) -> io::Result<()> {
    let yes: libc::c_int = 1;
    // SAFETY: the descriptor is open while `socket` is borrowed, and the kernel reads the four bytes of `yes` at most.
    let status = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
