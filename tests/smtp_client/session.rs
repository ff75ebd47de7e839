//! A client that sends one command after the other, without PIPELINING, and measures no times itself.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::tls::{Connection, Handshake, TlsClient};

/// Timeout of each step of a session.
const PATIENCE: Duration = Duration::from_secs(30);
/// The recipient of messages that name no other.
pub(super) const RECIPIENT: &str = "recipient@bench.example";

/// How a message is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MessageTransfer {
    #[default]
    Data,
    /// BDAT (RFC 3030) in chunks of this many bytes, each sent after the reply to the one before.
    Chunks(usize),
}

/// A connection whose greeting has been read.
pub(crate) struct Session {
    connection: Connection,
    reply: Vec<u8>,
}

impl Session {
    /// Connects and reads the greeting.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let mut session = Self::open(address)?;
        session.expect("220").context("the greeting")?;
        Ok(session)
    }

    /// As [`Self::connect`], with TLS from the first byte (RFC 8314).
    pub(crate) fn connect_tls(
        address: SocketAddr,
        tls: &TlsClient,
        name: &str,
    ) -> Result<(Self, Handshake)> {
        let mut session = Self::open(address)?;
        let handshake = session.connection.start_tls(tls, name).context("the TLS handshake")?;
        session.expect("220").context("the greeting")?;
        Ok((session, handshake))
    }

    fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("connecting to {address}"))?;
        prepare(&stream)?;
        Ok(Self { connection: Connection::new(stream), reply: Vec::with_capacity(1024) })
    }

    /// Sends STARTTLS and makes the handshake; the session begins anew with EHLO (RFC 3207 §4.2).
    pub(crate) fn start_tls(&mut self, tls: &TlsClient, name: &str) -> Result<Handshake> {
        self.command("STARTTLS", "220")?;
        self.connection.start_tls(tls, name).context("the TLS handshake")
    }

    /// Sends one command and reads its reply, which must have this code.
    pub(crate) fn command(&mut self, line: &str, code: &str) -> Result<()> {
        self.connection.write_all(format!("{line}\r\n").as_bytes())?;
        self.expect(code).with_context(|| format!("the reply to {line}"))
    }

    pub(crate) fn hello(&mut self) -> Result<()> {
        self.command("EHLO bench.example", "250")
    }

    /// One transaction; `content` ends with CRLF.CRLF, as [`message_of`] makes it.
    pub(crate) fn message(&mut self, content: &[u8]) -> Result<()> {
        self.message_by(MessageTransfer::Data, RECIPIENT, content)
    }

    /// As [`Self::message`]; BDAT leaves the line with the dot out.
    pub(crate) fn message_by(
        &mut self,
        transfer: MessageTransfer,
        recipient: &str,
        content: &[u8],
    ) -> Result<()> {
        self.command("MAIL FROM:<sender@bench.example>", "250")?;
        self.command(&format!("RCPT TO:<{recipient}>"), "250")?;
        match transfer {
            MessageTransfer::Data => {
                self.command("DATA", "354")?;
                self.connection.write_all(content)?;
                self.expect("250").context("the reply after data")
            }
            MessageTransfer::Chunks(size) => {
                let content = content.strip_suffix(b".\r\n").unwrap_or(content);
                let mut left = content.len();
                for chunk in content.chunks(size) {
                    left -= chunk.len();
                    let last = if left == 0 { " LAST" } else { "" };
                    let command = format!("BDAT {}{last}\r\n", chunk.len());
                    self.connection.write_all(&[command.as_bytes(), chunk].concat())?;
                    self.expect("250").context("the reply to a chunk")?;
                }
                Ok(())
            }
        }
    }

    /// Sends QUIT and reads the reply; under TLS the server's close_notify is not waited for.
    pub(crate) fn quit(mut self) -> Result<()> {
        self.command("QUIT", "221")?;
        if self.connection.is_tls() {
            // The server may have closed already.
            let _closed = self.connection.close();
        }
        Ok(())
    }

    pub(crate) const fn socket(&self) -> &TcpStream {
        self.connection.socket()
    }

    /// Reads one reply to its last line.
    pub(crate) fn expect(&mut self, code: &str) -> Result<()> {
        self.reply.clear();
        while !complete(&self.reply) {
            let mut piece = [0; 1024];
            let length = self.connection.read(&mut piece)?;
            if length == 0 {
                bail!("closed after {:?}", String::from_utf8_lossy(&self.reply));
            }
            self.reply.extend_from_slice(&piece[..length]);
        }
        let line = String::from_utf8_lossy(&self.reply);
        ensure!(line.starts_with(code), "expected {code}, found {:?}", line.trim_end());
        Ok(())
    }
}

/// The last line is whole and has a space, not a hyphen, after its code (RFC 5321 section 4.2.1).
fn complete(reply: &[u8]) -> bool {
    let Some(lines) = reply.strip_suffix(b"\r\n") else {
        return false;
    };
    let start = memchr::memrchr(b'\n', lines).map_or(0, |position| position + 1);
    lines.get(start + 3) == Some(&b' ')
}

/// Time-outs on every read and write, and no delay for small ones.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// A message of `length` bytes in lines of 78, its end of data included.
pub(crate) fn message_of(length: usize) -> Vec<u8> {
    let mut content = b"From: <sender@bench.example>\r\nSubject: benchmark\r\n\r\n".to_vec();
    while content.len() < length {
        content.extend_from_slice(&[b'x'; 76]);
        content.extend_from_slice(b"\r\n");
    }
    content.extend_from_slice(b".\r\n");
    content
}
