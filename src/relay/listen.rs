//! Listening sockets: one per address and worker, so that the kernel spreads connections (SO_REUSEPORT, Linux 3.9).

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// The kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Opens a listener for one worker. IPv6 listeners take IPv6 only (trap 8); options that accepted sockets inherit are set
/// here once.
///
/// # Errors
/// The address is not ours or taken, or the right to bind it (or to use IP_TRANSPARENT: CAP_NET_ADMIN) is missing.
pub(super) fn open(
    address: SocketAddr,
    transparent: bool,
    mark: Option<u32>,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    if transparent {
        // Linux hands SOL_IP options of an IPv6 TCP socket to the same code: this is IPV6_TRANSPARENT as well.
        socket.set_ip_transparent_v4(true)?;
    }
    if let Some(mark) = mark {
        // Else `net.ipv4.tcp_fwmark_accept = 1` would give accepted sockets the mark of intercepted packets, and their
        // replies would be routed to this host.
        socket.set_mark(mark)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
