//! A minimal SMTP client: sends one command, reads one reply (RFC 5321 §3.1, §3.2, §4.2).

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::smtp::{EnhancedCode, MAX_REPLY, Reply, ReplyParse};
use crate::smtp_connection::ConnectionTls;

/// Time for the reply to QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a probe ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lookup) enum ProbeError {
    /// No reply in time, or the server did not accept our data.
    TimedOut,
    /// The server closed the connection.
    Closed,
    /// The server's data is not SMTP.
    NotSmtp,
}

/// Why there is no TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lookup) enum TlsProbeError {
    TimedOut,
    /// The server closed the connection.
    Closed,
    /// An alert, or a violation of the protocol.
    Tls(String),
}

/// The parts of a reply that probes use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::lookup) struct ProbeReply {
    pub(in crate::lookup) code: u16,
    pub(in crate::lookup) enhanced: Option<EnhancedCode>,
    /// Whether a line offers STARTTLS (RFC 3207).
    pub(in crate::lookup) starttls: bool,
}

impl ProbeReply {
    /// 2 to 5.
    pub(in crate::lookup) const fn class(self) -> u16 {
        self.code / 100
    }
}

/// `550 5.1.1`
impl std::fmt::Display for ProbeReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.enhanced {
            Some(enhanced) => write!(f, "{} {enhanced}", self.code),
            None => self.code.fmt(f),
        }
    }
}

pub(in crate::lookup) struct SmtpClient {
    stream: TcpStream,
    tls: Option<ConnectionTls>,
    deadline: Instant,
    received: Vec<u8>,
}

impl SmtpClient {
    pub(in crate::lookup) const fn new(stream: TcpStream, deadline: Instant) -> Self {
        Self { stream, tls: None, deadline, received: Vec::new() }
    }

    pub(in crate::lookup) const fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    pub(in crate::lookup) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes in one write.
    pub(in crate::lookup) async fn send(&mut self, bytes: &[u8]) -> Result<(), ProbeError> {
        let sending = async {
            match &mut self.tls {
                None => self.stream.write_all(bytes).await,
                Some(tls) => tls.send(&mut self.stream, bytes).await,
            }
        };
        match timeout_at(self.deadline, sending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(probe_error(error.kind())),
            Err(_elapsed) => Err(ProbeError::TimedOut),
        }
    }

    /// Makes the TLS handshake, after the 220 to STARTTLS.
    pub(in crate::lookup) async fn start_tls(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<&ConnectionTls, TlsProbeError> {
        // RFC 3207 §6: what came in plaintext and was not read counts for nothing.
        self.received.clear();
        let started = ConnectionTls::start(&mut self.stream, config, name);
        match timeout_at(self.deadline, started).await {
            Ok(Ok(tls)) => Ok(self.tls.insert(tls)),
            Ok(Err(error)) if error.kind() == ErrorKind::TimedOut => Err(TlsProbeError::TimedOut),
            Ok(Err(error)) if is_closed(error.kind()) => Err(TlsProbeError::Closed),
            Ok(Err(error)) => Err(TlsProbeError::Tls(error.to_string())),
            Err(_elapsed) => Err(TlsProbeError::TimedOut),
        }
    }

    async fn receive(&mut self) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.read_buf(&mut self.received).await,
            Some(tls) => tls.receive(&mut self.stream, &mut self.received).await,
        }
    }

    /// Sends a command and reads its reply.
    pub(in crate::lookup) async fn command(
        &mut self,
        command: &str,
    ) -> Result<ProbeReply, ProbeError> {
        self.send(format!("{command}\r\n").as_bytes()).await?;
        self.read_reply().await
    }

    /// Sends EHLO, or HELO to a server that does not know it (RFC 5321 §3.2).
    pub(in crate::lookup) async fn ehlo_or_helo(
        &mut self,
        hostname: &str,
    ) -> Result<ProbeReply, ProbeError> {
        let reply = self.command(&format!("EHLO {hostname}")).await?;
        if !matches!(reply.code, 500 | 502 | 504 | 550) {
            return Ok(reply);
        }
        self.command(&format!("HELO {hostname}")).await
    }

    /// Reads the next reply, all its lines.
    pub(in crate::lookup) async fn read_reply(&mut self) -> Result<ProbeReply, ProbeError> {
        self.read_reply_as(|reply| ProbeReply {
            code: reply.code,
            enhanced: reply.enhanced(),
            starttls: reply.texts().any(|text| {
                let keyword = text.split(|byte| *byte == b' ').next();
                keyword.is_some_and(|word| word.eq_ignore_ascii_case(b"STARTTLS"))
            }),
        })
        .await
    }

    /// Reads the next reply and converts it.
    pub(in crate::lookup) async fn read_reply_as<T>(
        &mut self,
        convert: impl Fn(&Reply<'_>) -> T,
    ) -> Result<T, ProbeError> {
        let mut whole_lines = 0;
        loop {
            match Reply::parse_on(&self.received, &mut whole_lines) {
                ReplyParse::Complete(reply) => {
                    let converted = convert(&reply);
                    let length = reply.raw.len();
                    self.received.drain(..length);
                    return Ok(converted);
                }
                ReplyParse::Malformed => return Err(ProbeError::NotSmtp),
                ReplyParse::Incomplete => {}
            }
            // The parser rejects more than this.
            self.received.reserve(512.min(MAX_REPLY));
            match timeout_at(self.deadline, self.receive()).await {
                Ok(Ok(0)) => return Err(ProbeError::Closed),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(probe_error(error.kind())),
                Err(_elapsed) => return Err(ProbeError::TimedOut),
            }
        }
    }

    /// Sends QUIT and waits a moment for the reply: a server logs other ends as lost connections.
    pub(in crate::lookup) async fn quit(mut self) {
        self.deadline = self.deadline.min(Instant::now() + QUIT_TIMEOUT);
        if self.send(b"QUIT\r\n").await.is_ok() {
            let _any_reply_or_none = self.read_reply().await;
        }
    }

    /// The same for a caller that does not wait, in a process that lives on.
    pub(in crate::lookup) fn quit_in_background(self) {
        tokio::spawn(self.quit());
    }
}

const fn is_closed(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

const fn probe_error(error: ErrorKind) -> ProbeError {
    match error {
        // The kernel gave up retransmitting.
        ErrorKind::TimedOut => ProbeError::TimedOut,
        _ => ProbeError::Closed,
    }
}
