//! The benchmark's own SMTP client, and the bulk transfer that client and sink share.
//!
//! The client sends one command after the other, without PIPELINING, and measures no times itself.
//! After STARTTLS it sends a header of nine bytes, direction and length, and then that many bytes flow one way; the
//! receiver confirms an upload with its length, so that its end is known without closing anything.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::net::{RecvFlags, recv};

/// Timeout of each step of a session.
const PATIENCE: Duration = Duration::from_secs(30);
/// Size of one write: it fits the second-level cache, so that the sender's memory bandwidth is not measured.
const CHUNK: usize = 256 * 1024;

/// The direction of opaque bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Client to server.
    Up,
    /// Server to client.
    Down,
}

impl Direction {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'U' => Some(Self::Up),
            b'D' => Some(Self::Down),
            _ => None,
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Up => b'U',
            Self::Down => b'D',
        }
    }
}

/// A connection whose greeting has been read.
pub(crate) struct Session {
    stream: TcpStream,
    reply: Vec<u8>,
}

impl Session {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .with_context(|| format!("connecting to {address}"))?;
        prepare(&stream)?;
        let mut session = Self { stream, reply: Vec::with_capacity(1024) };
        session.expect("220").context("the greeting")?;
        Ok(session)
    }

    /// Sends one command and reads its reply, which must have this code.
    pub(crate) fn command(&mut self, line: &str, code: &str) -> Result<()> {
        self.stream.write_all(format!("{line}\r\n").as_bytes())?;
        self.expect(code).with_context(|| format!("the reply to {line}"))
    }

    pub(crate) fn hello(&mut self) -> Result<()> {
        self.command("EHLO bench.example", "250")
    }

    /// One transaction; `content` ends with CRLF.CRLF.
    pub(crate) fn message(&mut self, content: &[u8]) -> Result<()> {
        self.command("MAIL FROM:<sender@bench.example>", "250")?;
        self.command("RCPT TO:<recipient@bench.example>", "250")?;
        self.command("DATA", "354")?;
        self.stream.write_all(content)?;
        self.expect("250").context("the reply after data")
    }

    pub(crate) fn quit(mut self) -> Result<()> {
        self.command("QUIT", "221")
    }

    /// Sends STARTTLS and moves `length` opaque bytes in `direction`.
    pub(crate) fn transfer(&mut self, direction: Direction, length: u64) -> Result<()> {
        // The bytes after STARTTLS must begin like TLS: a record of type handshake (RFC 8446 section 5.1).
        let mut header = [0x16; 10];
        header[1] = direction.byte();
        header[2..].copy_from_slice(&length.to_be_bytes());
        self.stream.write_all(&header)?;
        if direction == Direction::Down {
            return discard(&self.stream, length).context("receiving opaque bytes");
        }
        pour(&self.stream, length).context("sending opaque bytes")?;
        let mut confirmed = [0; 8];
        self.stream.read_exact(&mut confirmed).context("the sink's count")?;
        let confirmed = u64::from_be_bytes(confirmed);
        ensure!(confirmed == length, "{length} bytes sent, the sink counted {confirmed}");
        Ok(())
    }

    /// Reads one reply to its last line.
    fn expect(&mut self, code: &str) -> Result<()> {
        self.reply.clear();
        while !complete(&self.reply) {
            let mut piece = [0; 1024];
            let length = self.stream.read(&mut piece)?;
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

/// Sends `length` bytes out of one buffer.
pub(crate) fn pour(mut stream: &TcpStream, length: u64) -> io::Result<()> {
    let chunk = vec![0x67; CHUNK];
    let mut left = length;
    while left > 0 {
        let now = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        stream.write_all(&chunk[..now])?;
        left -= now as u64;
    }
    Ok(())
}

/// Takes `length` bytes off the socket; the kernel drops them without a copy (MSG_TRUNC on TCP, tcp(7)).
pub(crate) fn discard(stream: &TcpStream, length: u64) -> io::Result<()> {
    let mut room = vec![0; 4 * CHUNK];
    let mut left = length;
    while left > 0 {
        let most = usize::try_from(left).map_or(room.len(), |left| left.min(room.len()));
        let (_, taken) = match recv(stream, &mut room[..most], RecvFlags::TRUNC) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        if taken == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= taken as u64;
    }
    Ok(())
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
