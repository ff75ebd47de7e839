//! TLS that the gateway ends: STARTTLS is its own command, and the session goes on readable (RFC 3207).

use super::Proxy;
use crate::addr::Side;
use crate::engine::event::{Event, Outcome, TlsHandshake};
use crate::engine::options::TlsMode;
use crate::engine::output::{Action, Output};
use crate::engine::record::{ClientTlsFacts, TlsFacts, TlsFailure};
use crate::smtp::{Command, EnhancedCode, ExpectedReply, TlsState};
use crate::time::Timestamp;

impl Proxy {
    /// Handshakes of the client failed again and again (`tls.after_failures`): it is offered no STARTTLS, so that it goes on in
    /// plaintext. Before the client has said anything.
    pub fn hide_starttls(&mut self, out: &mut Output) {
        self.starttls_hidden = true;
        self.record.on_starttls_hidden(out);
    }

    /// Nothing is pending: its reply is the last in plaintext.
    pub(super) fn on_own_starttls(
        &mut self,
        command: &Command<'_>,
        expected: ExpectedReply,
        out: &mut Output,
    ) {
        let state = self.session.state();
        let refusal = if state.tls() == TlsState::Established {
            Some((554, "TLS is active already"))
        } else if !command.argument.is_empty() {
            Some((501, "syntax: STARTTLS"))
        } else if state.in_transaction() {
            Some((503, "a mail transaction is in progress"))
        } else if state.is_authenticated() {
            // Upstream would keep for the client inside TLS what somebody proved outside of it.
            Some((503, "STARTTLS comes before AUTH"))
        } else {
            None
        };
        if self.starttls_hidden && refusal.is_none() {
            // RFC 3207 §4: "TLS not available due to temporary reason". 502 would be wrong, as the command is implemented, and
            // might bounce mail of a client that requires TLS.
            let text = "TLS is not available for now: handshakes of this client failed";
            return self.answer(expected, 454, EnhancedCode::new(4, 7, 0), text, out);
        }
        if let Some((code, text)) = refusal {
            let enhanced = EnhancedCode::new(5, 5, if code == 501 { 4 } else { 1 });
            return self.answer(expected, code, enhanced, text, out);
        }
        // Before the client has the 220: what it sends after that is TLS.
        out.act(Action::DiscardClient);
        self.answer(expected, 220, EnhancedCode::new(2, 0, 0), "ready to start TLS", out);
        self.session.begin_handshake();
        self.record.on_own_starttls(self.now);
        out.act(Action::StartTls);
    }

    /// The handshake that [`Action::StartTls`] began is complete.
    pub fn on_tls_established(&mut self, facts: &TlsFacts, at: Timestamp, out: &mut Output) {
        (self.now, self.active) = (at, at);
        self.session.on_tls_established();
        self.has_restarted = self.profile.tls != TlsMode::Implicit;
        self.early_data_counted = false;
        self.early_data_rejected = false;
        let hello = self.tls_hellos.on_bytes(Side::Client, &facts.client_hello);
        self.trace.cipher_suite = facts.cipher_suite;
        self.record.on_own_tls(facts, hello, at, out);
        if let Some(evaluator) = &mut self.evaluator {
            evaluator.on_client_certificate(facts.client_certificate.as_ref());
        }
        self.end_if_drained(out);
    }

    /// Begins TLS before anything else, with [`TlsMode::Implicit`]: [`Proxy::open`] comes once it is established.
    pub fn begin_implicit_tls(&mut self, out: &mut Output) {
        out.event(Event::SessionOpened);
        self.session.begin_handshake();
        out.act(Action::StartTls);
    }

    /// TLS that was established before upstream is connected: only then can a PROXY header have it.
    pub fn implicit_tls(&self) -> Option<ClientTlsFacts<'_>> {
        let is_established = self.session.state().tls() == TlsState::Established;
        (is_established && self.profile.tls == TlsMode::Implicit)
            .then(|| self.record.client_tls(self.trace.cipher_suite))
    }

    /// The handshake with the client that [`Action::StartTls`] began is not complete.
    pub const fn in_handshake(&self) -> bool {
        self.session.in_handshake()
    }

    /// The client closed before it sent anything of TLS: where that comes first, a check of the port and no handshake.
    pub fn on_closed_before_hello(&mut self, out: &mut Output) {
        match self.profile.tls {
            TlsMode::Implicit => self.close(Outcome::ClientClosed, out),
            _ => self.on_closed_in_handshake(out),
        }
    }

    /// It failed, or a later record did.
    pub fn on_tls_failed(&mut self, failure: TlsFailure, out: &mut Output) {
        self.record.on_tls_failure(failure, out);
        if self.session.in_content() || self.session.in_handshake() {
            out.act(Action::AbandonUpstream);
        }
        self.close(Outcome::TlsFailed, out);
    }

    /// Upstream still has the name that somebody gave it outside of TLS (RFC 3207 §4.2).
    pub(super) fn lacks_ehlo(&self) -> bool {
        let state = self.session.state();
        self.has_restarted && state.helo().is_none()
    }

    /// The client closed during the handshake.
    pub(super) fn on_closed_in_handshake(&mut self, out: &mut Output) {
        let reason = "the client closed the connection during the handshake".to_owned();
        self.on_tls_failed(
            TlsFailure { result: TlsHandshake::Closed, reason, is_of_old_client: false },
            out,
        );
    }

    /// The handshake took too long.
    pub(super) fn on_handshake_timeout(&mut self, out: &mut Output) {
        let reason = "the handshake was not complete in time".to_owned();
        let failure = TlsFailure { result: TlsHandshake::Timeout, reason, is_of_old_client: false };
        self.record.on_tls_failure(failure, out);
        out.act(Action::AbandonUpstream);
        self.close(Outcome::Timeout, out);
    }
}
