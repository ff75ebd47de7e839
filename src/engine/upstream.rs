//! What upstream replies, and what becomes of it.

use super::{Action, Anomaly, Engine, Outcome, Output, Refusal, ReplySource, Side, Stage};
use crate::smtp::{EnhancedCode, ExpectedReply, Extensions, Reply, ReplyParse, ServerEvent};
use crate::time::Timestamp;

impl Engine {
    /// Upstream's bytes, those not consumed before in front. Returns how many were consumed.
    pub fn upstream(&mut self, input: &[u8], at: Timestamp, out: &mut Output) -> usize {
        self.now = at;
        let mut used = 0;
        if matches!(self.stage, Stage::TurnedAway | Stage::Dropping | Stage::Refused) {
            return input.len(); // It was abandoned.
        }
        if self.holds_greeting() {
            return 0;
        }
        while used < input.len() && !self.is_closing() {
            let rest = input.get(used..).unwrap_or_default();
            used += match self.session.upstream(rest) {
                ServerEvent::Incomplete => break,
                ServerEvent::Plaintext => {
                    self.plaintext_after_starttls(out);
                    rest.len()
                }
                ServerEvent::Opaque => {
                    self.hear_hello(Side::Server, rest);
                    out.forward(used..input.len());
                    rest.len()
                }
                ServerEvent::Malformed => {
                    self.recorder.anomaly(Anomaly::BadReply, out);
                    self.upstream_is_not_smtp(out);
                    rest.len()
                }
                // The only reply that may come unasked, before a server closes (RFC 5321 §3.8).
                ServerEvent::Unexpected(reply) if reply.code == 421 => {
                    self.relay_reply(&reply, ExpectedReply::Other, used, out);
                    reply.raw.len()
                }
                // Relayed, it would answer the client's next command, and every one after would be off by one.
                ServerEvent::Unexpected(_) => {
                    self.recorder.anomaly(Anomaly::UnexpectedReply, out);
                    self.upstream_is_not_smtp(out);
                    rest.len()
                }
                ServerEvent::Reply { reply, asked } => {
                    self.reply(&reply, asked, used, out);
                    reply.raw.len()
                }
            };
        }
        if self.is_closing() {
            used = input.len();
        }
        if used > 0 {
            self.active = at;
            self.recorder.bytes(Side::Server, used as u64, out);
        }
        if std::mem::take(&mut self.closed_early) {
            self.upstream_is_closed(out);
        }
        self.end_if_drained(out);
        used
    }

    fn reply(&mut self, reply: &Reply<'_>, asked: ExpectedReply, from: usize, out: &mut Output) {
        if let ExpectedReply::Own(own) = asked {
            return self.introduced(own, reply, out);
        }
        if asked == ExpectedReply::Starttls && reply.code == 220 {
            // Before the client reads the 220: what it sends after that is TLS.
            out.act(Action::DiscardClient);
        }
        if asked == ExpectedReply::Ehlo && reply.is_positive() {
            let hidden = self.inquiry.as_ref().and_then(|inquiry| inquiry.hidden.as_ref());
            let hidden = hidden.unwrap_or(&self.profile.smtp.hide);
            let (extensions, filtered) = Extensions::filter(reply, hidden);
            self.extensions = extensions;
            if let ReplyParse::Complete(told) = Reply::parse(&filtered) {
                self.recorder.offered(Extensions::offered(&told).1);
            }
            self.recorder.reply(reply.code, ReplySource::Upstream, out);
            out.act(Action::ToClient(filtered));
        } else {
            self.relay_reply(reply, asked, from, out);
        }
        self.note(reply, asked, out);
        while let Some((own, asked)) = self.session.ready() {
            self.send(asked, own, out);
        }
        if asked == ExpectedReply::Quit && reply.is_positive() {
            self.stage = Stage::Leaving;
        }
    }

    /// What a reply means for the record and for what comes next.
    fn note(&mut self, reply: &Reply<'_>, asked: ExpectedReply, out: &mut Output) {
        let transaction = self.recorder.current();
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.replied(asked, reply.code);
        }
        self.recorder.answered(asked, reply.code, reply.enhanced(), self.now, out);
        match asked {
            ExpectedReply::Mail { transaction: asked }
                if asked == transaction && !reply.is_positive() =>
            {
                self.current.open = self.current.nested;
            }
            ExpectedReply::Message { transaction: over } => {
                if over == transaction {
                    self.current.open = false;
                }
                if reply.is_positive() {
                    self.judgement.accepted();
                }
            }
            _ => {}
        }
    }

    fn relay_reply(
        &mut self,
        reply: &Reply<'_>,
        asked: ExpectedReply,
        from: usize,
        out: &mut Output,
    ) {
        self.recorder.reply(reply.code, ReplySource::Upstream, out);
        self.judgement.replied(reply.code);
        // 421: RFC 5321 §3.8; 521: RFC 7504; and one that refuses in place of its greeting may close at once.
        self.said_farewell = matches!(reply.code, 421 | 521)
            || asked == ExpectedReply::Greeting && reply.code >= 400;
        out.forward(from..from + reply.raw.len());
    }

    fn upstream_is_not_smtp(&mut self, out: &mut Output) {
        let text = "the mail server behind this gateway cannot be followed; try again later";
        let code = EnhancedCode::new(4, 5, 0);
        self.fail(code, text, Refusal::UpstreamLost, Outcome::Protocol, out);
    }

    /// Upstream closed its side. Whatever it still owed gets a 4xx, never a 2xx, and is not tried again by us: it may have
    /// taken the message.
    pub(super) fn upstream_is_closed(&mut self, out: &mut Output) {
        self.upstream_closed = true;
        if self.greeting_held && self.stage == Stage::Running {
            self.closed_early = true; // Its greeting may be held back: that comes first.
            return;
        }
        if self.session.is_opaque() {
            out.act(Action::ShutdownClient);
            if self.client_closed {
                self.close(Outcome::ClientClosed, out);
            }
            return;
        }
        match self.stage {
            Stage::Closing(_) | Stage::TurnedAway | Stage::Dropping | Stage::Refused => {}
            Stage::Leaving => self.close(Outcome::Quit, out),
            Stage::Running if self.said_farewell => self.close(Outcome::UpstreamClosed, out),
            Stage::Running if self.awaits_greeting() => self.unavailable(out),
            Stage::Running => {
                let text = "the connection to the mail server behind this gateway was lost; try again later";
                let code = EnhancedCode::new(4, 4, 2);
                let outcome = Outcome::UpstreamClosed;
                self.fail(code, text, Refusal::UpstreamLost, outcome, out);
            }
        }
    }
}
