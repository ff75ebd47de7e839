//! The gateway's end of TLS, with a client or with an upstream: ciphertext in, plaintext out, and back. It does no input or
//! output itself.
//!
//! It keeps nothing but an unfinished record and what its reader has not taken yet, so that an idle session holds no
//! buffer.

mod client;
mod connection;
mod failure;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{
    CipherSuite, ClientConfig, Error, HandshakeKind, InvalidMessage, ProtocolVersion, ServerConfig,
    SupportedCipherSuite,
};

pub use self::client::{CertificateInspector, ClientTls};
use self::connection::{TlsConnection, UnbufferedTls};
pub(super) use self::failure::{failure, upstream_failure};
use crate::engine::{TlsFacts, TlsVersion};

/// Most plaintext of one record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;
/// What encryption adds to a record, at most: header, IV, padding, tag.
const OVERHEAD: usize = 256;
/// Most ciphertext of one read: whole records with the plaintext of a read of bulk data.
const READ: usize = 4 * (RECORD + OVERHEAD);
/// Most bytes of an unfinished record or handshake message. A hello needs less; one that arrives in records of a byte each
/// would have six times its size.
const MAX_PARTIAL: usize = 64 * 1024;
/// Bytes of the client's first flight that are kept until the handshake is complete: its hello names the server.
const FIRST_FLIGHT: usize = 4096;

thread_local! {
    static CIPHERTEXT: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; MAX_PARTIAL + READ].into_boxed_slice());
}

/// Calls `work` with a buffer of this thread: it has room for what a leg keeps of unfinished records and for one read.
pub(super) fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    CIPHERTEXT.with_borrow_mut(|buffer| work(buffer))
}

/// The size of the records with that much plaintext; never more than one read.
pub(super) const fn ciphertext_size(plaintext: usize) -> usize {
    let size = plaintext + plaintext.div_ceil(RECORD) * OVERHEAD;
    if size < READ { size } else { READ }
}

/// TLS with one peer: a client or an upstream. Public for its fuzz target.
pub struct TlsLeg {
    connection: TlsConnection,
    /// The start of a record whose rest has not arrived.
    partial: Vec<u8>,
    /// Decrypted, from `taken` on not taken yet.
    plaintext: Vec<u8>,
    taken: usize,
    /// Written before the handshake was complete.
    held: Vec<u8>,
    /// Of a client.
    first_flight: Vec<u8>,
    /// Until the handshake is complete.
    inspector: Option<CertificateInspector>,
    is_established: bool,
    /// The peer sends no more (close_notify, RFC 8446 §6.1).
    is_closed: bool,
    /// The connection may not be used any more.
    has_failed: bool,
}

impl TlsLeg {
    /// With a client.
    ///
    /// # Errors
    /// The configuration has no certificate that can be used.
    pub fn with_client(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::new(TlsConnection::with_client(config)?))
    }

    /// With the function for a certificate that the client presents.
    #[must_use]
    pub fn with_inspector(self, inspector: Option<CertificateInspector>) -> Self {
        Self { inspector, ..self }
    }

    /// With an upstream of this name.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn with_upstream(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        Ok(Self::new(TlsConnection::with_upstream(config, name)?))
    }

    const fn new(connection: TlsConnection) -> Self {
        Self {
            connection,
            partial: Vec::new(),
            plaintext: Vec::new(),
            taken: 0,
            held: Vec::new(),
            first_flight: Vec::new(),
            inspector: None,
            is_established: false,
            is_closed: false,
            has_failed: false,
        }
    }

    /// Appends to `outgoing` what this side sends first: with an upstream, its hello.
    ///
    /// # Errors
    /// A fault of the configuration.
    pub fn start(&mut self, outgoing: &mut Vec<u8>) -> Result<(), Error> {
        self.process(&mut [], outgoing).map(|_| ())
    }

    /// Takes ciphertext of the peer, and appends to `outgoing` what TLS itself has to send. Returns the facts of a handshake
    /// that this completes.
    ///
    /// # Errors
    /// The peer breaks the protocol, or has no version or algorithm in common; the alert is in `outgoing`.
    pub fn receive(
        &mut self,
        ciphertext: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<Option<TlsFacts>, Error> {
        if self.partial.is_empty() {
            return self.receive_behind_partial(ciphertext, outgoing);
        }
        let mut input = [&self.partial[..], ciphertext].concat();
        self.receive_behind_partial(&mut input, outgoing)
    }

    /// Copies what is kept of an unfinished record to the start of `buffer`, and returns its length: what is read behind it
    /// goes with it to [`Self::receive_behind_partial`].
    pub(super) fn copy_partial(&self, buffer: &mut [u8]) -> usize {
        let count = self.partial.len();
        if let Some(room) = buffer.get_mut(..count) {
            room.copy_from_slice(&self.partial);
        }
        count
    }

    /// As [`Self::receive`], with input that starts with what is kept of an unfinished record.
    pub(super) fn receive_behind_partial(
        &mut self,
        input: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<Option<TlsFacts>, Error> {
        if !self.is_established && self.connection.is_with_client() {
            let fresh = input.get(self.partial.len()..).unwrap_or_default();
            let room = FIRST_FLIGHT.saturating_sub(self.first_flight.len());
            let kept = fresh.get(..room.min(fresh.len())).unwrap_or_default();
            self.first_flight.extend_from_slice(kept);
        }
        let used = self.process(input, outgoing)?;
        let rest = input.get(used..).unwrap_or_default();
        if rest.len() > MAX_PARTIAL {
            self.has_failed = true;
            return Err(InvalidMessage::HandshakePayloadTooLarge.into());
        }
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
        if self.is_established || self.connection.common().is_handshaking() {
            return Ok(None);
        }
        self.is_established = true;
        let held = std::mem::take(&mut self.held);
        self.send(&held, outgoing)?;
        let presented = self.connection.common().peer_certificates().unwrap_or_default();
        let client_certificate = self.inspector.take().and_then(|inspect| inspect(presented));
        Ok(Some(TlsFacts {
            client_certificate,
            cipher_suite: self.connection.common().negotiated_cipher_suite().and_then(name_of),
            version: match self.connection.common().protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
                Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
                _ => TlsVersion::Unknown,
            },
            resumed: self.connection.common().handshake_kind() == Some(HandshakeKind::Resumed),
            client_hello: std::mem::take(&mut self.first_flight),
        }))
    }

    /// Processes whole records. Returns the number of bytes that are done with. rustls keeps positions within what it has not
    /// discarded, so it always gets those bytes again, also where there are no new ones.
    fn process(&mut self, input: &mut [u8], outgoing: &mut Vec<u8>) -> Result<usize, Error> {
        let Self { connection, plaintext, is_closed, .. } = self;
        let processed = match connection {
            TlsConnection::Client(tls) => {
                process_records(&mut **tls, input, outgoing, plaintext, is_closed)
            }
            TlsConnection::Upstream(tls) => {
                process_records(&mut **tls, input, outgoing, plaintext, is_closed)
            }
        };
        self.has_failed |= processed.is_err();
        processed
    }

    /// The client sent nothing yet.
    pub(super) const fn awaits_hello(&self) -> bool {
        !self.is_established && self.connection.is_with_client() && self.first_flight.is_empty()
    }

    /// Decrypted bytes that were not taken yet, at most as many as `buffer` holds.
    pub fn take(&mut self, buffer: &mut [u8]) -> usize {
        let rest = self.plaintext.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.taken += count;
        if self.taken == self.plaintext.len() {
            (self.plaintext, self.taken) = (Vec::new(), 0);
        }
        count
    }

    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Encrypts `plaintext` to `outgoing`. Before the handshake is complete it is held until then.
    ///
    /// # Errors
    /// So much was encrypted with one key that the connection has to end.
    pub fn send(&mut self, plaintext: &[u8], outgoing: &mut Vec<u8>) -> Result<(), Error> {
        if !self.is_established {
            self.held.extend_from_slice(plaintext);
            return Ok(());
        }
        if self.has_failed {
            return Err(Error::EncryptError);
        }
        for piece in plaintext.chunks(RECORD) {
            self.flush_own(outgoing)?; // What TLS has to send comes first.
            let Self { connection, partial, .. } = self;
            match connection {
                TlsConnection::Client(tls) => encrypt(&mut **tls, piece, partial, outgoing)?,
                TlsConnection::Upstream(tls) => encrypt(&mut **tls, piece, partial, outgoing)?,
            }
        }
        Ok(())
    }

    /// Appends what TLS itself has to send, such as a new key.
    fn flush_own(&mut self, outgoing: &mut Vec<u8>) -> Result<(), Error> {
        let mut partial = std::mem::take(&mut self.partial);
        let used = self.process(&mut partial, outgoing)?;
        partial.drain(..used);
        self.partial = partial;
        Ok(())
    }

    /// Ends what the peer receives (close_notify).
    pub fn close(&mut self, outgoing: &mut Vec<u8>) {
        if self.has_failed {
            return;
        }
        let Self { connection, partial, .. } = self;
        match connection {
            TlsConnection::Client(tls) => close_notify(&mut **tls, partial, outgoing),
            TlsConnection::Upstream(tls) => close_notify(&mut **tls, partial, outgoing),
        }
    }
}

impl fmt::Debug for TlsLeg {
    /// Nothing that was encrypted, and no key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsLeg")
            .field("is_established", &self.is_established)
            .finish_non_exhaustive()
    }
}

/// IANA's name; rustls has others for those of TLS 1.3.
fn name_of(suite: SupportedCipherSuite) -> Option<&'static str> {
    match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Some("TLS_AES_128_GCM_SHA256"),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => Some("TLS_AES_256_GCM_SHA384"),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some("TLS_CHACHA20_POLY1305_SHA256"),
        suite => suite.as_str(),
    }
}

/// See [`TlsLeg::process`]; decrypted bytes are appended to `plaintext`.
fn process_records<T: UnbufferedTls>(
    tls: &mut T,
    input: &mut [u8],
    outgoing: &mut Vec<u8>,
    plaintext: &mut Vec<u8>,
    is_closed: &mut bool,
) -> Result<usize, Error> {
    let mut used = 0;
    loop {
        let rest = input.get_mut(used..).unwrap_or_default();
        let remaining = rest.len();
        let UnbufferedStatus { discard, state } = tls.process_records(rest);
        used += discard;
        match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                // Once for all records of this input.
                if plaintext.is_empty() {
                    plaintext.reserve(remaining);
                }
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    used += record.discard;
                    plaintext.extend_from_slice(record.payload);
                }
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                let encode = |room: &mut [u8]| match data.encode(room) {
                    Ok(count) => Ok(count),
                    Err(EncodeError::InsufficientSize(size)) => Err(size.required_size),
                    Err(EncodeError::AlreadyEncoded) => Ok(0),
                };
                append(outgoing, 0, encode);
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::PeerClosed) => *is_closed = true,
            // Nothing is left to process. Early data is never enabled.
            Ok(_) => return Ok(used),
            Err(error) => {
                take_alert(tls, outgoing);
                return Err(error);
            }
        }
    }
}

/// After an error: what the peer still has to read. No record may be processed any more.
fn take_alert<T: UnbufferedTls>(tls: &mut T, outgoing: &mut Vec<u8>) {
    while tls.has_to_write() {
        let Ok(ConnectionState::EncodeTlsData(mut data)) = tls.process_records(&mut []).state
        else {
            return;
        };
        append(outgoing, RECORD, |room| data.encode(room).map_err(|_too_small| 0));
    }
}

/// Encrypts `piece`, one record, to `outgoing`. `partial` is the input that is not done with, see [`TlsLeg::process`].
fn encrypt<T: UnbufferedTls>(
    tls: &mut T,
    piece: &[u8],
    partial: &mut [u8],
    outgoing: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut result = Ok(());
    append(outgoing, piece.len() + OVERHEAD, |room| match tls.process_records(partial).state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => match traffic.encrypt(piece, room) {
            Ok(count) => Ok(count),
            Err(EncryptError::InsufficientSize(size)) => Err(size.required_size),
            Err(EncryptError::EncryptExhausted) => {
                result = Err(Error::EncryptError);
                Ok(0)
            }
        },
        Ok(_) => Ok(0),
        Err(error) => {
            result = Err(error);
            Ok(0)
        }
    });
    result
}

/// `partial`: see [`encrypt`].
fn close_notify<T: UnbufferedTls>(tls: &mut T, partial: &mut [u8], outgoing: &mut Vec<u8>) {
    if let Ok(ConnectionState::WriteTraffic(mut traffic)) = tls.process_records(partial).state {
        append(outgoing, OVERHEAD, |room| traffic.queue_close_notify(room).map_err(|_too_small| 0));
    }
}

/// Appends what `write` puts into a room of `guess` bytes; it returns how many it needs where these are too few, or 0 to
/// give up.
fn append(
    outgoing: &mut Vec<u8>,
    guess: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, usize>,
) {
    let start = outgoing.len();
    let mut room = guess;
    loop {
        outgoing.resize(start + room, 0);
        match write(outgoing.get_mut(start..).unwrap_or_default()) {
            Ok(count) => return outgoing.truncate(start + count),
            Err(needed) if needed > room => room = needed,
            Err(_) => return outgoing.truncate(start),
        }
    }
}

#[cfg(test)]
mod tests;
