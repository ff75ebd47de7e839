//! One SMTP connection from the client's side: bytes out, whole replies in, each within a time limit.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::client_tls::ConnectionTls;
use crate::smtp::{EnhancedCode, Reply, ReplyParse};

/// The server's answer to a command, or its absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyResult {
    Reply {
        code: u16,
        /// Without code; lines are separated by LF.
        text: String,
    },
    /// The server closed the connection, or sent something that is not a reply.
    Closed,
    /// No reply within the time limit.
    Timeout,
}

impl ReplyResult {
    /// First digit of the code; 0 without a reply.
    pub const fn class(&self) -> u16 {
        match self.code() {
            Some(code) => code / 100,
            None => 0,
        }
    }

    pub const fn code(&self) -> Option<u16> {
        match self {
            Self::Reply { code, .. } => Some(*code),
            Self::Closed | Self::Timeout => None,
        }
    }

    /// `550 5.7.1`, or the basic code alone.
    pub fn codes(&self) -> String {
        match self {
            Self::Reply { code, text } => match EnhancedCode::parse(text.as_bytes()) {
                Some(enhanced) => format!("{code} {enhanced}"),
                None => code.to_string(),
            },
            Self::Closed | Self::Timeout => self.to_string(),
        }
    }
}

impl From<&Reply<'_>> for ReplyResult {
    fn from(reply: &Reply<'_>) -> Self {
        let texts = reply.texts().map(|text| String::from_utf8_lossy(text).into_owned());
        Self::Reply { code: reply.code, text: texts.collect::<Vec<_>>().join("\n") }
    }
}

/// The last line, as logs of MTAs show it.
impl fmt::Display for ReplyResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply { code, text } => {
                write!(f, "{code} {}", text.rsplit('\n').next().unwrap_or_default())
            }
            Self::Closed => f.write_str("closed"),
            Self::Timeout => f.write_str("no answer"),
        }
    }
}

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    tls: Option<ConnectionTls>,
    received: Vec<u8>,
    /// Bytes of `received` that are complete lines of an incomplete reply.
    parsed: usize,
    timeout: Duration,
}

impl Connection {
    /// Connects to `server`, from the address `local` if given. `limit` bounds this and each later step.
    ///
    /// # Errors
    /// There is no connection within the limit.
    pub async fn open(
        local: Option<IpAddr>,
        server: SocketAddr,
        limit: Duration,
    ) -> io::Result<Self> {
        let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(local) = local {
            socket.bind(SocketAddr::new(local, 0))?;
        }
        let stream = timeout(limit, socket.connect(server)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, tls: None, received: Vec::new(), parsed: 0, timeout: limit })
    }

    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends `bytes` in as few segments as possible.
    ///
    /// # Errors
    /// The server does not read, or the connection is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = async {
            match &mut self.tls {
                None => self.stream.write_all(bytes).await,
                Some(tls) => tls.send(&mut self.stream, bytes).await,
            }
        };
        timeout(self.timeout, sent).await?
    }

    /// Makes the TLS handshake. Plaintext that was received and not read is dropped (RFC 3207 §6).
    ///
    /// # Errors
    /// The handshake fails, or takes longer than the time limit.
    pub async fn start_tls(&mut self, config: Arc<ClientConfig>) -> io::Result<()> {
        self.received.clear();
        self.parsed = 0;
        // A target is an address.
        let name = ServerName::IpAddress(self.stream.peer_addr()?.ip().into());
        let started = ConnectionTls::start(&mut self.stream, config, name);
        self.tls = Some(timeout(self.timeout, started).await??);
        Ok(())
    }

    /// Ends the client's direction; replies can still be read.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads the next reply.
    pub async fn reply(&mut self) -> ReplyResult {
        loop {
            match Reply::parse_on(&self.received, &mut self.parsed) {
                ReplyParse::Complete(reply) => {
                    let response = ReplyResult::from(&reply);
                    let len = reply.raw.len();
                    self.received.drain(..len);
                    self.parsed = 0;
                    return response;
                }
                ReplyParse::Malformed => return ReplyResult::Closed,
                ReplyParse::Incomplete => {}
            }
            match timeout(self.timeout, self.receive()).await {
                Err(_elapsed) => return ReplyResult::Timeout,
                Ok(Ok(0) | Err(_)) => return ReplyResult::Closed,
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Appends what the server sent to `received`. Returns the number of bytes, 0 at the end of the connection.
    async fn receive(&mut self) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.read_buf(&mut self.received).await,
            Some(tls) => tls.receive(&mut self.stream, &mut self.received).await,
        }
    }
}
