//! What the client says, and what becomes of it.

use super::{
    Action, Anomaly, BareNewlines, Current, Direction, Engine, Event, Outcome, Output, PREGREET,
    Refusal, Side, Stage,
};
use crate::policy::Action as PolicyAction;
use crate::smtp::{
    Asked, Command, EnhancedCode, Extensions, Findings, Item, Junk, Keyword, Line, OwnReply, Piece,
    Progress, Split, Verb, Wait, pieces,
};
use crate::time::Timestamp;

/// What one item made of the input.
enum Step {
    Consumed(usize),
    /// Nothing more can be done with what there is: too little, or a reply has to come first.
    Stop {
        waiting: bool,
    },
}

impl Engine {
    /// The client's bytes, those not consumed before in front. Returns how many were consumed.
    pub fn client(&mut self, input: &[u8], at: Timestamp, out: &mut Output) -> usize {
        let mut used = 0;
        self.held_back = false;
        while used < input.len() {
            if self.is_closing() || self.stage == Stage::Leaving {
                used = input.len(); // After the end nobody answers.
                break;
            }
            match self.client_step(input, used, at, out) {
                Step::Consumed(count) => used += count,
                Step::Stop { waiting } => {
                    self.held_back = waiting;
                    break;
                }
            }
        }
        if used > 0 {
            self.active = at;
            self.recorder.bytes(Side::Client, used as u64, out);
        }
        if self.client_closed {
            self.client_is_closed(out);
        }
        used
    }

    fn client_step(&mut self, input: &[u8], from: usize, at: Timestamp, out: &mut Output) -> Step {
        let rest = input.get(from..).unwrap_or_default();
        match self.stage {
            Stage::TurnedAway => return self.turned_away_step(rest, out),
            Stage::Dropping => return Step::Consumed(self.drop_content(rest, at, out)),
            Stage::Refused => return self.refused_step(rest, out),
            Stage::Running | Stage::Leaving | Stage::Closing(_) => {}
        }
        match self.session.client(rest) {
            Item::Incomplete => Step::Stop { waiting: false },
            Item::Waiting(wait) => {
                self.impatient(wait, out);
                if self.stage == Stage::TurnedAway {
                    return Step::Consumed(0); // Nothing is waited for any more.
                }
                if wait == Wait::Greeting
                    && let Some(junk) = Junk::before_greeting(rest)
                {
                    self.junk(junk, out);
                    return Step::Consumed(rest.len());
                }
                Step::Stop { waiting: true }
            }
            // Told at once, 554 would be read as the reply to what is still with upstream; a message, say.
            Item::Junk(_) if self.session.has_pending() => Step::Stop { waiting: true },
            Item::Junk(junk) => {
                self.junk(junk, out);
                Step::Consumed(rest.len())
            }
            Item::Command { line, command } => {
                if self.introduce(&command, out) {
                    return Step::Stop { waiting: true };
                }
                self.impatience_counted = false;
                self.command(line, &command, from, at, out);
                Step::Consumed(line.len())
            }
            Item::TooLong { len, done, auth } => {
                if done {
                    self.too_long(auth, out);
                }
                Step::Consumed(len)
            }
            Item::AuthLine(line) => {
                if self.endings_pass(line, out) {
                    self.forward(line, from, Asked::Auth, out);
                } else {
                    self.cancel_auth(out);
                }
                Step::Consumed(line.len())
            }
            Item::Content => Step::Consumed(self.content(rest, from, at, out)),
            Item::Chunk { len, wanted } => {
                if wanted {
                    out.forward(from..from + len);
                    self.recorder.content(len as u64);
                }
                match self.session.chunk_passed(len as u64) {
                    Progress::MessageEnds => self.recorder.content_ended(at, out),
                    Progress::ChunkEnds { wanted: false } => self.unwanted_chunk(out),
                    Progress::ChunkEnds { wanted: true } | Progress::Within => {}
                }
                Step::Consumed(len)
            }
            Item::Plaintext { len } => {
                self.plaintext_after_starttls(out);
                Step::Consumed(len)
            }
            Item::Opaque => {
                out.forward(from..from + rest.len());
                Step::Consumed(rest.len())
            }
        }
    }

    fn command(
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

    fn bdat(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        from: usize,
        at: Timestamp,
        out: &mut Output,
    ) {
        let Ok(chunk) = command.chunk() else {
            self.recorder.anomaly(Anomaly::BadSyntax, out);
            self.recorder.refusal(Refusal::CommandSyntax, out);
            let text = "BDAT wants an octet count and optionally LAST";
            return self.answer(501, EnhancedCode::new(5, 5, 4), text, out);
        };
        // An upstream that did not offer CHUNKING would read the octets as commands, and we would not see them.
        let wanted = self.extensions.chunking && !self.all_refused();
        self.session.expect_chunk(chunk, wanted);
        if !wanted {
            if chunk.size == 0 {
                self.unwanted_chunk(out);
            }
            return;
        }
        let transaction = self.current.number;
        if !self.current.chunking {
            self.current.chunking = true;
            self.recorder.content_begins(transaction, true, at, out);
        }
        let asked =
            if chunk.last { Asked::Message { transaction } } else { Asked::Chunk { transaction } };
        if line.text.eq_ignore_ascii_case(chunk.as_command().as_bytes()) {
            self.forward(line, from, asked, out);
        } else {
            // The size must be read in one way only: no leading zeros, no odd white space.
            out.act(Action::ToUpstream(format!("{}\r\n", chunk.as_command()).into_bytes()));
            self.session.ask(asked);
        }
        if chunk.last {
            // What is said next belongs to no transaction, whenever the reply comes.
            self.current = Current::default();
            if chunk.size == 0 {
                self.recorder.content_ended(at, out);
            }
        }
    }

    /// A chunk that upstream did not get is over.
    fn unwanted_chunk(&mut self, out: &mut Output) {
        if self.extensions.chunking {
            self.no_recipients(out);
        } else {
            self.not_offered(out);
        }
    }

    fn not_offered(&mut self, out: &mut Output) {
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

    fn content(&mut self, rest: &[u8], from: usize, at: Timestamp, out: &mut Output) -> usize {
        // The 354 had to come first, so content is always the first thing in an input, and nothing precedes its actions.
        let before = out.actions.len();
        let (end, findings) = self.session.scan(rest, |piece| match piece {
            Piece::Input(range) => out.forward(from + range.start..from + range.end),
            Piece::Insert(bytes) => out.act(Action::Insert(bytes)),
        });
        let used = end.unwrap_or(rest.len());
        self.recorder.content(used as u64);
        let bare = self.findings(findings, out);
        if bare && self.profile.smtp.bare_newlines == BareNewlines::Reject {
            // Nothing of this chunk may reach upstream: with it might go the end of data.
            out.actions.truncate(before);
            out.act(Action::AbandonUpstream);
            self.stage = Stage::Dropping;
        }
        if end.is_some() {
            self.content_ends(at, out);
        }
        used
    }

    /// More of a message that is refused: counted, and not kept.
    fn drop_content(&mut self, rest: &[u8], at: Timestamp, out: &mut Output) -> usize {
        let (end, findings) = self.session.scan(rest, |_| {});
        let used = end.unwrap_or(rest.len());
        self.recorder.content(used as u64);
        self.findings(findings, out);
        if end.is_some() {
            self.content_ends(at, out);
        }
        used
    }

    fn content_ends(&mut self, at: Timestamp, out: &mut Output) {
        self.recorder.content_ended(at, out);
        if self.stage == Stage::Dropping {
            self.refuse_message(at, out);
        }
        self.current = Current::default();
        if self.stage == Stage::Refused {
            self.end_if_drained(out);
        }
    }

    /// Counts what a message newly shows. Returns whether it has bare newlines.
    fn findings(&mut self, findings: Findings, out: &mut Output) -> bool {
        let found = [
            (findings.bare_lf, Anomaly::BareLf),
            (findings.bare_cr, Anomaly::BareCr),
            (findings.smuggling, Anomaly::Smuggling),
            (findings.long_line, Anomaly::TextLineTooLong),
        ];
        for (_, anomaly) in found.into_iter().filter(|(is, _)| *is) {
            self.recorder.anomaly_of_message(anomaly, out);
        }
        findings.bare_lf || findings.bare_cr
    }

    /// The end of a message with bare newlines, in mode `reject`: a client reads replies when it has sent all, and one that
    /// saw its connection break before would come back with the same message. Upstream is lost with it, so that the
    /// session ends as RFC 5321 §3.8 has it.
    fn refuse_message(&mut self, at: Timestamp, out: &mut Output) {
        self.stage = Stage::Refused;
        self.recorder.refusal(Refusal::BareNewline, out);
        // A refusal that upstream gave before the end was the reply already.
        if self.session.owes_message() {
            let text =
                "the message has a bare CR or LF; lines end in CRLF (RFC 5321 section 2.3.8)";
            self.send(OwnReply::new(550, EnhancedCode::new(5, 6, 0), text), out);
            self.recorder.message_code(self.current.number, 550, at, out);
        }
    }

    /// Forwards a command line, mended if it has to be, and expects the answer.
    fn forward(&mut self, line: Line<'_>, from: usize, asked: Asked, out: &mut Output) {
        pieces(line, |piece| match piece {
            Piece::Input(range) => out.forward(from + range.start..from + range.end),
            Piece::Insert(bytes) => out.act(Action::Insert(bytes)),
        });
        self.session.ask(asked);
    }

    /// Counts bare newlines in a line; returns whether the line may pass.
    fn endings_pass(&mut self, line: Line<'_>, out: &mut Output) -> bool {
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

    fn too_long(&mut self, auth: bool, out: &mut Output) {
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
    fn cancel_auth(&mut self, out: &mut Output) {
        out.act(Action::ToUpstream(b"*\r\n".to_vec()));
        self.session.ask(Asked::Auth);
    }

    fn all_refused(&self) -> bool {
        self.current.asked == 0 && self.current.refused > 0
    }

    fn no_recipients(&mut self, out: &mut Output) {
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

    fn junk(&mut self, junk: Junk, out: &mut Output) {
        let anomaly = match junk {
            Junk::Http => Anomaly::JunkHttp,
            Junk::Tls => Anomaly::JunkTls,
            Junk::Proxy => Anomaly::JunkProxy,
        };
        self.recorder.anomaly(anomaly, out);
        self.recorder.refusal(Refusal::Junk, out);
        let text = "this is an SMTP server; that was not SMTP";
        self.send(OwnReply::new(554, EnhancedCode::new(5, 5, 1), text), out);
        out.act(Action::AbandonUpstream);
        self.close(Outcome::Protocol, out);
    }

    /// After a 554 greeting: 503 to everything, until QUIT.
    fn turned_away_step(&mut self, rest: &[u8], out: &mut Output) -> Step {
        let line = match Line::split(rest, self.profile.limits.line_length) {
            Split::Line(line) => line,
            Split::Incomplete => return Step::Stop { waiting: false },
            Split::TooLong => {
                self.close(Outcome::Refused, out);
                return Step::Consumed(rest.len());
            }
        };
        let verb = Command::parse(line.text).verb;
        out.event(Event::Command(verb));
        self.recorder.command(verb);
        if verb == Verb::Quit {
            self.send(OwnReply::new(221, EnhancedCode::new(2, 0, 0), "goodbye"), out);
            self.close(Outcome::Refused, out);
        } else if self.errors >= self.profile.limits.errors {
            let code = EnhancedCode::new(4, 7, 0);
            self.fail(code, "too many errors", Refusal::LimitErrors, Outcome::Limit, out);
        } else {
            let text = "access was refused; only QUIT is left";
            self.send(OwnReply::new(503, EnhancedCode::new(5, 5, 1), text), out);
        }
        Step::Consumed(line.len())
    }

    /// After a refused message: upstream is gone.
    fn refused_step(&mut self, rest: &[u8], out: &mut Output) -> Step {
        let verb = match Line::split(rest, self.profile.limits.line_length) {
            Split::Incomplete => return Step::Stop { waiting: false },
            Split::Line(line) => Command::parse(line.text).verb,
            Split::TooLong => Verb::Unknown,
        };
        out.event(Event::Command(verb));
        self.recorder.command(verb);
        if verb == Verb::Quit {
            self.send(OwnReply::new(221, EnhancedCode::new(2, 0, 0), "goodbye"), out);
            self.close(Outcome::Quit, out);
        } else {
            let text = format!("{} only QUIT was left; closing", self.profile.smtp.hostname);
            self.send(OwnReply::new(421, EnhancedCode::new(4, 3, 2), &text), out);
            self.close(Outcome::Protocol, out);
        }
        Step::Consumed(rest.len())
    }

    /// The client will send no more. What it sent may still wait for a reply to be understood.
    pub(super) fn client_is_closed(&mut self, out: &mut Output) {
        if self.held_back || self.is_closing() || self.stage == Stage::Leaving {
            return;
        }
        if self.stage == Stage::TurnedAway {
            self.close(Outcome::Refused, out);
        } else if matches!(self.stage, Stage::Dropping | Stage::Refused) {
            self.close(Outcome::ClientClosed, out);
        } else if self.session.is_opaque() {
            if !self.upstream_told {
                self.upstream_told = true;
                out.act(Action::ShutdownUpstream);
            }
            if self.upstream_closed {
                self.close(Outcome::UpstreamClosed, out);
            }
        } else if self.session.in_content() {
            out.act(Action::AbandonUpstream);
            self.close(Outcome::ClientClosed, out);
        } else if !self.session.has_pending() || self.awaits_greeting() {
            self.close(Outcome::ClientClosed, out);
        }
        // Else the replies that the client may still read come first; `upstream` looks again after each.
    }
}

impl Side {
    pub(super) const fn direction(self) -> Direction {
        match self {
            Self::Client => Direction::ClientToUpstream,
            Self::Server => Direction::UpstreamToClient,
        }
    }
}
