//! The gateway's own connection to an upstream that a session did not reach: whether the client was the fault.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// Two SYNs are not answered by then.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether `upstream` accepts a connection from the gateway's own address. `mark` is the firewall mark of such connections, so
/// that they are not intercepted. A fault of this host, such as a lack of descriptors, says nothing: then it counts as reached.
pub(super) async fn is_reached(upstream: SocketAddr, mark: Option<u32>) -> bool {
    let Ok(socket) = socket(upstream, mark) else { return true };
    match timeout(TIMEOUT, socket.connect(upstream)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => !matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::TimedOut
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
        ),
        Err(_elapsed) => false,
    }
}

fn socket(upstream: SocketAddr, mark: Option<u32>) -> io::Result<TcpSocket> {
    let socket = if upstream.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
    if let Some(mark) = mark {
        SockRef::from(&socket).set_mark(mark)?;
    }
    Ok(socket)
}
