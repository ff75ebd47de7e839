//! Commands: which of them go to upstream, and what the others are told.

use super::{Action, Anomaly, Current, Engine, Outcome, Output, PREGREET, Refusal};
use crate::smtp::{Command, EnhancedCode, ExpectedReply, Extensions, Line, Piece, Verb, pieces};

impl Engine {
    pub(super) fn command(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        from: usize,
        out: &mut Output,
    ) {
        let asked = self.recorder.command(line, command, self.now, out);
        let refusal = self.judgement.command(line, command, self.session.owes_message());
        match refusal {
            Some(limit @ (Refusal::LimitCommands | Refusal::LimitErrors)) => {
                return self.over_limit(limit, asked, out);
            }
            Some(refusal @ Refusal::BareNewline) => {
                self.judgement.refused(refusal, out);
                let text =
                    "the command has a bare CR or LF; lines end in CRLF (RFC 5321 section 2.3.8)";
                return self.answer(asked, 500, EnhancedCode::new(5, 5, 2), text, out);
            }
            _ => {}
        }
        if self.session.has_pending() && !self.extensions.pipelining {
            self.recorder.anomaly(Anomaly::UnauthorizedPipelining, out);
        }
        if self.judgement.hides(command.verb) {
            return self.not_offered(ExpectedReply::Other, out);
        }
        if let Some(refusal) = refusal {
            return self.refuse_command(refusal, asked, out);
        }
        match command.verb {
            Verb::Ehlo | Verb::Helo => {
                self.extensions = Extensions::default();
                self.current = Current::default();
                if let Some(inquiry) = &mut self.inquiry {
                    inquiry.helo(String::from_utf8_lossy(command.argument).into_owned(), out);
                }
                self.forward(line, from, asked, out);
            }
            Verb::Mail => {
                self.current =
                    Current { open: true, nested: self.current.open, ..Current::default() };
                if let (Some(inquiry), ExpectedReply::Mail { transaction }) =
                    (&mut self.inquiry, asked)
                {
                    inquiry.mail(path_of(command), transaction, out);
                }
                self.forward(line, from, asked, out);
            }
            Verb::Rcpt => {
                if let Some(fired) = self.rule_on_recipient(out) {
                    return self.refuse_recipient(&fired, &path_of(command), asked, out);
                }
                self.current.asked += 1;
                self.forward(line, from, asked, out);
            }
            Verb::Data if self.all_refused() => self.no_recipients(asked, out),
            Verb::Bdat => {
                if let Ok(chunk) = command.chunk() {
                    self.bdat(line, chunk, from, out);
                }
            }
            Verb::Rset => {
                self.current = Current::default();
                self.forward(line, from, asked, out);
            }
            Verb::Starttls => {
                if let Some((refusal, enhanced, text)) = self.rule_on_starttls(out) {
                    return self.refuse_starttls(refusal, enhanced, &text, out);
                }
                self.forward(line, from, asked, out);
            }
            // What we do not know we cannot follow: forwarded, it might change what the next bytes mean.
            Verb::Unknown => {
                let code = EnhancedCode::new(5, 5, 2);
                self.answer(asked, 502, code, "command not recognized", out);
            }
            _ => self.forward(line, from, asked, out),
        }
    }

    fn refuse_command(&mut self, refusal: Refusal, asked: ExpectedReply, out: &mut Output) {
        if asked == ExpectedReply::Starttls {
            let (code, text) = match refusal {
                Refusal::Pregreet => (EnhancedCode::new(5, 5, 1), PREGREET),
                Refusal::AccessTempfail => (EnhancedCode::new(4, 7, 1), self.rule()),
                _ => (EnhancedCode::new(5, 7, 1), self.rule()),
            };
            let text = text.to_owned();
            return self.refuse_starttls(refusal, code, &text, out);
        }
        self.judgement.refused(refusal, out);
        if matches!(asked, ExpectedReply::Rcpt { .. }) {
            self.current.refused += 1;
        }
        let (code, enhanced, text) = match refusal {
            Refusal::Xclient => {
                (550, EnhancedCode::new(5, 7, 0), "not authorized to speak for other clients")
            }
            Refusal::CommandSyntax => {
                (501, EnhancedCode::new(5, 5, 4), "BDAT wants an octet count and optionally LAST")
            }
            Refusal::Pregreet => (550, EnhancedCode::new(5, 5, 1), PREGREET),
            Refusal::AccessTempfail => (450, EnhancedCode::new(4, 7, 1), self.rule()),
            _ => (550, EnhancedCode::new(5, 7, 1), self.rule()),
        };
        let text = text.to_owned();
        self.answer(asked, code, enhanced, &text, out);
    }

    /// What an access rule's refusal says.
    pub(super) fn rule(&self) -> &str {
        self.judgement.rule().unwrap_or("access denied")
    }

    pub(super) fn not_offered(&mut self, asked: ExpectedReply, out: &mut Output) {
        let code = EnhancedCode::new(5, 5, 1);
        self.answer(asked, 502, code, "not offered here", out);
    }

    /// Forwards a command line, mended if it has to be, and expects the answer.
    pub(super) fn forward(
        &mut self,
        line: Line<'_>,
        from: usize,
        asked: ExpectedReply,
        out: &mut Output,
    ) {
        pieces(line, |piece| match piece {
            Piece::Input(range) => out.forward(from + range.start..from + range.end),
            Piece::Insert(bytes) => out.act(Action::Insert(bytes)),
        });
        self.session.ask(asked);
    }

    /// A line of an AUTH exchange.
    pub(super) fn auth_line(&mut self, line: Line<'_>, from: usize, out: &mut Output) {
        self.recorder.endings(line, out);
        if self.judgement.endings_pass(line) {
            self.forward(line, from, ExpectedReply::Auth, out);
        } else {
            self.judgement.refused(Refusal::BareNewline, out);
            self.cancel_auth(out);
        }
    }

    pub(super) fn too_long(&mut self, auth: bool, out: &mut Output) {
        self.recorder.anomaly(Anomaly::CommandTooLong, out);
        if auth {
            self.judgement.refused(Refusal::LimitLine, out);
            return self.cancel_auth(out);
        }
        match self.judgement.too_long(self.session.owes_message()) {
            refusal @ Refusal::LimitLine => {
                self.judgement.refused(refusal, out);
                let code = EnhancedCode::new(5, 5, 2);
                self.answer(ExpectedReply::Other, 500, code, "line too long", out);
            }
            limit => self.over_limit(limit, ExpectedReply::Other, out),
        }
    }

    fn over_limit(&mut self, limit: Refusal, asked: ExpectedReply, out: &mut Output) {
        let text = match limit {
            Refusal::LimitCommands => "too many commands without a message",
            _ => "too many errors",
        };
        let code = EnhancedCode::new(4, 7, 0);
        self.fail_instead(asked, code, text, limit, Outcome::Limit, out);
    }

    /// Upstream waits for a response: `*` cancels the exchange (RFC 4954 §4), and its 501 is the reply.
    fn cancel_auth(&mut self, out: &mut Output) {
        out.act(Action::ToUpstream(b"*\r\n".to_vec()));
        self.session.ask(ExpectedReply::Auth);
    }

    pub(super) const fn all_refused(&self) -> bool {
        self.current.asked == 0 && self.current.refused > 0
    }

    pub(super) fn no_recipients(&mut self, asked: ExpectedReply, out: &mut Output) {
        self.answer(asked, 554, EnhancedCode::new(5, 5, 1), "no valid recipients", out);
    }
}

/// The path of MAIL or RCPT; what cannot be read as one is what came, for the server to judge.
pub(super) fn path_of(command: &Command<'_>) -> String {
    let path = command.path().unwrap_or_else(|| String::from_utf8_lossy(command.argument));
    path.into_owned()
}
