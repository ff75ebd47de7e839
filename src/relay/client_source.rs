//! Connections from a client's own address: the choice of the port there.
//!
//! The kernel chooses at connect(2) (`IP_BIND_ADDRESS_NO_PORT`, ip(7), Linux 4.2): at bind(2) it would keep one port of that
//! address for each connection, whatever its destination, and connections in TIME_WAIT would use them up.
//!
//! The client's connection to the server and ours have the same address, and with the same port they were one connection to
//! connection tracking. Clients choose ports of 32768 and above (Linux) or 49152 and above (RFC 6335 §6), so ours are below
//! (`IP_LOCAL_PORT_RANGE`, Linux 6.3; without it they may meet).

#![allow(unsafe_code, reason = "neither socket2 nor rustix nor nix supports IP_LOCAL_PORT_RANGE")]

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;
use tokio::net::TcpSocket;

/// linux/in.h
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
/// The lowest port in the low half, and the highest in the high half.
static PORTS: u32 = 32_767 << 16 | 1024;

/// Binds `socket` to `client`, which need not be an address of this host.
///
/// # Errors
/// IP_TRANSPARENT needs CAP_NET_RAW or CAP_NET_ADMIN.
pub(super) fn bind(socket: &TcpSocket, client: IpAddr) -> io::Result<()> {
    // On an IPv6 TCP socket Linux handles SOL_IP options by the same code.
    SockRef::from(socket).set_ip_transparent_v4(true)?;
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
    // Older kernels do not know it.
    let _unsupported = set_port_range(socket);
    socket.bind(SocketAddr::new(client, 0))
}

fn set_port_range(socket: &TcpSocket) -> io::Result<()> {
    // SAFETY: the descriptor is open while `socket` is borrowed, and the kernel reads the four bytes of `PORTS` at most.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            IP_LOCAL_PORT_RANGE,
            (&raw const PORTS).cast(),
            size_of_val(&PORTS) as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
