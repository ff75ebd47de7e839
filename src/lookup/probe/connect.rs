//! Connecting, and the meaning of its failures.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::policy::facts::{Answer, Reason};

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lookup) enum ConnectError {
    /// The SYN was answered by RST or an ICMP error.
    Refused,
    /// Several SYNs were not answered.
    NoResponse,
    /// This host has no route: nothing is known about the server.
    NoRoute,
    /// This host has no descriptor or port left.
    Exhausted,
}

impl ConnectError {
    pub(in crate::lookup) const fn answer(self) -> Answer {
        match self {
            Self::Refused => Answer::No(Reason::Refused, None),
            Self::NoResponse => Answer::No(Reason::NoResponse, None),
            Self::NoRoute => Answer::Unknown(Reason::Unreachable),
            Self::Exhausted => Answer::Unknown(Reason::RateLimited),
        }
    }
}

/// Connects within `limit`. Linux sends SYNs after 0, 1, 3 and 7 s.
pub(in crate::lookup) async fn connect(
    address: SocketAddr,
    mark: Option<u32>,
    limit: Duration,
) -> Result<TcpStream, ConnectError> {
    let stream = begin(address, mark).map_err(|error| local_error(&error))?;
    let connecting = async {
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    };
    match timeout(limit, connecting).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(error)) if error.kind() == ErrorKind::TimedOut => Err(ConnectError::NoResponse),
        Ok(Err(_)) => Err(ConnectError::Refused),
        Err(_elapsed) => Err(ConnectError::NoResponse),
    }
}

/// Sends the SYN. An error here is one of this host.
fn begin(address: SocketAddr, mark: Option<u32>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    TcpStream::from_std(socket.into())
}

fn local_error(error: &io::Error) -> ConnectError {
    match error.kind() {
        // Over loopback the RST arrives at once.
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => ConnectError::Refused,
        ErrorKind::AddrInUse => ConnectError::Exhausted,
        ErrorKind::AddrNotAvailable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::PermissionDenied => ConnectError::NoRoute,
        _ => ConnectError::Exhausted,
    }
}
