//! One socket of a session with its buffers; reads and writes never block.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf};

use super::splice::Pipe;
use super::stream::RelayStream;
use super::tls::{TlsLeg, ciphertext_size, with_buffer};
use crate::engine::TlsFacts;

/// Bytes of ciphertext that may wait while a peer does not read.
const MAX_TLS_OUTGOING: usize = 128 * 1024;
/// A read of this size or more makes splice worth its system calls.
pub(super) const BULK: usize = 32 * 1024;

#[derive(Debug)]
pub(super) struct RelayEndpoint {
    pub(super) stream: RelayStream,
    /// Of a client whose STARTTLS the gateway answered, or of an upstream that answered the gateway's. The other bytes here
    /// are plaintext, but for `outgoing`.
    tls: Option<Box<TlsLeg>>,
    /// Bytes that were read and that the engine has not consumed yet.
    pub(super) unconsumed: Vec<u8>,
    /// Bytes to write, from `written` on.
    outgoing: Vec<u8>,
    written: usize,
    /// To be written after `outgoing`.
    pub(super) pipe: Option<Pipe>,
    /// The peer sends no more.
    pub(super) read_closed: bool,
    /// The peer accepts no more.
    pub(super) write_failed: bool,
    /// A read failed: the peer reset the connection.
    pub(super) reset: bool,
    /// Shut down the sending side once everything is written.
    pub(super) shutdown_requested: bool,
    close_notify_sent: bool,
    /// The last read was at least [`BULK`]: the next one may be spliced.
    pub(super) bulk: bool,
    /// The last read filled its buffer.
    pub(super) filled: bool,
}

/// The result of one read.
pub(super) enum Read {
    /// Bytes in the caller's buffer.
    Bytes(usize),
    /// Bytes passed on by splice.
    Spliced(usize),
    /// The TLS handshake is complete.
    TlsEstablished(TlsFacts),
    End,
}

impl RelayEndpoint {
    pub(super) const fn new(stream: RelayStream, unconsumed: Vec<u8>, outgoing: Vec<u8>) -> Self {
        Self {
            stream,
            tls: None,
            unconsumed,
            outgoing,
            written: 0,
            pipe: None,
            read_closed: false,
            write_failed: false,
            reset: false,
            shutdown_requested: false,
            close_notify_sent: false,
            bulk: false,
            filled: false,
        }
    }

    /// Whether everything was written.
    pub(super) const fn is_flushed(&self) -> bool {
        self.outgoing.is_empty() && self.pipe.is_none()
    }

    /// From now on the peer is spoken to through `tls`, to which what was read and not consumed belongs.
    ///
    /// # Errors
    /// Those of [`TlsLeg::start`].
    pub(super) fn start_tls(
        &mut self,
        mut tls: TlsLeg,
        cx: &mut Context<'_>,
    ) -> Result<(), rustls::Error> {
        tls.start(&mut self.outgoing)?;
        let received = tls.receive(&mut std::mem::take(&mut self.unconsumed), &mut self.outgoing);
        self.tls = Some(Box::new(tls));
        (self.bulk, self.filled) = (false, false);
        self.flush(cx);
        received.map(|_incomplete| ())
    }

    /// The peer began no TLS yet.
    pub(super) fn awaits_hello(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.awaits_hello())
    }

    /// Its bytes are not what the other side sends or receives.
    pub(super) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Writes as much of `bytes` as the socket accepts now, and buffers the rest.
    pub(super) fn write(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if let Some(tls) = &mut self.tls {
            if !bytes.is_empty() && !self.write_failed {
                self.write_failed = tls.send(bytes, &mut self.outgoing).is_err();
                self.flush(cx);
            }
            return;
        }
        let mut rest = bytes;
        while self.is_flushed() && !self.write_failed && !rest.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(count)) => rest = rest.get(count..).unwrap_or_default(),
                Poll::Ready(Err(_)) => self.write_failed = true,
                Poll::Pending => break,
            }
        }
        if !self.write_failed {
            self.outgoing.extend_from_slice(rest);
        }
    }

    /// Ends TLS, so that the peer can tell the end from a connection that was cut off. Returns whether something has to be
    /// written for that.
    pub(super) fn close_tls(&mut self) -> bool {
        match &mut self.tls {
            Some(tls) if !std::mem::replace(&mut self.close_notify_sent, true) => {
                tls.close(&mut self.outgoing);
                true
            }
            _ => false,
        }
    }

    /// Writes buffered bytes. Returns whether anything changed.
    pub(super) fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let mut changed = false;
        while !self.is_flushed() && !self.write_failed {
            match self.poll_flush(cx) {
                Poll::Ready(Ok(())) => changed = true,
                Poll::Ready(Err(_)) => self.write_failed = true,
                Poll::Pending => return changed,
            }
        }
        if self.write_failed && !self.is_flushed() {
            (self.outgoing, self.pipe, self.written) = (Vec::new(), None, 0);
            changed = true;
        }
        if self.shutdown_requested && !self.write_failed {
            if self.close_tls() {
                return self.flush(cx) | changed;
            }
            self.shutdown_requested = false;
            let _already_closed = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
        }
        changed
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(rest) = self.outgoing.get(self.written..).filter(|rest| !rest.is_empty()) {
            self.written += ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if self.written == self.outgoing.len() {
                (self.outgoing, self.written) = (Vec::new(), 0);
            }
        } else if let Some(pipe) = &mut self.pipe {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || pipe.drain(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => _ = result?,
            }
            if pipe.is_empty()
                && let Some(pipe) = self.pipe.take()
            {
                pipe.give_back();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once into `buffer`, which is not empty.
    pub(super) fn poll_read(
        &mut self,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Read>> {
        if self.tls.is_some() {
            return self.poll_read_tls(buffer, cx);
        }
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        self.bulk = count >= BULK;
        self.filled = buffer.remaining() == 0;
        Poll::Ready(Ok(if count == 0 { Read::End } else { Read::Bytes(count) }))
    }

    fn poll_read_tls(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
        loop {
            let Some(tls) = &mut self.tls else { return Poll::Pending };
            let count = tls.take(buffer);
            if count > 0 {
                self.filled |= count == buffer.len();
                return Poll::Ready(Ok(Read::Bytes(count)));
            }
            // A peer that lets the gateway write and does not read gets no further.
            if tls.is_closed() || self.outgoing.len() > MAX_TLS_OUTGOING {
                return if tls.is_closed() { Poll::Ready(Ok(Read::End)) } else { Poll::Pending };
            }
            let received = with_buffer(|ciphertext| {
                let kept = tls.copy_partial(ciphertext);
                let end = kept + ciphertext_size(buffer.len());
                let mut read = ReadBuf::new(ciphertext.get_mut(kept..end).unwrap_or_default());
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
                let count = read.filled().len();
                self.filled = read.remaining() == 0;
                if count == 0 {
                    return Poll::Ready(Ok(None));
                }
                let input = ciphertext.get_mut(..kept + count).unwrap_or_default();
                let received = tls.receive_behind_partial(input, &mut self.outgoing);
                Poll::Ready(received.map(Some).map_err(io::Error::other))
            });
            let established = match ready!(received) {
                Ok(Some(established)) => established,
                Ok(None) => return Poll::Ready(Ok(Read::End)),
                Err(error) => {
                    self.flush(cx); // The alert.
                    return Poll::Ready(Err(error));
                }
            };
            self.flush(cx);
            if let Some(facts) = established {
                return Poll::Ready(Ok(Read::TlsEstablished(facts)));
            }
        }
    }

    /// Moves up to `limit` bytes to the pipe of `to`, which is flushed.
    pub(super) fn poll_splice(
        &mut self,
        to: &mut Self,
        limit: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Read>> {
        ready!(self.stream.poll_read_ready(cx))?;
        let mut pipe = Pipe::take()?;
        let moved = self.stream.try_io(Interest::READABLE, || pipe.fill(&self.stream, limit));
        Poll::Ready(match moved {
            Ok(0) => Ok(Read::End),
            Ok(count) => {
                self.bulk = count >= BULK;
                to.pipe = Some(pipe);
                Ok(Read::Spliced(count))
            }
            Err(error) => {
                pipe.give_back();
                if error.kind() == io::ErrorKind::WouldBlock {
                    return self.stream.poll_read_ready(cx).map_ok(|()| Read::Spliced(0));
                }
                Err(error)
            }
        })
    }
}
