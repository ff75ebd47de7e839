//! Bytes from the server of an observed session.

use super::{Observer, Skipping, Tracking};
use crate::addr::Side;
use crate::engine::event::{Anomaly, Desync, Refusal, ReplySource};
use crate::engine::output::Output;
use crate::smtp::{EnhancedCode, ExpectedReply, Extensions, Reply, ReplyParse, ServerEvent, Wait};

impl Observer {
    /// Returns how much of `input` was interpreted.
    pub(super) fn on_server_bytes(&mut self, input: &[u8], out: &mut Output) -> usize {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let at = self.since(Side::Server);
            if self.session.is_opaque() {
                self.transcript.encrypted(Side::Server, rest.len() as u64, at);
                self.on_opaque(rest, out);
                return input.len();
            }
            let skipped = self.skipped(Side::Server, rest);
            if skipped > 0 {
                used += skipped;
                continue;
            }
            match Reply::parse_on(rest, &mut self.reply_lines) {
                ReplyParse::Incomplete => break,
                ReplyParse::Complete(reply) => {
                    self.reply_lines = 0;
                    let reply = self.greeting_of(&reply).unwrap_or(reply);
                    self.on_reply(&reply, out);
                    self.transcript.line(Side::Server, reply.raw, at);
                    used += reply.raw.len();
                    // Client bytes that waited for this reply come before the next.
                    self.feed(Side::Client, &[], out);
                }
                ReplyParse::Malformed => {
                    self.reply_lines = 0;
                    if !self.on_malformed_reply(rest, out) {
                        break;
                    }
                }
            }
        }
        used
    }

    fn on_opaque(&mut self, rest: &[u8], out: &mut Output) {
        if self.session.is_encrypted() {
            self.on_tls_bytes(Side::Server, rest);
        } else {
            self.on_plaintext_after_starttls(out); // A TLS server never sends first.
        }
    }

    /// The rest of the line is skipped. Returns whether the bytes suffice to tell a reply from TLS.
    fn on_malformed_reply(&mut self, rest: &[u8], out: &mut Output) -> bool {
        if self.tracking == Tracking::Resync {
            match self.is_tls(Side::Server, rest) {
                None => return false,
                Some(true) => return true,
                Some(false) => {}
            }
        } else {
            self.record.anomaly(Anomaly::BadReply, out);
            self.on_replies_missed(Desync::Reply, out);
        }
        self.skip(Side::Server, Skipping::Line);
        true
    }

    fn on_reply(&mut self, reply: &Reply<'_>, out: &mut Output) {
        if reply.code != 354 {
            self.confirm_ambiguous_end(out);
        }
        // A greeting may end in a rejection.
        if reply.mixed_codes && !(self.expects_greeting() && reply.code >= 400) {
            self.record.anomaly(Anomaly::BadReply, out);
        }
        self.record.count_reply(reply.code, ReplySource::Upstream, out);
        match self.tracking {
            Tracking::Paired => self.pair(reply, out),
            Tracking::Unpaired => self.on_unpaired_reply(reply, out),
            Tracking::Resync => self.resync_by(reply, out),
        }
        self.set_has_sent(Side::Server);
        self.begin_turn();
    }

    /// The part of a reply that is the greeting: to a client that does not wait postscreen(8) sends replies in place of its
    /// last line.
    fn greeting_of<'a>(&self, reply: &Reply<'a>) -> Option<Reply<'a>> {
        let is_early = self.expects_greeting() && !self.held_by(Side::Client).is_empty();
        let rejects = matches!(reply.code, 421 | 521 | 554);
        reply.until_mixed().filter(|_| is_early && !rejects)
    }

    fn expects_greeting(&self) -> bool {
        self.session.oldest_pending() == Some(&ExpectedReply::Greeting)
    }

    /// A reply to the oldest pending command, or to the current message.
    pub(super) fn pair(&mut self, reply: &Reply<'_>, out: &mut Output) {
        if self.session.in_data() && (self.end_uncertain || reply.is_positive()) {
            return self.end_message_by(reply, out);
        }
        let waits_for_354 = self.session.wait() == Some(Wait::Data);
        if reply.code == 354 && waits_for_354 && self.session.pending_count() > 1 {
            // Replies before it are missing, and no gap was reported.
            self.record.on_desync(Desync::Reply, out);
            self.note_unanswered(true);
            self.record.on_resync();
        }
        self.note_question();
        match self.session.pair(*reply) {
            ServerEvent::Reply { reply, expected } => self.on_answer(&expected, &reply, out),
            ServerEvent::Unexpected(reply) => {
                // The only reply without a command, before a server closes (RFC 5321 §3.8).
                if reply.code == 421 || self.quit {
                    return;
                }
                self.record.anomaly(Anomaly::UnexpectedReply, out);
                // It may answer a command that was not seen yet: pairing the next one could be off by one.
                if !self.session.in_data() {
                    self.record.on_desync(Desync::Reply, out);
                    self.tracking = Tracking::Unpaired;
                }
            }
            // The reply is parsed already.
            ServerEvent::Incomplete
            | ServerEvent::Malformed
            | ServerEvent::GreetingLine(_)
            | ServerEvent::MixedCodes(_)
            | ServerEvent::Plaintext
            | ServerEvent::Opaque => {}
        }
    }

    fn on_answer(&mut self, expected: &ExpectedReply, reply: &Reply<'_>, out: &mut Output) {
        self.check_early_data(expected, reply, out);
        let in_transaction = self.session.next_transaction().is_some();
        self.record.on_reply(expected, reply.code, in_transaction, self.now, out);
        match expected {
            ExpectedReply::Data if reply.code == 354 => self.read_content(),
            ExpectedReply::Ehlo(_) if reply.is_positive() => {
                let (extensions, keywords) = Extensions::offered(reply);
                self.session.on_extensions(extensions);
                self.record.on_keywords(keywords);
            }
            ExpectedReply::Message { .. } if reply.is_positive() => {
                self.checks.on_message_accepted();
            }
            ExpectedReply::Quit if reply.is_positive() => self.quit = true,
            ExpectedReply::Starttls { .. } => {
                self.sent_before_tls = self.held_by(Side::Client).len();
            }
            // An exchange like that of AUTH, under an unknown name (`X-EXPS`).
            ExpectedReply::Other if reply.code == 334 => {
                self.note_unanswered(false);
                self.session.assume_auth_line();
            }
            // A command like DATA, under an unknown name (`XEXCH50`).
            _ if reply.code == 354 && *expected != ExpectedReply::Data => {
                self.lose(Desync::Reply, out);
            }
            _ => {}
        }
    }

    /// Client bytes are held that should have been sent after this reply.
    fn check_early_data(&mut self, expected: &ExpectedReply, reply: &Reply<'_>, out: &mut Output) {
        if self.held_by(Side::Client).is_empty() {
            return;
        }
        match expected {
            ExpectedReply::Greeting => {
                self.record.anomaly(Anomaly::Pregreet, out);
                if let Some(refusal) = self.checks.on_pregreet() {
                    self.checks.on_refusal(refusal, out);
                    self.checks.end();
                }
            }
            ExpectedReply::Data => {
                self.record.anomaly(Anomaly::EarlyData, out);
                // Whether it came in one piece with DATA depends on the segments; the gateway's reply does not.
                let is_gateways =
                    reply.code == 503 && reply.enhanced() == Some(EnhancedCode::new(5, 5, 0));
                let pipelining = self.session.state().extensions().pipelining;
                if is_gateways && self.checks.rejects_early_data(pipelining) {
                    self.checks.on_refusal(Refusal::EarlyData, out);
                    self.checks.count_error();
                }
            }
            _ => {}
        }
    }

    /// The reply to a message whose end was not seen: it is missing, was omitted, or the server took something else for it.
    fn end_message_by(&mut self, reply: &Reply<'_>, out: &mut Output) {
        if reply.code == 354 {
            return;
        }
        if !(self.end_uncertain || self.content_omitted) {
            self.record.anomaly(Anomaly::UnexpectedReply, out);
        }
        let (_, findings) = self.session.scan(&[], self.now, |_| {});
        self.on_content_end(findings.bare_lf || findings.bare_cr, None, out);
        self.session.assume_end_of_data(None);
        self.note_question();
        if let ServerEvent::Reply { reply, expected } = self.session.pair(*reply) {
            self.record.on_reply(&expected, reply.code, true, self.now, out);
        }
        if reply.is_positive() {
            self.checks.on_message_accepted();
        }
        // Client bytes that were read as content may have been commands after the end.
        self.lose(Desync::EndOfData, out);
    }
}
