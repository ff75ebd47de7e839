//! TLS of a client, between its socket and its dialogue.

use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes that are encrypted, or read, at a time; rustls buffers no more than four times as many.
const PIECE: usize = 16 * 1024;

#[derive(Debug)]
pub struct ConnectionTls {
    connection: Box<ClientConnection>,
    sizes: HandshakeSizes,
}

/// Octets of a handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandshakeSizes {
    /// Of the ClientHello, which is sent at once.
    pub client_hello: usize,
    /// Of all that the server sent: the most of it is its certificates, at once.
    pub server: usize,
}

impl ConnectionTls {
    /// Makes the whole handshake with the server `name`; an address is not named to it (SNI).
    ///
    /// # Errors
    /// The server refuses, closes, or does not fit `config`.
    pub async fn start(
        socket: &mut TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        let mut tls = Self { connection: Box::new(connection), sizes: HandshakeSizes::default() };
        tls.sizes.client_hello = tls.flush(socket).await?;
        while tls.connection.is_handshaking() {
            tls.sizes.server += tls.read_records(socket).await?;
        }
        Ok(tls)
    }

    pub const fn handshake_sizes(&self) -> HandshakeSizes {
        self.sizes
    }

    /// The server's certificate and those that it sent after it.
    pub fn certificates(&self) -> Vec<CertificateDer<'static>> {
        self.connection.peer_certificates().map(<[_]>::to_vec).unwrap_or_default()
    }

    /// Of TLS, once the handshake is over.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.connection.protocol_version()
    }

    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            self.connection.writer().write_all(piece)?;
            self.flush(socket).await?;
        }
        Ok(())
    }

    /// Appends decrypted bytes to `received`, at least one; returns their number, 0 after the server's close_notify.
    ///
    /// # Errors
    /// The connection is gone, or was cut off.
    pub async fn receive(
        &mut self,
        socket: &mut TcpStream,
        received: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let before = received.len();
        loop {
            let ended = match self.connection.reader().read_to_end(received) {
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

    /// Reads from the socket and decrypts; answers what TLS itself asks for, such as a key update. Returns the octets read.
    async fn read_records(&mut self, socket: &mut TcpStream) -> io::Result<usize> {
        let mut records = Vec::with_capacity(PIECE);
        if socket.read_buf(&mut records).await? == 0 && self.connection.is_handshaking() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = records.as_slice();
        loop {
            // With no bytes this is the end of the connection, which the reader then reports.
            self.connection.read_tls(&mut rest)?;
            let processed = self.connection.process_new_packets();
            // An alert that says why goes out first.
            self.flush(socket).await?;
            processed.map_err(io::Error::other)?;
            if rest.is_empty() {
                return Ok(records.len());
            }
        }
    }

    /// Returns the octets sent.
    async fn flush(&mut self, socket: &mut TcpStream) -> io::Result<usize> {
        let mut records = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut records)?;
        }
        socket.write_all(&records).await?;
        Ok(records.len())
    }
}
