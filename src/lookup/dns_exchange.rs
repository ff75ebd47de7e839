//! One DNS query and its response, with the flags that a resolver library keeps to itself: AD, CD, DO and AA.
//!
//! RFC 1035 §4.2 (UDP, and TCP for truncated responses), RFC 6891 (EDNS), RFC 7766 §5 (TCP after a timeout).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query};
use hickory_proto::rr::RecordType;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout, timeout_at};

use crate::policy::facts::{DomainName, Reason};

/// Octets of a response over UDP that fit the path without fragments (DNS flag day 2020).
const MAX_UDP: u16 = 1232;

/// A query with an empty EDNS option list, and DO set.
pub(super) fn query(name: &DomainName, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(name.as_dns().clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP).set_dnssec_ok(true);
    message.set_edns(edns);
    message
}

/// Why there is no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExchangeError {
    /// This host has no route to the server, or no sockets left.
    NoRoute,
    /// The server's host or a router refuses.
    Refused,
    NoResponse,
}

impl ExchangeError {
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::NoRoute | Self::Refused => Reason::Unreachable,
            Self::NoResponse => Reason::Timeout,
        }
    }
}

/// Sends `query` to `server` and returns its response, within `limit`.
///
/// # Errors
/// There is no response.
pub(super) async fn exchange(
    server: SocketAddr,
    query: &Message,
    limit: Duration,
) -> Result<Message, ExchangeError> {
    let start = Instant::now();
    let octets = query.to_vec().map_err(|_too_long| ExchangeError::NoRoute)?;
    let socket = connected(server).await.map_err(|_no_route| ExchangeError::NoRoute)?;
    let truncated = match timeout(limit / 2, over_udp(&socket, query, &octets)).await {
        Ok(Ok(response)) if !response.metadata.truncation => return Ok(response),
        Ok(Ok(truncated)) => Some(truncated),
        Ok(Err(_)) | Err(_) => None,
    };
    let failure = match timeout_at(start + limit, over_tcp(server, query, &octets)).await {
        Ok(Ok(response)) => return Ok(response),
        Ok(Err(_)) => ExchangeError::Refused,
        Err(_elapsed) => ExchangeError::NoResponse,
    };
    // A server without TCP gives what fits.
    truncated.filter(|response| !response.answers.is_empty()).ok_or(failure)
}

async fn connected(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

async fn over_udp(socket: &UdpSocket, query: &Message, octets: &[u8]) -> io::Result<Message> {
    socket.send(octets).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let received = socket.recv(&mut buffer).await?;
        let datagram = buffer.get(..received).unwrap_or_default();
        // Anything else is not for us, or forged.
        if let Some(response) = response(datagram, query) {
            return Ok(response);
        }
    }
}

/// RFC 1035 §4.2.2: the length comes first.
async fn over_tcp(server: SocketAddr, query: &Message, octets: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(octets.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), octets].concat()).await?;
    let mut received = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut received).await?;
    response(&received, query).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn response(octets: &[u8], query: &Message) -> Option<Message> {
    let response = Message::from_vec(octets).ok()?;
    let is_ours = response.metadata.message_type == MessageType::Response
        && response.metadata.id == query.metadata.id
        // A server that does not understand the query may leave the question out.
        && (response.queries.is_empty() || response.queries == query.queries);
    is_ours.then_some(response)
}
