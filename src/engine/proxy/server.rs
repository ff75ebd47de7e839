//! Bytes from upstream.

use super::{Proxy, State};
use crate::addr::Side;
use crate::engine::event::{Anomaly, Outcome, Refusal, ReplySource, UpstreamFailure};
use crate::engine::output::{Action, Output};
use crate::smtp::{
    EnhancedCode, ExpectedReply, Extensions, Keyword, OwnCommand, Reply, ReplyParse, ServerEvent,
    TlsState,
};
use crate::time::Timestamp;

impl Proxy {
    /// Upstream's bytes, those not consumed before in front. Returns how many were consumed.
    pub fn on_server_data(&mut self, input: &[u8], at: Timestamp, out: &mut Output) -> usize {
        self.now = at;
        let mut used = 0;
        if matches!(
            self.state,
            State::RejectedGreeting | State::DiscardingData | State::RejectedMessage
        ) {
            return input.len(); // Upstream was abandoned.
        }
        if self.hold_greeting() || self.end_is_undecided() {
            return 0;
        }
        while used < input.len() && !self.is_closing() {
            if self.upstream_tls.in_handshake() {
                // Behind its 220 to the gateway's STARTTLS (rule 3 of ARCHITECTURE.md).
                self.on_plaintext_after_starttls(out);
                used = input.len();
                break;
            }
            let rest = input.get(used..).unwrap_or_default();
            used += match self.session.server(rest) {
                ServerEvent::Incomplete => break,
                ServerEvent::Plaintext => {
                    self.on_plaintext_after_starttls(out);
                    rest.len()
                }
                ServerEvent::Opaque => {
                    self.on_tls_bytes(Side::Server, rest);
                    out.forward(used..input.len());
                    rest.len()
                }
                ServerEvent::Malformed => {
                    self.record.anomaly(Anomaly::BadReply, out);
                    self.fail_unparsable(out);
                    rest.len()
                }
                ServerEvent::GreetingLine(line) => {
                    relay(&line, used, out);
                    line.raw.len()
                }
                ServerEvent::MixedCodes(_) => {
                    self.record.anomaly(Anomaly::BadReply, out);
                    self.fail_mixed_codes(out);
                    rest.len()
                }
                // The only reply without a command, before a server closes (RFC 5321 §3.8).
                ServerEvent::Unexpected(reply) if reply.code == 421 => {
                    self.relay_reply(&reply, &ExpectedReply::Other, used, out);
                    reply.raw.len()
                }
                // Some servers close an idle session with another code. It ends here too, so that the reply answers nothing else.
                ServerEvent::Unexpected(reply)
                    if reply.code >= 400 && !self.session.in_content() =>
                {
                    self.record.anomaly(Anomaly::UnexpectedReply, out);
                    self.relay_reply(&reply, &ExpectedReply::Other, used, out);
                    out.act(Action::AbandonUpstream);
                    self.close(Outcome::UpstreamClosed, out);
                    reply.raw.len()
                }
                // Relayed, it would answer the client's next command, and every later one would be off by one.
                ServerEvent::Unexpected(_) => {
                    self.record.anomaly(Anomaly::UnexpectedReply, out);
                    self.fail_unparsable(out);
                    rest.len()
                }
                ServerEvent::Reply { reply, expected } => {
                    self.on_reply(&reply, &expected, used, out);
                    reply.raw.len()
                }
            };
        }
        if self.is_closing() {
            used = input.len();
        }
        if used > 0 {
            self.on_progress(Side::Server, used as u64);
            self.record.count_bytes(Side::Server, used as u64, out);
        }
        if std::mem::take(&mut self.closed_early) {
            self.on_server_closed(out);
        }
        self.end_if_drained(out);
        used
    }

    fn on_reply(
        &mut self,
        reply: &Reply<'_>,
        expected: &ExpectedReply,
        from: usize,
        out: &mut Output,
    ) {
        match expected {
            ExpectedReply::Own(OwnCommand::Noop) => {
                if matches!(reply.code, 421 | 521) {
                    self.relay_reply(reply, &ExpectedReply::Other, from, out);
                }
                return self.send_local_replies(out);
            }
            // The client sent LAST: it receives the reply to the end of its message.
            ExpectedReply::WithheldChunk { .. } => {
                self.decide_end(out);
                return self.send_local_replies(out);
            }
            ExpectedReply::Own(command) => return self.on_own_reply(*command, reply, out),
            ExpectedReply::Starttls { .. } if reply.code == 220 => {
                // Before the client has the 220: what it sends after that is TLS.
                out.act(Action::DiscardClient);
                self.relay_reply(reply, expected, from, out);
            }
            ExpectedReply::Ehlo(_) if reply.is_positive() => self.relay_extensions(reply, out),
            _ => self.relay_reply(reply, expected, from, out),
        }
        self.record_reply(expected, reply.code, out);
        if *expected == ExpectedReply::Data && reply.code == 354 {
            self.read_content();
        }
        if matches!(expected, ExpectedReply::Message { .. }) {
            if reply.is_positive() {
                self.checks.on_message_accepted();
            } else {
                self.on_message_rejected();
            }
        }
        self.send_local_replies(out);
        if *expected == ExpectedReply::Quit && reply.is_positive() {
            self.state = State::Quitting;
        }
    }

    /// Those whose turn has come.
    fn send_local_replies(&mut self, out: &mut Output) {
        while let Some((own, expected)) = self.session.pop_local_reply() {
            self.send(&expected, own, out);
        }
    }

    /// A positive EHLO reply, without what the gateway cannot relay or is configured to hide.
    fn relay_extensions(&mut self, reply: &Reply<'_>, out: &mut Output) {
        let hidden = match &self.tagger {
            Some(tagger) => tagger.hidden_keywords(),
            None => &self.profile.smtp.hide,
        };
        let terminates = self.profile.tls.terminates();
        let hides_auth = self.hides_auth();
        let is_hidden = |keyword: Keyword| {
            hidden.contains(&keyword)
                || terminates && keyword == Keyword::Starttls
                || hides_auth && keyword == Keyword::Auth
        };
        let is_offered = terminates
            && !self.starttls_hidden
            && self.session.state().tls() != TlsState::Established
            && !hidden.contains(&Keyword::Starttls);
        let own: &[Keyword] = if is_offered { &[Keyword::Starttls] } else { &[] };
        let (extensions, filtered) = Extensions::filter(reply, is_hidden, !terminates, own);
        self.session.on_extensions(extensions);
        let mut cleaned = None;
        if let ReplyParse::Complete(relayed) = Reply::parse(&filtered) {
            self.record.on_keywords(Extensions::offered(&relayed).1);
            cleaned = relayed.cleaned();
        }
        self.record.count_reply(reply.code, ReplySource::Upstream, out);
        out.act(Action::ToClient(cleaned.unwrap_or(filtered)));
    }

    fn relay_reply(
        &mut self,
        reply: &Reply<'_>,
        expected: &ExpectedReply,
        from: usize,
        out: &mut Output,
    ) {
        self.record.count_reply(reply.code, ReplySource::Upstream, out);
        // 421: RFC 5321 §3.8; 521: RFC 7504; and a server that rejects in place of its greeting may close at once.
        self.server_closing = matches!(reply.code, 421 | 521)
            || *expected == ExpectedReply::Greeting && reply.code >= 400;
        relay(reply, from, out);
    }

    /// Clients differ in which of the codes they use.
    fn fail_mixed_codes(&mut self, out: &mut Output) {
        let text = "mail server sent a reply with different codes; try again later";
        let code = EnhancedCode::new(4, 5, 0);
        self.fail(code, text, Refusal::UpstreamLost, Outcome::Protocol, out);
    }

    fn fail_unparsable(&mut self, out: &mut Output) {
        let text = "mail server sent an invalid reply; try again later";
        let code = EnhancedCode::new(4, 5, 0);
        self.fail(code, text, Refusal::UpstreamLost, Outcome::Protocol, out);
    }

    /// Upstream closed its side. A pending message gets a 4xx, never a 2xx, and no retry by the gateway: upstream may have
    /// accepted it (rule 5 of ARCHITECTURE.md).
    pub(super) fn on_server_closed(&mut self, out: &mut Output) {
        self.upstream_closed = true;
        if self.state == State::Running && (self.greeting_is_held || self.end_is_undecided()) {
            self.closed_early = true; // What is held back comes first.
            return;
        }
        if self.session.is_opaque() {
            out.act(Action::ShutdownClient);
            if self.client_closed {
                self.close(Outcome::ClientClosed, out);
            }
            return;
        }
        match self.state {
            State::Closing(_)
            | State::RejectedGreeting
            | State::DiscardingData
            | State::RejectedMessage => {}
            State::Quitting => self.close(Outcome::Quit, out),
            State::Running if self.upstream_tls.in_handshake() => {
                self.on_upstream_closed_in_handshake(out);
            }
            State::Running if self.server_closing => self.close(Outcome::UpstreamClosed, out),
            State::Running if self.awaits_greeting() => {
                let detail = "closed the connection before its greeting".to_owned();
                self.on_unavailable(UpstreamFailure { detail, is_local: false }, out);
            }
            State::Running => {
                let text = "connection to the mail server was lost; try again later";
                let code = EnhancedCode::new(4, 4, 2);
                let outcome = Outcome::UpstreamClosed;
                self.fail(code, text, Refusal::UpstreamLost, outcome, out);
            }
        }
    }
}

/// Sends a reply, or a line of one, on to the client.
fn relay(reply: &Reply<'_>, from: usize, out: &mut Output) {
    match reply.cleaned() {
        None => out.forward(from..from + reply.raw.len()),
        Some(cleaned) => out.act(Action::ToClient(cleaned)),
    }
}
