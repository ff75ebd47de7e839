//! TLS of a client, between its socket and its dialogue.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes that are encrypted, or read, at a time; rustls buffers no more than four times as many.
const PIECE: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct ConnectionTls(Box<ClientConnection>);

impl ConnectionTls {
    /// Makes the whole handshake. The server is not named (SNI): a target is an address.
    ///
    /// # Errors
    /// The server refuses, closes, or does not fit `config`.
    pub(super) async fn start(
        socket: &mut TcpStream,
        config: Arc<ClientConfig>,
    ) -> io::Result<Self> {
        let name = ServerName::IpAddress(socket.peer_addr()?.ip().into());
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut tls = Self(Box::new(connection));
        tls.flush(socket).await?;
        while tls.0.is_handshaking() {
            tls.read_records(socket).await?;
        }
        Ok(tls)
    }

    pub(super) async fn send(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            self.0.writer().write_all(piece)?;
            self.flush(socket).await?;
        }
        Ok(())
    }

    /// Appends decrypted bytes to `received`, at least one; returns their number, 0 after the server's close_notify.
    ///
    /// # Errors
    /// The connection is gone, or was cut off.
    pub(super) async fn receive(
        &mut self,
        socket: &mut TcpStream,
        received: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let before = received.len();
        loop {
            let ended = match self.0.reader().read_to_end(received) {
                Ok(_) => true,
                // There is no more plaintext yet.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
                Err(error) => return Err(error),
            };
            if ended || received.len() > before {
                return Ok(received.len() - before);
            }
            self.read_records(socket).await?;
        }
    }

    /// Reads from the socket and decrypts; answers what TLS itself asks for, such as a key update.
    async fn read_records(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let mut records = Vec::with_capacity(PIECE);
        if socket.read_buf(&mut records).await? == 0 && self.0.is_handshaking() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = records.as_slice();
        loop {
            // With no bytes this is the end of the connection, which the reader then reports.
            self.0.read_tls(&mut rest)?;
            let processed = self.0.process_new_packets();
            // An alert that says why goes out first.
            self.flush(socket).await?;
            processed.map_err(io::Error::other)?;
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    async fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        let mut records = Vec::new();
        while self.0.wants_write() {
            self.0.write_tls(&mut records)?;
        }
        socket.write_all(&records).await
    }
}
