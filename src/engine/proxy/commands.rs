//! Commands: which go to upstream, and how the gateway answers the others.

use super::{PREGREET, Proxy};
use crate::engine::event::{Anomaly, Outcome, Refusal};
use crate::engine::output::{Action, Output};
use crate::engine::record::PolicyQuestion;
use crate::policy::rules::PolicyStage;
use crate::smtp::{Command, EnhancedCode, ExpectedReply, Line, OwnReply, Piece, Verb, normalized};

impl Proxy {
    /// `has_more`: more bytes of the client came together with the command.
    pub(super) fn on_command(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        from: usize,
        has_more: bool,
        out: &mut Output,
    ) {
        self.record.on_command(line, command, self.now, out);
        let expected = ExpectedReply::to(command);
        let refusal = self.checks.on_command(line, command, &self.session);
        match refusal {
            Some(limit @ (Refusal::LimitCommands | Refusal::LimitErrors)) => {
                return self.fail_over_limit(limit, expected, out);
            }
            Some(refusal @ Refusal::BareNewline) => {
                if command.verb == Verb::Bdat {
                    return self.end_after_bdat(refusal, expected, out);
                }
                self.checks.on_refusal(refusal, out);
                let text = "bare CR or LF in command; lines end in CRLF (RFC 5321 section 2.3.8)";
                return self.answer(expected, 500, EnhancedCode::new(5, 5, 2), text, out);
            }
            _ => {}
        }
        let is_early = self.awaits_greeting(); // Counted as that.
        if self.session.has_pending() && !is_early && !self.session.state().extensions().pipelining
        {
            self.record.anomaly(Anomaly::UnauthorizedPipelining, out);
        }
        if self.checks.hides(command.verb) {
            return self.answer_not_offered(ExpectedReply::Other, out);
        }
        if let Some(refusal) = refusal {
            let fault = self.checks.fault(line, command, &self.session);
            if let Some(fault) = fault.filter(|fault| fault.refusal() == refusal) {
                self.checks.on_refusal(refusal, out);
                let (code, enhanced, text) = fault.reply();
                return self.answer(expected, code, enhanced, text, out);
            }
            return self.refuse_command(refusal, expected, out);
        }
        match (command.verb, &expected) {
            (Verb::Ehlo | Verb::Helo, ExpectedReply::Ehlo(name) | ExpectedReply::Helo(name)) => {
                let helo = PolicyQuestion { helo: Some(name.clone()), ..self.question() };
                self.look_ahead(PolicyQuestion { stage: PolicyStage::Helo, ..helo }, out);
                self.trace_command(command);
                self.forward(line, from, expected, out);
            }
            (Verb::Mail, _) if self.lacks_ehlo() => {
                let text = "EHLO comes first: STARTTLS began a new session";
                self.checks.count_error();
                self.answer(expected, 503, EnhancedCode::new(5, 5, 1), text, out);
            }
            (Verb::Mail, ExpectedReply::Mail { sender, .. }) => {
                let mail = PolicyQuestion { sender: Some(sender.clone()), ..self.question() };
                self.look_ahead(PolicyQuestion { stage: PolicyStage::Mail, ..mail }, out);
                if let Some(mail) = self.trace_command(command) {
                    out.act(Action::ToUpstream(format!("{mail}\r\n").into_bytes()));
                    return self.session.expect(expected);
                }
                self.forward(line, from, expected, out);
            }
            (Verb::Rcpt, ExpectedReply::Rcpt { .. }) => {
                self.on_recipient(line, from, expected, out);
            }
            (Verb::Data, _) if self.session.state().all_recipients_rejected_locally() => {
                self.answer_no_recipients(expected, out);
            }
            (Verb::Data, _)
                if self.early_data_rejected || has_more && self.rejects_early_data() =>
            {
                self.early_data_rejected = true;
                self.record.anomaly(Anomaly::EarlyData, out);
                self.checks.on_refusal(Refusal::EarlyData, out);
                self.checks.count_error();
                let text = "content was sent before the reply to DATA (RFC 2920 section 3.1)";
                self.answer(expected, 503, EnhancedCode::new(5, 5, 0), text, out);
            }
            (Verb::Bdat, _) => {
                if let Ok(chunk) = command.chunk() {
                    self.on_bdat(line, chunk, from, out);
                }
            }
            (Verb::Auth, _) if self.hides_auth() => {
                self.checks.count_error();
                let text = "encryption is required for AUTH: STARTTLS comes first";
                self.answer(expected, 538, EnhancedCode::new(5, 7, 11), text, out);
            }
            (Verb::Auth, _) if self.profile.tls.terminates() && command.requests_external() => {
                self.checks.count_error();
                let text = "AUTH EXTERNAL is not offered here";
                self.answer(expected, 504, EnhancedCode::new(5, 5, 4), text, out);
            }
            (Verb::Starttls, _) if self.profile.tls.terminates() => {
                self.on_own_starttls(command, expected, out);
            }
            (Verb::Starttls, _) => {
                if let Some((refusal, text)) = self.starttls_rejection(out) {
                    return self.reject_starttls(refusal, &text, out);
                }
                self.forward(line, from, expected, out);
            }
            (Verb::Rset, _) => {
                self.trace_command(command);
                self.forward(line, from, expected, out);
            }
            (Verb::Unknown, _) => self.on_unknown_command(line, expected, out),
            _ => self.forward(line, from, expected, out),
        }
    }

    fn refuse_command(&mut self, refusal: Refusal, expected: ExpectedReply, out: &mut Output) {
        if matches!(expected, ExpectedReply::Starttls { .. }) {
            let text = match refusal {
                Refusal::Pregreet => PREGREET,
                _ => self.access_text(),
            };
            let text = text.to_owned();
            return self.reject_starttls(refusal, &text, out);
        }
        if refusal == Refusal::CommandSyntax {
            return self.end_after_bdat(refusal, expected, out);
        }
        self.checks.on_refusal(refusal, out);
        let (code, enhanced, text) = match refusal {
            Refusal::Xclient => {
                (550, EnhancedCode::new(5, 7, 0), "XCLIENT and XFORWARD are not accepted here")
            }
            Refusal::TlsRequired => (530, EnhancedCode::new(5, 7, 0), "STARTTLS is required first"),
            Refusal::Pregreet => (550, EnhancedCode::new(5, 5, 1), PREGREET),
            Refusal::AccessTempfail => (450, EnhancedCode::new(4, 7, 1), self.access_text()),
            _ => (550, EnhancedCode::new(5, 7, 1), self.access_text()),
        };
        let text = text.to_owned();
        self.answer(expected, code, enhanced, &text, out);
    }

    /// Not forwarded: to upstream it might change the meaning of the next bytes.
    fn on_unknown_command(&mut self, line: Line<'_>, expected: ExpectedReply, out: &mut Output) {
        if Command::is_not_smtp(line.text) {
            // A message, or another protocol: its lines are not to be read as commands.
            let text = "not SMTP; this is an SMTP server";
            let reply = OwnReply::new(221, EnhancedCode::new(2, 7, 0), text);
            return self.end_with(reply, Refusal::Junk, expected, out);
        }
        let is_empty = line.text.trim_ascii().is_empty();
        let text = if is_empty { "bad syntax" } else { "command not recognized" };
        self.answer(expected, 500, EnhancedCode::new(5, 5, 2), text, out);
    }

    /// Without the size of the chunk nobody can tell its bytes from commands.
    fn end_after_bdat(&mut self, refusal: Refusal, expected: ExpectedReply, out: &mut Output) {
        let text = "syntax: BDAT size [LAST]; closing";
        let reply = OwnReply::new(521, EnhancedCode::new(5, 5, 4), text);
        self.end_with(reply, refusal, expected, out);
    }

    /// The last reply. Nothing is pending: see [`Proxy::ends_session`].
    fn end_with(
        &mut self,
        reply: OwnReply,
        refusal: Refusal,
        expected: ExpectedReply,
        out: &mut Output,
    ) {
        self.checks.on_refusal(refusal, out);
        self.send_now(expected, reply, out);
        out.act(Action::AbandonUpstream);
        self.close(Outcome::Protocol, out);
    }

    /// Whether the gateway answers a command with the last reply of the session, so that those before it come first.
    pub(super) fn ends_session(&self, line: Line<'_>, command: &Command<'_>) -> bool {
        match command.verb {
            Verb::Bdat => command.chunk().is_err() || !self.checks.accepts_endings(line),
            Verb::Unknown => Command::is_not_smtp(line.text),
            _ => false,
        }
    }

    fn rejects_early_data(&self) -> bool {
        self.checks.rejects_early_data(self.session.state().extensions().pipelining)
    }

    /// The reply text of an access rule's rejection.
    pub(super) fn access_text(&self) -> &str {
        self.checks.rule().unwrap_or("access denied")
    }

    pub(super) fn answer_not_offered(&mut self, expected: ExpectedReply, out: &mut Output) {
        let code = EnhancedCode::new(5, 5, 1);
        self.answer(expected, 502, code, "not offered here", out);
    }

    /// Forwards a command line, normalised if need be, and a path in its only spelling: upstream reads what was decided on.
    pub(super) fn forward(
        &mut self,
        line: Line<'_>,
        from: usize,
        expected: ExpectedReply,
        out: &mut Output,
    ) {
        if let Some(command) = self.checks.rewritten(line) {
            out.act(Action::ToUpstream(format!("{command}\r\n").into_bytes()));
            return self.session.expect(expected);
        }
        normalized(line, |piece| match piece {
            Piece::Input(range) => out.forward(from + range.start..from + range.end),
            Piece::Insert(bytes) => out.act(Action::Insert(bytes)),
        });
        self.session.expect(expected);
    }

    /// A line of an AUTH exchange.
    pub(super) fn on_auth_line(&mut self, line: Line<'_>, from: usize, out: &mut Output) {
        self.record.on_line_endings(line, out);
        if self.checks.accepts_endings(line) {
            self.forward(line, from, ExpectedReply::Auth, out);
        } else {
            self.checks.on_refusal(Refusal::BareNewline, out);
            self.cancel_auth(out);
        }
    }

    /// A line over the limit was discarded. `auth`: it belonged to an AUTH exchange.
    pub(super) fn on_long_line(&mut self, auth: bool, out: &mut Output) {
        self.record.anomaly(Anomaly::CommandTooLong, out);
        if auth {
            self.checks.on_refusal(Refusal::LimitLine, out);
            return self.cancel_auth(out);
        }
        match self.checks.on_long_line(self.session.message_pending()) {
            refusal @ Refusal::LimitLine => {
                self.checks.on_refusal(refusal, out);
                let code = EnhancedCode::new(5, 5, 2);
                self.answer(ExpectedReply::Other, 500, code, "line too long", out);
            }
            limit => self.fail_over_limit(limit, ExpectedReply::Other, out),
        }
    }

    fn fail_over_limit(&mut self, limit: Refusal, expected: ExpectedReply, out: &mut Output) {
        let text = match limit {
            Refusal::LimitCommands => "too many commands without a message",
            _ => "too many errors",
        };
        let code = EnhancedCode::new(4, 7, 0);
        self.fail_reply_to(expected, code, text, limit, Outcome::Limit, out);
    }

    /// Upstream waits for a response: `*` cancels the exchange (RFC 4954 §4), and its 501 is the reply.
    fn cancel_auth(&mut self, out: &mut Output) {
        out.act(Action::ToUpstream(b"*\r\n".to_vec()));
        self.session.expect(ExpectedReply::Auth);
    }

    pub(super) fn answer_no_recipients(&mut self, expected: ExpectedReply, out: &mut Output) {
        self.answer(expected, 554, EnhancedCode::new(5, 5, 1), "no valid recipients", out);
    }
}
