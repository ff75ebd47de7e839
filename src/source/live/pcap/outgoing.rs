//! A packet socket that hears of incoming packets only: packet(7), `PACKET_IGNORE_OUTGOING` (Linux 4.20).
//!
//! What passes the loopback device passes a packet socket twice, out and in. libpcap drops the first, but only after the
//! ring has taken it and maybe counted it as lost. The filter's word `inbound` will not do: libpcap itself filters what
//! first comes, and cannot tell there.

#![allow(unsafe_code, reason = "neither rustix nor nix knows this socket option")]

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
