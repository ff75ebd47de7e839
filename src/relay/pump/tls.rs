//! TLS of a session's two sides: its start, after which no plaintext counts, and its failures.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use super::{Pump, SCRATCH, Work};
use crate::engine::{ClientTlsFacts, Output, Side, TlsFailure, TlsHandshake};
use crate::relay::tls::{TlsLeg, failure, upstream_failure};

impl Pump {
    /// Drives the client's handshake alone. Ready once it is over, or the session.
    pub(in crate::relay) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        SCRATCH.with_borrow_mut(|scratch| {
            loop {
                let mut changed = self.client.flush(cx);
                let is_over = self.engine.is_closing() || !self.engine.in_handshake();
                if is_over || self.client.write_failed {
                    return Poll::Ready(());
                }
                changed |= self.pump_side(Side::Client, scratch, cx);
                if !changed && !self.poll_timer(&mut scratch.work, cx) {
                    return Poll::Pending;
                }
            }
        })
    }

    /// The client's handshake is complete, and the session goes on.
    pub(in crate::relay) fn is_secured(&self) -> bool {
        !self.engine.is_closing() && !self.engine.in_handshake() && !self.client.write_failed
    }

    /// See [`crate::engine::Proxy::implicit_tls`].
    pub(in crate::relay) fn implicit_tls(&self) -> Option<ClientTlsFacts<'_>> {
        self.engine.implicit_tls()
    }

    /// The client has the 220 to its STARTTLS, or TLS comes first.
    pub(super) fn start_client_tls(&mut self, out: &mut Output, cx: &mut Context<'_>) {
        let Some(tls) = &self.tls else {
            // A reload took the certificates away between this session's settings and them.
            let reason = "the gateway has no certificate any more".to_owned();
            let failure =
                TlsFailure { result: TlsHandshake::Internal, reason, is_of_old_client: false };
            return self.engine.on_tls_failed(failure, out);
        };
        let started = TlsLeg::with_client(Arc::clone(&tls.config));
        let started = started.map(|leg| leg.with_inspector(tls.inspector.clone()));
        if let Err(error) = started.and_then(|tls| self.client.start_tls(tls, cx)) {
            self.engine.on_tls_failed(failure(&error), out);
        }
    }

    /// Nothing of upstream's plaintext is left when TLS begins.
    pub(super) fn start_upstream_tls(&mut self, out: &mut Output, cx: &mut Context<'_>) {
        let (Some(upstream), Some(plan)) = (&mut self.upstream, &self.upstream_tls) else { return };
        let mut discarded = std::mem::take(&mut upstream.unconsumed).len();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = upstream.stream.try_read(&mut buffer) {
            discarded += read;
        }
        self.engine.on_upstream_discarded(discarded, out);
        if let Err(error) = plan.leg().and_then(|tls| upstream.start_tls(tls, cx)) {
            self.engine.on_upstream_tls_failed(upstream_failure(&error), out);
        }
    }

    /// Discards all that the client has sent so far, read or not. Returns the number of bytes.
    pub(super) fn discard_client(&mut self) -> usize {
        let mut count = self.client.unconsumed.len();
        self.client.unconsumed = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = self.client.stream.try_read(&mut buffer) {
            let bytes = buffer.get(..read).unwrap_or_default();
            self.tap.on_bytes(Side::Client, bytes, self.clock.now());
            count += read;
        }
        count
    }

    /// A handshake failed, or a later record.
    pub(super) fn fail_tls(
        &mut self,
        side: Side,
        reason: &rustls::Error,
        work: &mut Work,
        cx: &mut Context<'_>,
    ) {
        work.out.clear();
        match side {
            Side::Client => {
                let failure = failure(reason);
                if failure.is_of_old_client && self.engine.in_handshake() {
                    self.count_failed_handshake();
                }
                self.engine.on_tls_failed(failure, &mut work.out);
            }
            Side::Server => {
                self.engine.on_upstream_tls_failed(upstream_failure(reason), &mut work.out);
            }
        }
        self.apply_actions(side, &[], work, cx);
    }

    /// Towards `tls.after_failures`.
    fn count_failed_handshake(&self) {
        let Some(failed) = &self.failed_handshakes else { return };
        if let Some(failures) = failed.on_failure(self.address, Instant::now()) {
            self.observer.starttls_hidden(self.address, failures);
        }
    }
}
