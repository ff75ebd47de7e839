//! What the server of a recorded dialogue says.

use super::{Footing, Observer, Passing};
use crate::engine::{Anomaly, Desync, Output, ReplySource, Side};
use crate::smtp::{ExpectedReply, Extensions, Reply, ReplyParse, ServerEvent, Wait};

impl Observer {
    /// Returns how much of `input` was understood.
    pub(super) fn server(&mut self, input: &[u8], out: &mut Output) -> usize {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            let at = self.said_at(Side::Server);
            if self.session.is_opaque() {
                self.transcript.encrypted(Side::Server, rest.len() as u64, at);
                self.opaque(rest, out);
                return input.len();
            }
            let passed = self.pass_over(Side::Server, rest);
            if passed > 0 {
                used += passed;
                continue;
            }
            match Reply::parse_on(rest, &mut self.reply_lines) {
                ReplyParse::Incomplete => break,
                ReplyParse::Complete(reply) => {
                    self.reply_lines = 0;
                    self.reply(&reply, out);
                    self.transcript.line(Side::Server, reply.raw, at);
                    used += reply.raw.len();
                    // What of the client's waited for it comes before the next.
                    self.hear(Side::Client, &[], out);
                }
                ReplyParse::Malformed => {
                    self.reply_lines = 0;
                    if !self.no_reply(rest, out) {
                        break;
                    }
                }
            }
        }
        used
    }

    fn opaque(&mut self, rest: &[u8], out: &mut Output) {
        if self.session.is_encrypted() {
            self.hear_hello(Side::Server, rest);
        } else {
            self.plaintext_after_starttls(out); // A TLS server never speaks first.
        }
    }

    /// Octets that are no reply: the rest of the line is passed over. Returns whether they are enough to tell.
    fn no_reply(&mut self, rest: &[u8], out: &mut Output) -> bool {
        if self.footing == Footing::Resync {
            match self.is_tls(Side::Server, rest) {
                None => return false,
                Some(true) => return true,
                Some(false) => {}
            }
        } else {
            self.recorder.anomaly(Anomaly::BadReply, out);
            self.replies_missed(Desync::Reply, out);
        }
        self.pass(Side::Server, Passing::Line);
        true
    }

    fn reply(&mut self, reply: &Reply<'_>, out: &mut Output) {
        if reply.code != 354 {
            self.end_was_one(out);
        }
        self.recorder.reply(reply.code, ReplySource::Upstream, out);
        match self.judged.checked_sub(1) {
            Some(left) => self.judged = left,
            None => self.judgement.replied(reply.code),
        }
        match self.footing {
            Footing::Sure => self.paired(reply, out),
            Footing::Unpaired => self.unpaired(reply, out),
            Footing::Resync => self.proof(reply, out),
        }
        self.note_heard(Side::Server);
        self.word_is_over();
    }

    /// A reply that answers what was asked first, or the message in progress.
    pub(super) fn paired(&mut self, reply: &Reply<'_>, out: &mut Output) {
        if self.session.in_data().is_some() && (self.end_uncertain || reply.is_positive()) {
            return self.ends_message(reply, out);
        }
        let waits_for_354 = self.session.wait() == Some(Wait::Data);
        if reply.code == 354 && waits_for_354 && self.session.owed() != self.session.asked_last() {
            // Replies before it are missing, and nobody said so.
            self.recorder.desync(Desync::Reply, out);
            self.only_last_is_answered();
            self.recorder.resync();
        }
        match self.session.upstream(reply.raw) {
            ServerEvent::Reply { reply, asked } => self.answered(asked, &reply, out),
            ServerEvent::Unexpected(reply) => {
                // The only reply that may come unasked, before a server closes (RFC 5321 §3.8).
                if reply.code == 421 || self.quit {
                    return;
                }
                self.recorder.anomaly(Anomaly::UnexpectedReply, out);
                // It may answer what is not heard yet: pairing the next one could be off by one.
                if self.session.in_data().is_none() {
                    self.recorder.desync(Desync::Reply, out);
                    self.footing = Footing::Unpaired;
                }
            }
            // It was parsed before, and the session is not opaque.
            ServerEvent::Incomplete
            | ServerEvent::Malformed
            | ServerEvent::Plaintext
            | ServerEvent::Opaque => {}
        }
    }

    fn answered(&mut self, asked: ExpectedReply, reply: &Reply<'_>, out: &mut Output) {
        self.spoken_early(asked, out);
        self.recorder.answered(asked, reply.code, reply.enhanced(), self.now, out);
        match asked {
            ExpectedReply::Ehlo if reply.is_positive() => {
                let (extensions, keywords) = Extensions::offered(reply);
                self.extensions = extensions;
                self.recorder.offered(keywords);
            }
            ExpectedReply::Ehlo | ExpectedReply::Helo if !reply.is_positive() => {
                self.extensions = self.offered_before;
            }
            ExpectedReply::Message { .. } if reply.is_positive() => self.judgement.accepted(),
            ExpectedReply::Quit if reply.is_positive() => self.quit = true,
            // An exchange as AUTH's, under a name that we do not know (`X-EXPS`).
            ExpectedReply::Other if reply.code == 334 => self.session.presume_auth_line(),
            // Something like DATA that we do not know (`XEXCH50`).
            _ if reply.code == 354 && !matches!(asked, ExpectedReply::Data { .. }) => {
                self.lose(Desync::Reply, out);
            }
            _ => {}
        }
    }

    /// The client said something that the reply at hand should have come before.
    fn spoken_early(&mut self, asked: ExpectedReply, out: &mut Output) {
        if self.waiting(Side::Client).is_empty() {
            return;
        }
        match asked {
            ExpectedReply::Greeting => {
                self.recorder.anomaly(Anomaly::Pregreet, out);
                if let Some(refusal) = self.judgement.pregreet() {
                    self.judgement.refused(refusal, out);
                    self.judgement.ends();
                }
            }
            ExpectedReply::Data { .. } => self.recorder.anomaly(Anomaly::EarlyData, out),
            _ => {}
        }
    }

    /// The server's word ends a message whose end was not heard: it is missing, was left out, or the server took for it what
    /// is none.
    fn ends_message(&mut self, reply: &Reply<'_>, out: &mut Output) {
        let Some(transaction) = self.session.in_data().filter(|_| reply.code != 354) else {
            return;
        };
        if !(self.end_uncertain || self.left_out) {
            self.recorder.anomaly(Anomaly::UnexpectedReply, out);
        }
        let (_, findings) = self.session.scan(&[], |_| {});
        self.content_ended(findings.bare_lf || findings.bare_cr, None, out);
        let asked = ExpectedReply::Message { transaction };
        self.recorder.answered(asked, reply.code, reply.enhanced(), self.now, out);
        if reply.is_positive() {
            self.judgement.accepted();
        }
        // What of the client's was read as content may have been commands behind the end.
        self.lose(Desync::EndOfData, out);
    }
}
