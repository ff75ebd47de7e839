//! Opaque bytes after STARTTLS, which client and sink share.
//!
//! The client sends a header of ten bytes, the start of a TLS record, direction and length, and then that many bytes flow one
//! way; the receiver confirms an upload with its length, so that its end is known without closing anything.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, ensure};
use rustix::net::{RecvFlags, recv};

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

/// Moves `length` opaque bytes in `direction` over a client's connection after STARTTLS.
pub(crate) fn transfer(mut stream: &TcpStream, direction: Direction, length: u64) -> Result<()> {
    // The bytes after STARTTLS must begin like TLS: a record of type handshake (RFC 8446 section 5.1).
    let mut header = [0x16; 10];
    header[1] = direction.byte();
    header[2..].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&header)?;
    if direction == Direction::Down {
        return discard(stream, length).context("receiving opaque bytes");
    }
    pour(stream, length).context("sending opaque bytes")?;
    let mut confirmed = [0; 8];
    stream.read_exact(&mut confirmed).context("the sink's count")?;
    let confirmed = u64::from_be_bytes(confirmed);
    ensure!(confirmed == length, "{length} bytes sent, the sink counted {confirmed}");
    Ok(())
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
