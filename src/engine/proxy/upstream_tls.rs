//! TLS with upstream: STARTTLS of the gateway's own, before the client's first command is forwarded (RFC 3207).
//!
//! The client's commands wait, as they do for XCLIENT, which comes after it. Upstream's plaintext replies count for
//! nothing that follows: the client's own EHLO is forwarded inside TLS.

use std::time::Duration;

use super::Proxy;
use crate::addr::Side;
use crate::engine::event::{Outcome, Refusal, UpstreamTlsResult};
use crate::engine::options::UpstreamTls;
use crate::engine::output::{Action, Output};
use crate::engine::record::{TlsFacts, UpstreamTlsFailure};
use crate::smtp::{Command, EnhancedCode, ExpectedReply, Extensions, OwnCommand, Reply, TlsState};
use crate::time::Timestamp;

/// Time for upstream's part of the handshake, where `timeouts.reply` is not shorter.
const HANDSHAKE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct UpstreamTlsExchange {
    level: UpstreamTls,
    step: Step,
    /// Upstream offered AUTH in plaintext too.
    plaintext_auth: bool,
    is_established: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// Nothing to do, or done.
    #[default]
    Done,
    /// The client has not sent a command.
    Idle,
    AwaitsEhlo,
    AwaitsReply,
    Handshake,
}

impl UpstreamTlsExchange {
    /// It has yet to begin, or to end.
    pub(super) fn is_pending(&self) -> bool {
        self.step != Step::Done
    }

    pub(super) fn in_handshake(&self) -> bool {
        self.step == Step::Handshake
    }
}

impl Proxy {
    /// How the gateway uses TLS with the upstream that accepted the connection. Call it before the upstream's greeting.
    pub fn use_upstream_tls(&mut self, level: UpstreamTls) {
        let step = if level == UpstreamTls::Off { Step::Done } else { Step::Idle };
        self.upstream_tls = UpstreamTlsExchange { level, step, ..UpstreamTlsExchange::default() };
    }

    /// Begins what upstream has to know before the client's first command: TLS, then XCLIENT. Returns whether that command
    /// has to wait for it.
    pub(super) fn begin_exchanges(&mut self, first: &Command<'_>, out: &mut Output) -> bool {
        match self.upstream_tls.step {
            Step::Done => return self.begin_xclient(first, out),
            Step::Idle => {
                self.upstream_tls.step = Step::AwaitsEhlo;
                let ehlo = format!("EHLO {}\r\n", self.profile.smtp.hostname);
                out.act(Action::ToUpstream(ehlo.into_bytes()));
                self.session.expect(ExpectedReply::Own(OwnCommand::Ehlo));
            }
            Step::AwaitsEhlo | Step::AwaitsReply | Step::Handshake => {}
        }
        true
    }

    /// Upstream answered a command of the gateway's own.
    pub(super) fn on_own_reply(
        &mut self,
        command: OwnCommand,
        reply: &Reply<'_>,
        out: &mut Output,
    ) {
        match (self.upstream_tls.step, command) {
            (Step::AwaitsEhlo, OwnCommand::Ehlo) => self.on_plaintext_offer(reply, out),
            (Step::AwaitsReply, OwnCommand::Starttls) if reply.code == 220 => {
                self.upstream_tls.step = Step::Handshake;
                out.act(Action::StartUpstreamTls);
            }
            (Step::AwaitsReply, OwnCommand::Starttls) => {
                let reason = format!("the mail server answered STARTTLS with {}", reply.code);
                self.go_on_without_tls(UpstreamTlsResult::Refused, reason, out);
            }
            _ => self.on_xclient_reply(command, reply, out),
        }
    }

    fn on_plaintext_offer(&mut self, reply: &Reply<'_>, out: &mut Output) {
        let (offered, keywords) = if reply.is_positive() {
            Extensions::offered(reply)
        } else {
            (Extensions::default(), Vec::new())
        };
        self.upstream_tls.plaintext_auth = keywords.iter().any(|keyword| keyword == "AUTH");
        if offered.starttls {
            self.upstream_tls.step = Step::AwaitsReply;
            out.act(Action::ToUpstream(b"STARTTLS\r\n".to_vec()));
            self.session.expect(ExpectedReply::Own(OwnCommand::Starttls));
        } else {
            let reason = "the mail server does not offer STARTTLS".to_owned();
            self.go_on_without_tls(UpstreamTlsResult::NotOffered, reason, out);
        }
    }

    /// The connection can still be used, in plaintext.
    fn go_on_without_tls(&mut self, result: UpstreamTlsResult, reason: String, out: &mut Output) {
        if self.upstream_tls.level != UpstreamTls::Opportunistic {
            return self.fail_upstream_tls(UpstreamTlsFailure { result, reason }, out);
        }
        self.record.on_upstream_tls(None, result, out);
        self.end_tls_exchange();
    }

    /// The handshake that [`Action::StartUpstreamTls`] began is complete. As after [`Proxy::on_answers`], both sides' bytes
    /// are to be fed again.
    pub fn on_upstream_tls_established(
        &mut self,
        facts: &TlsFacts,
        at: Timestamp,
        out: &mut Output,
    ) {
        if !self.upstream_tls.in_handshake() {
            return;
        }
        let result =
            if facts.resumed { UpstreamTlsResult::Resumed } else { UpstreamTlsResult::Full };
        self.record.on_upstream_tls(facts.version.name(), result, out);
        (self.now, self.active) = (at, at);
        self.early_data_counted = false;
        self.upstream_tls.is_established = true;
        self.end_tls_exchange();
    }

    /// The client is read again.
    fn end_tls_exchange(&mut self) {
        self.upstream_tls.step = Step::Done;
        self.session.resume();
    }

    /// It failed, or a later record did.
    pub fn on_upstream_tls_failed(&mut self, failure: UpstreamTlsFailure, out: &mut Output) {
        if self.upstream_tls.in_handshake() {
            return self.fail_upstream_tls(failure, out);
        }
        self.record.on_upstream_failure(failure.reason);
        self.on_server_closed(out);
    }

    /// Nothing was forwarded yet, so that the client can try again without loss.
    fn fail_upstream_tls(&mut self, failure: UpstreamTlsFailure, out: &mut Output) {
        if self.upstream_tls.level == UpstreamTls::Opportunistic {
            out.act(Action::AvoidUpstreamTls);
        }
        self.record.on_upstream_tls(None, failure.result, out);
        self.record.on_upstream_failure(failure.reason);
        self.upstream_tls.step = Step::Done;
        let text = "no TLS with the mail server; try again later";
        let code = EnhancedCode::new(4, 7, 5);
        self.fail(code, text, Refusal::UpstreamTls, Outcome::UpstreamUnavailable, out);
    }

    /// Upstream closed the connection during the handshake.
    pub(super) fn on_upstream_closed_in_handshake(&mut self, out: &mut Output) {
        let reason = "the mail server closed the connection during the TLS handshake".to_owned();
        let result = UpstreamTlsResult::Closed;
        self.fail_upstream_tls(UpstreamTlsFailure { result, reason }, out);
    }

    pub(super) fn on_upstream_handshake_timeout(&mut self, out: &mut Output) {
        let reason = "the TLS handshake with the mail server was not complete in time".to_owned();
        let result = UpstreamTlsResult::Timeout;
        self.fail_upstream_tls(UpstreamTlsFailure { result, reason }, out);
    }

    pub(super) fn upstream_handshake_timeout(&self) -> Duration {
        self.timeouts.reply.min(HANDSHAKE)
    }

    /// Bytes of upstream's plaintext were discarded after [`Action::StartUpstreamTls`].
    pub fn on_upstream_discarded(&mut self, count: usize, out: &mut Output) {
        if count > 0 {
            self.record.count_bytes(Side::Server, count as u64, out);
            self.on_plaintext_after_starttls(out);
        }
    }

    /// Upstream accepts passwords inside TLS only, and the client's leg has none: TLS of the gateway's own does not make its
    /// password safe.
    pub(super) fn hides_auth(&self) -> bool {
        self.upstream_tls.is_established
            && !self.upstream_tls.plaintext_auth
            && self.session.state().tls() != TlsState::Established
    }
}
