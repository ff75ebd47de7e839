//! Connecting, and what its failures mean.

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
pub(in crate::lookup) enum Missed {
    /// RST, or an ICMP error, in answer to the SYN.
    Refused,
    /// Nothing in answer to several SYNs.
    Silent,
    /// This host has no way to there: it says nothing of the server.
    NoRoute,
    /// This host has no descriptor or port left.
    Exhausted,
}

impl Missed {
    pub(in crate::lookup) const fn answer(self) -> Answer {
        match self {
            Self::Refused => Answer::No(Reason::Refused, None),
            Self::Silent => Answer::No(Reason::NoResponse, None),
            Self::NoRoute => Answer::Unknown(Reason::Unreachable),
            Self::Exhausted => Answer::Unknown(Reason::RateLimited),
        }
    }
}

/// Connects within `patience`: Linux sends SYNs at 0, 1, 3 and 7 s.
///
/// # Errors
/// By whose fault there is no connection.
pub(in crate::lookup) async fn connect(
    address: SocketAddr,
    mark: Option<u32>,
    patience: Duration,
) -> Result<TcpStream, Missed> {
    let stream = begin(address, mark).map_err(|error| local(&error))?;
    let connecting = async {
        stream.writable().await?;
        match stream.take_error()? {
            Some(error) => Err(error),
            None => Ok(()),
        }
    };
    match timeout(patience, connecting).await {
        Ok(Ok(())) => Ok(stream),
        Ok(Err(error)) if error.kind() == ErrorKind::TimedOut => Err(Missed::Silent),
        Ok(Err(_)) => Err(Missed::Refused),
        Err(_elapsed) => Err(Missed::Silent),
    }
}

/// Sends the SYN. What fails here and now fails on this host.
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

fn local(error: &io::Error) -> Missed {
    match error.kind() {
        // Over loopback the RST is there at once.
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Missed::Refused,
        ErrorKind::AddrInUse => Missed::Exhausted,
        ErrorKind::AddrNotAvailable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::PermissionDenied => Missed::NoRoute,
        _ => Missed::Exhausted,
    }
}
