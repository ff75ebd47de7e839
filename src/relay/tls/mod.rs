//! The gateway's end of a client's TLS: ciphertext in, plaintext out, and back. It does no input or output itself.
//!
//! It keeps nothing but an unfinished record and what its reader has not taken yet, so that an idle session holds no
//! buffer.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{
    AlertDescription, Error, HandshakeKind, InvalidMessage, PeerIncompatible, ProtocolVersion,
    ServerConfig,
};

use crate::engine::{TlsFacts, TlsFailure, TlsHandshake, TlsVersion};

/// Most plaintext of one record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;
/// What encryption adds to a record, at most: header, IV, padding, tag.
const OVERHEAD: usize = 256;
/// Bytes of the client's first flight that are kept until the handshake is complete: its hello names the server.
const FIRST_FLIGHT: usize = 4096;

thread_local! {
    static CIPHERTEXT: RefCell<Box<[u8]>> =
        RefCell::new(vec![0; RECORD + OVERHEAD].into_boxed_slice());
}

/// Calls `work` with a buffer of this thread for one read of ciphertext.
pub(super) fn with_buffer<T>(work: impl FnOnce(&mut [u8]) -> T) -> T {
    CIPHERTEXT.with_borrow_mut(|buffer| work(buffer))
}

/// One client's TLS.
pub(super) struct TlsLeg {
    connection: Box<UnbufferedServerConnection>,
    /// The start of a record whose rest has not arrived.
    partial: Vec<u8>,
    /// Decrypted, from `taken` on not taken yet.
    plaintext: Vec<u8>,
    taken: usize,
    /// Written before the handshake was complete.
    held: Vec<u8>,
    first_flight: Vec<u8>,
    is_established: bool,
    /// The client sends no more (close_notify, RFC 8446 §6.1).
    is_closed: bool,
    /// The connection may not be used any more.
    has_failed: bool,
}

impl TlsLeg {
    /// # Errors
    /// The configuration has no certificate that can be used.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self {
            connection: Box::new(UnbufferedServerConnection::new(config)?),
            partial: Vec::new(),
            plaintext: Vec::new(),
            taken: 0,
            held: Vec::new(),
            first_flight: Vec::new(),
            is_established: false,
            is_closed: false,
            has_failed: false,
        })
    }

    /// Takes ciphertext of the client, and appends to `outgoing` what TLS itself has to send. Returns the facts of a handshake
    /// that this completes.
    ///
    /// # Errors
    /// The client breaks the protocol, or has no version or algorithm in common; the alert is in `outgoing`.
    pub(super) fn receive(
        &mut self,
        ciphertext: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<Option<TlsFacts>, Error> {
        if !self.is_established {
            let room = FIRST_FLIGHT.saturating_sub(self.first_flight.len());
            let kept = ciphertext.get(..room.min(ciphertext.len())).unwrap_or_default();
            self.first_flight.extend_from_slice(kept);
        }
        if self.partial.is_empty() {
            let used = self.process(ciphertext, outgoing)?;
            self.partial = ciphertext.get(used..).unwrap_or_default().to_vec();
        } else {
            let mut input = std::mem::take(&mut self.partial);
            input.extend_from_slice(ciphertext);
            let used = self.process(&mut input, outgoing)?;
            input.drain(..used);
            self.partial = if input.is_empty() { Vec::new() } else { input };
        }
        if self.is_established || self.connection.is_handshaking() {
            return Ok(None);
        }
        self.is_established = true;
        let held = std::mem::take(&mut self.held);
        self.send(&held, outgoing)?;
        Ok(Some(TlsFacts {
            version: match self.connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_2) => TlsVersion::Tls12,
                Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
                _ => TlsVersion::Unknown,
            },
            resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client_hello: std::mem::take(&mut self.first_flight),
        }))
    }

    /// Processes whole records. Returns the number of bytes that are done with. rustls keeps positions within what it has not
    /// discarded, so it always gets those bytes again, also where there are no new ones.
    fn process(&mut self, input: &mut [u8], outgoing: &mut Vec<u8>) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let rest = input.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(rest);
            used += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        used += record.discard;
                        self.plaintext.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let encode = |room: &mut [u8]| match data.encode(room) {
                        Ok(count) => Ok(count),
                        Err(EncodeError::InsufficientSize(size)) => Err(size.required_size),
                        Err(EncodeError::AlreadyEncoded) => Ok(0),
                    };
                    append(outgoing, RECORD, encode);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.is_closed = true,
                // Nothing is left to process. Early data is never enabled.
                Ok(_) => return Ok(used),
                Err(error) => {
                    self.take_alert(outgoing);
                    self.has_failed = true;
                    return Err(error);
                }
            }
        }
    }

    /// After an error: what the client still has to read. No record may be processed any more.
    fn take_alert(&mut self, outgoing: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let Ok(ConnectionState::EncodeTlsData(mut data)) =
                self.connection.process_tls_records(&mut []).state
            else {
                return;
            };
            append(outgoing, RECORD, |room| data.encode(room).map_err(|_too_small| 0));
        }
    }

    /// Decrypted bytes that were not taken yet, at most as many as `buffer` holds.
    pub(super) fn take(&mut self, buffer: &mut [u8]) -> usize {
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

    pub(super) const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Encrypts `plaintext` to `outgoing`. Before the handshake is complete it is held until then.
    ///
    /// # Errors
    /// So much was encrypted with one key that the connection has to end.
    pub(super) fn send(&mut self, plaintext: &[u8], outgoing: &mut Vec<u8>) -> Result<(), Error> {
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
            let mut result = Ok(());
            append(outgoing, piece.len() + OVERHEAD, |room| {
                match connection.process_tls_records(partial).state {
                    Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                        match traffic.encrypt(piece, room) {
                            Ok(count) => Ok(count),
                            Err(EncryptError::InsufficientSize(size)) => Err(size.required_size),
                            Err(EncryptError::EncryptExhausted) => {
                                result = Err(Error::EncryptError);
                                Ok(0)
                            }
                        }
                    }
                    Ok(_) => Ok(0),
                    Err(error) => {
                        result = Err(error);
                        Ok(0)
                    }
                }
            });
            result?;
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

    /// Ends what the client receives (close_notify).
    pub(super) fn close(&mut self, outgoing: &mut Vec<u8>) {
        if self.has_failed {
            return;
        }
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) =
            self.connection.process_tls_records(&mut self.partial).state
        {
            append(outgoing, OVERHEAD, |room| {
                traffic.queue_close_notify(room).map_err(|_too_small| 0)
            });
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

/// The class of an error, and its text.
pub(super) fn failure(error: &Error) -> TlsFailure {
    let result = match error {
        Error::AlertReceived(AlertDescription::ProtocolVersion) => TlsHandshake::NoCommonVersion,
        Error::AlertReceived(_) => TlsHandshake::ClientAlert,
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Every hello of TLS 1.2 has it.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => TlsHandshake::NoCommonVersion,
        Error::PeerIncompatible(_) => TlsHandshake::NoCommonAlgorithm,
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => TlsHandshake::NotTls,
        Error::General(_) | Error::FailedToGetRandomBytes | Error::EncryptError => {
            TlsHandshake::Internal
        }
        _ => TlsHandshake::Protocol,
    };
    TlsFailure { result, reason: error.to_string() }
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
