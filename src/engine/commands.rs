//! Commands: which of them go to upstream, and what the others are told.

use super::{
    Action, Anomaly, BareNewlines, Current, Engine, Event, Outcome, Output, PREGREET, Refusal,
};
use crate::policy::Action as PolicyAction;
use crate::smtp::{Asked, Command, EnhancedCode, Extensions, Keyword, Line, Piece, Verb, pieces};
use crate::time::Timestamp;

impl Engine {
    pub(super) fn command(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        from: usize,
        at: Timestamp,
        out: &mut Output,
    ) {
        out.event(Event::Command(command.verb));
        self.recorder.command(command.verb);
        self.commands = self.commands.saturating_add(1);
        if self.over_limits(out) {
            return;
        }
        if !self.endings_pass(line, out) {
            let text =
                "the command has a bare CR or LF; lines end in CRLF (RFC 5321 section 2.3.8)";
            return self.answer(500, EnhancedCode::new(5, 5, 2), text, out);
        }
        if self.session.has_pending() && !self.extensions.pipelining {
            self.recorder.anomaly(Anomaly::UnauthorizedPipelining, out);
        }
        if self.is_hidden(command.verb) {
            return self.not_offered(out);
        }
        match command.verb {
            Verb::Ehlo | Verb::Helo => {
                self.recorder.helo(command.argument, command.verb == Verb::Ehlo);
                self.extensions = Extensions::default();
                self.current = Current::default();
                let asked = if command.verb == Verb::Ehlo { Asked::Ehlo } else { Asked::Helo };
                self.forward(line, from, asked, out);
            }
            Verb::Mail => {
                let path = self.path(command, out);
                let transaction = self.recorder.mail(&path, at);
                self.current = Current {
                    number: transaction,
                    open: true,
                    nested: self.current.open,
                    ..Current::default()
                };
                self.forward(line, from, Asked::Mail { transaction }, out);
            }
            Verb::Rcpt => self.rcpt(line, command, from, out),
            Verb::Data => {
                if self.all_refused() {
                    return self.no_recipients(out);
                }
                let transaction = self.current.number;
                self.forward(line, from, Asked::Data { transaction }, out);
            }
            Verb::Bdat => self.bdat(line, command, from, at, out),
            Verb::Rset => {
                self.current = Current::default();
                self.forward(line, from, Asked::Rset, out);
            }
            Verb::Auth => self.forward(line, from, Asked::Auth, out),
            Verb::Starttls => self.forward(line, from, Asked::Starttls, out),
            Verb::Quit => self.forward(line, from, Asked::Quit, out),
            Verb::Noop | Verb::Vrfy | Verb::Expn | Verb::Help | Verb::Etrn => {
                self.forward(line, from, Asked::Other, out);
            }
            // Only a gateway may speak for others, and there is none in front of this one (trap 4).
            Verb::Xclient | Verb::Xforward => {
                let xclient = command.verb == Verb::Xclient;
                let anomaly = if xclient { Anomaly::Xclient } else { Anomaly::Xforward };
                self.recorder.anomaly(anomaly, out);
                self.recorder.refusal(Refusal::Xclient, out);
                self.answer(
                    550,
                    EnhancedCode::new(5, 7, 0),
                    "not authorized to speak for other clients",
                    out,
                );
            }
            // What we do not know we cannot follow: forwarded, it might change what the next bytes mean.
            Verb::Unknown => {
                self.recorder.anomaly(Anomaly::UnknownCommand, out);
                self.answer(502, EnhancedCode::new(5, 5, 2), "command not recognized", out);
            }
        }
    }

    fn rcpt(&mut self, line: Line<'_>, command: &Command<'_>, from: usize, out: &mut Output) {
        let transaction = self.current.number;
        let path = self.path(command, out);
        let recipient = self.recorder.rcpt(transaction, &path);
        let Some(refusal) = self.refusing else {
            self.current.asked += 1;
            return self.forward(line, from, Asked::Rcpt { transaction, recipient }, out);
        };
        self.current.refused += 1;
        self.recorder.refusal(refusal, out);
        let (code, enhanced, reason) = match refusal {
            Refusal::Pregreet => (550, EnhancedCode::new(5, 5, 1), PREGREET),
            _ => {
                let rule = self.verdict.rule.as_deref().unwrap_or("access denied");
                if self.verdict.action == PolicyAction::Tempfail {
                    (450, EnhancedCode::new(4, 7, 1), rule)
                } else {
                    (550, EnhancedCode::new(5, 7, 1), rule)
                }
            }
        };
        let reason = reason.to_owned();
        self.recorder.rcpt_code(transaction, recipient, code, Some(enhanced));
        self.answer(code, enhanced, &reason, out);
    }

    pub(super) fn not_offered(&mut self, out: &mut Output) {
        let code = EnhancedCode::new(5, 5, 1);
        self.answer(502, code, "not offered here", out);
    }

    /// What is hidden from EHLO is not carried either: a client may try without having been offered it.
    fn is_hidden(&self, verb: Verb) -> bool {
        let keyword = match verb {
            Verb::Starttls => Keyword::Starttls,
            Verb::Auth => Keyword::Auth,
            Verb::Vrfy => Keyword::Vrfy,
            Verb::Expn => Keyword::Expn,
            Verb::Etrn => Keyword::Etrn,
            _ => return false, // BDAT's octets have to be read first.
        };
        self.profile.smtp.hide.contains(&keyword)
    }

    /// Forwards a command line, mended if it has to be, and expects the answer.
    pub(super) fn forward(&mut self, line: Line<'_>, from: usize, asked: Asked, out: &mut Output) {
        pieces(line, |piece| match piece {
            Piece::Input(range) => out.forward(from + range.start..from + range.end),
            Piece::Insert(bytes) => out.act(Action::Insert(bytes)),
        });
        self.session.ask(asked);
    }

    /// Counts bare newlines in a line; returns whether the line may pass.
    pub(super) fn endings_pass(&mut self, line: Line<'_>, out: &mut Output) -> bool {
        if line.is_clean() {
            return true;
        }
        let anomaly = if line.has_bare_cr() { Anomaly::BareCr } else { Anomaly::BareLf };
        self.recorder.anomaly(anomaly, out);
        if self.profile.smtp.bare_newlines != BareNewlines::Reject {
            return true;
        }
        self.recorder.refusal(Refusal::BareNewline, out);
        false
    }

    fn over_limits(&mut self, out: &mut Output) -> bool {
        let limits = self.profile.limits;
        let (text, refusal) = if self.commands > limits.commands {
            ("too many commands without a message", Refusal::LimitCommands)
        } else if self.errors >= limits.errors {
            ("too many errors", Refusal::LimitErrors)
        } else {
            return false;
        };
        // A message whose fate is open is worth more than the limit: 421 now would make the client send it again.
        if self.session.owes_message() {
            return false;
        }
        self.fail(EnhancedCode::new(4, 7, 0), text, refusal, Outcome::Limit, out);
        true
    }

    pub(super) fn too_long(&mut self, auth: bool, out: &mut Output) {
        self.recorder.anomaly(Anomaly::CommandTooLong, out);
        if auth {
            self.recorder.refusal(Refusal::LimitLine, out);
            return self.cancel_auth(out);
        }
        self.commands = self.commands.saturating_add(1);
        if self.over_limits(out) {
            return;
        }
        self.recorder.refusal(Refusal::LimitLine, out);
        self.answer(500, EnhancedCode::new(5, 5, 2), "line too long", out);
    }

    /// Upstream waits for a response: `*` cancels the exchange (RFC 4954 §4), and its 501 is the reply.
    pub(super) fn cancel_auth(&mut self, out: &mut Output) {
        out.act(Action::ToUpstream(b"*\r\n".to_vec()));
        self.session.ask(Asked::Auth);
    }

    pub(super) fn all_refused(&self) -> bool {
        self.current.asked == 0 && self.current.refused > 0
    }

    pub(super) fn no_recipients(&mut self, out: &mut Output) {
        self.answer(554, EnhancedCode::new(5, 5, 1), "no valid recipients", out);
    }

    /// The path of MAIL or RCPT; what cannot be read as one is kept as it came, for upstream to judge.
    fn path(&mut self, command: &Command<'_>, out: &mut Output) -> String {
        if let Some(path) = command.path() {
            return path.into_owned();
        }
        self.recorder.anomaly(Anomaly::BadSyntax, out);
        String::from_utf8_lossy(command.argument).into_owned()
    }
}
