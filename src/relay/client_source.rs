//! Connections from a client's own address: the choice of the port there.
//!
//! The client's connection to the server and ours have the same address, and with the same port they were one connection to
//! connection tracking. Clients choose ports of 32768 and above (Linux) or 49152 and above (RFC 6335 §6), so ours are below.
//! The kernel chooses from `net.ipv4.ip_local_port_range` only, to which `IP_LOCAL_PORT_RANGE` is confined as well: its own
//! choices would be those of clients. So we choose, and try others on a conflict.
//!
//! With `SO_REUSEADDR` connections to several servers share a port; connect(2) rejects only one that exists, or that is in
//! TIME_WAIT and too young to be used again.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

const LOWEST: u16 = 1024;
/// The first that is not ours.
const LIMIT: u16 = 32_768;
/// Conflicts in a row before the choice is the kernel's: enough while nine of ten ports are in use.
const TRIES: usize = 64;

/// Connects to `server` from `client`, which need not be an address of this host, by a socket of `open`.
///
/// # Errors
/// Of socket(2), bind(2) and connect(2). IP_TRANSPARENT needs CAP_NET_RAW or CAP_NET_ADMIN.
pub(super) async fn connect(
    client: IpAddr,
    server: SocketAddr,
    open: impl Fn() -> io::Result<TcpSocket>,
) -> io::Result<TcpStream> {
    for _ in 0..TRIES {
        let socket = transparent(open()?)?;
        socket.set_reuseaddr(true)?;
        let connected = match socket.bind(SocketAddr::new(client, random_port())) {
            Ok(()) => socket.connect(server).await,
            Err(error) => Err(error),
        };
        match connected {
            Err(error) if is_conflict(&error) => {}
            connected => return connected,
        }
    }
    let socket = transparent(open()?)?;
    // At bind it would keep one port for each connection, whatever its destination (ip(7), Linux 4.2).
    setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(SocketAddr::new(client, 0))?;
    socket.connect(server).await
}

fn transparent(socket: TcpSocket) -> io::Result<TcpSocket> {
    // On an IPv6 TCP socket Linux handles SOL_IP options by the same code.
    SockRef::from(&socket).set_ip_transparent_v4(true)?;
    Ok(socket)
}

/// Also returned without any address to connect from; then the kernel's choice fails as well.
fn is_conflict(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable)
}

/// Not predictable from outside: RandomState has random keys.
fn random_port() -> u16 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let random = KEYS.hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
    let offset = random % u64::from(LIMIT - LOWEST);
    LOWEST + u16::try_from(offset).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_below_those_of_clients_and_vary() {
        let ports: Vec<u16> = (0..1000).map(|_| random_port()).collect();
        assert!(ports.iter().all(|port| (LOWEST..LIMIT).contains(port)));
        assert!(ports.windows(2).any(|two| two[0].abs_diff(two[1]) > 1000));
    }
}
