//! What the client of a recorded dialogue says.

use super::{Footing, MAX_DOUBT, MAX_LINE, Observer, Passing};
use crate::engine::{Anomaly, Desync, Output, Refusal, Side};
use crate::smtp::{Command, ExpectedReply, Item, Junk, Line, Progress, Split, Verb, Wait};
use crate::time::Timestamp;

/// What one item made of the input.
pub(super) enum Step {
    Consumed(usize),
    /// Nothing was consumed, and it is to be looked at anew.
    Again,
    /// Too little, or a reply has to come first.
    Stop,
}

impl Observer {
    /// Returns how much of `input` was understood.
    pub(super) fn client(&mut self, input: &[u8], out: &mut Output) -> usize {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            if self.quit {
                return input.len();
            }
            if !self.session.is_opaque() {
                let passed = self.pass_over(Side::Client, rest);
                if passed > 0 {
                    used += passed;
                    continue;
                }
            }
            let (opaque, content) = (self.session.is_opaque(), self.session.in_content());
            let step = match self.footing {
                Footing::Resync if !self.session.is_opaque() => self.adrift(rest),
                _ => self.client_step(rest, out),
            };
            match step {
                Step::Consumed(count) => {
                    used += count;
                    let octets = rest.get(..count).unwrap_or_default();
                    let at = self.said_at(Side::Client);
                    match (opaque, content) {
                        (true, _) => self.transcript.encrypted(Side::Client, count as u64, at),
                        (_, true) => self.transcript.content(Side::Client, octets, at),
                        _ => self.transcript.line(Side::Client, octets, at),
                    }
                }
                Step::Again => {}
                Step::Stop => break,
            }
        }
        used
    }

    fn client_step(&mut self, rest: &[u8], out: &mut Output) -> Step {
        match self.session.client(rest) {
            Item::Incomplete => Step::Stop,
            // Implicit TLS: no greeting will come.
            Item::Waiting(Wait::Greeting) if Junk::recognise(rest) == Some(Junk::Tls) => {
                self.junk(Junk::Tls, rest, out)
            }
            Item::Waiting(_) if self.footing == Footing::Sure => Step::Stop,
            Item::Waiting(wait) => self.presume(wait, rest, out),
            Item::Junk(junk) => self.junk(junk, rest, out),
            Item::Command { line, command } => {
                self.command(line, &command, out);
                Step::Consumed(line.len())
            }
            Item::TooLong { len, done, auth } => {
                if done {
                    self.recorder.anomaly(Anomaly::CommandTooLong, out);
                    self.judge_too_long(out);
                    self.ask(if auth { ExpectedReply::Auth } else { ExpectedReply::Other });
                }
                Step::Consumed(len)
            }
            Item::AuthLine(line) => {
                self.recorder.endings(line, out);
                if !self.judgement.endings_pass(line) {
                    self.judgement.refused(Refusal::BareNewline, out);
                }
                self.ask(ExpectedReply::Auth);
                Step::Consumed(line.len())
            }
            Item::Content => self.content(rest, out),
            Item::Chunk { len, .. } => {
                self.chunk(len as u64, out);
                Step::Consumed(len)
            }
            Item::Plaintext { len } => {
                self.plaintext_after_starttls(out);
                Step::Consumed(len)
            }
            Item::Opaque => {
                self.hear_hello(Side::Client, rest);
                Step::Consumed(rest.len())
            }
        }
    }

    pub(super) fn command(&mut self, line: Line<'_>, command: &Command<'_>, out: &mut Output) {
        let mut asked = self.recorder.command(line, command, self.now, out);
        if self.judge(line, command, out) {
            let pending = self.footing == Footing::Sure && self.session.has_pending();
            if pending && !self.extensions.pipelining {
                self.recorder.anomaly(Anomaly::UnauthorizedPipelining, out);
            }
        }
        match command.verb {
            Verb::Ehlo | Verb::Helo => {
                self.offered_before = std::mem::take(&mut self.extensions);
            }
            Verb::Bdat => {
                if let Ok(chunk) = command.chunk() {
                    asked = self.recorder.chunk(chunk, self.now, out);
                    self.session.expect_chunk(chunk, true);
                }
            }
            _ => {}
        }
        self.ask(asked);
    }

    /// What the gateway would have done with a command. Returns whether it would have looked beyond its form.
    fn judge(&mut self, line: Line<'_>, command: &Command<'_>, out: &mut Output) -> bool {
        let owes_message = self.session.owes_message();
        let refusal = if self.judgement.is_too_long(line) {
            self.recorder.anomaly(Anomaly::CommandTooLong, out);
            Some(self.judgement.too_long(owes_message))
        } else {
            self.judgement.command(line, command, owes_message)
        };
        if let Some(refusal) = refusal {
            self.refused(refusal, out);
            use Refusal::{AccessReject, AccessTempfail, Pregreet};
            if command.verb == Verb::Starttls
                && matches!(refusal, AccessReject | AccessTempfail | Pregreet)
            {
                self.judgement.ends();
            }
        }
        // What it answers itself it answers when it reads it, unless other replies come first.
        let at_once = self.session.pending() == self.judged;
        if at_once && self.judgement.answers_itself(command.verb, refusal) {
            self.judgement.replied(500);
            self.judged += 1;
        }
        use Refusal::{BareNewline, LimitCommands, LimitErrors, LimitLine};
        !matches!(refusal, Some(BareNewline | LimitCommands | LimitErrors | LimitLine))
    }

    fn judge_too_long(&mut self, out: &mut Output) {
        let refusal = self.judgement.too_long(self.session.owes_message());
        self.refused(refusal, out);
    }

    /// The gateway would have refused this, and perhaps have ended the session with it.
    fn refused(&mut self, refusal: Refusal, out: &mut Output) {
        self.judgement.refused(refusal, out);
        if matches!(refusal, Refusal::LimitCommands | Refusal::LimitErrors | Refusal::Junk) {
            self.judgement.ends();
        }
    }

    /// Something that the server is expected to answer.
    pub(super) fn ask(&mut self, asked: ExpectedReply) {
        self.session.ask(asked);
        self.flight.said += 1;
    }

    fn junk(&mut self, junk: Junk, rest: &[u8], out: &mut Output) -> Step {
        if !self.junk_counted {
            self.junk_counted = true;
            self.recorder.anomaly(junk.into(), out);
            self.refused(Refusal::Junk, out);
        }
        if junk == Junk::Tls {
            self.session.presume_tls(true);
            return Step::Again;
        }
        match Line::split(rest, MAX_LINE) {
            Split::Incomplete => Step::Stop,
            // The server will say what it thinks of it.
            Split::Line(line) => {
                self.junk_counted = false;
                self.command(line, &Command::parse(line.text), out);
                Step::Consumed(line.len())
            }
            Split::TooLong => {
                self.junk_counted = false;
                self.ask(ExpectedReply::Other);
                self.pass(Side::Client, Passing::Line);
                Step::Again
            }
        }
    }

    fn content(&mut self, rest: &[u8], out: &mut Output) -> Step {
        if self.doubt.is_some() {
            if rest.len() < MAX_DOUBT && !self.session.would_end(rest) {
                return Step::Stop;
            }
            self.doubt = None;
        }
        let (end, findings) = self.session.scan(rest, |_| {});
        let used = end.unwrap_or(rest.len());
        self.recorder.content(used as u64);
        let bare = self.recorder.findings(findings, out);
        if self.session.end_in_doubt() {
            self.doubt = Some(self.now);
        } else if end.is_some() {
            self.message_said(bare, self.now, out);
        }
        Step::Consumed(used)
    }

    fn message_said(&mut self, bare: bool, at: Timestamp, out: &mut Output) {
        if self.session.has_pending() {
            self.flight.begins_with_message |= self.flight.said == 0;
            self.flight.said += 1; // Else the server refused it before its end.
        }
        self.content_ended(bare, Some(at), out);
    }

    /// The server's word proves that an end of data which was in doubt was one.
    pub(super) fn end_was_one(&mut self, out: &mut Output) {
        let Some(at) = self.doubt.take() else { return };
        let (_, findings) = self.session.scan(&[], |_| {});
        self.session.presume_end_of_data();
        self.message_said(findings.bare_lf || findings.bare_cr, at, out);
        self.hear(Side::Client, &[], out);
    }

    /// What was in doubt was no end of data, or nobody will ever know.
    pub(super) fn end_was_none(&mut self, out: &mut Output) {
        if self.doubt.take().is_some() {
            self.hear(Side::Client, &[], out);
        }
    }

    /// A message is over. `bare`: it has bare newlines; `at`: none if its end was not heard.
    pub(super) fn content_ended(&mut self, bare: bool, at: Option<Timestamp>, out: &mut Output) {
        (self.end_uncertain, self.left_out, self.doubt) = (false, false, None);
        self.recorder.content_ended(at, out);
        if bare && self.judgement.rejects_bare_newlines() {
            self.judgement.refused(Refusal::BareNewline, out);
            self.judgement.ends();
        }
    }

    fn chunk(&mut self, count: u64, out: &mut Output) {
        self.recorder.content(count);
        if let Progress::ChunkEnds { last: true, .. } = self.session.chunk_passed(count) {
            self.recorder.content_ended(Some(self.now), out);
        }
    }

    /// Octets of the client are missing. What was held before them cannot be completed.
    pub(super) fn client_gap(&mut self, length: u64, out: &mut Output) {
        let of_chunk = self.session.chunk_left().min(length);
        if of_chunk > 0 {
            self.chunk(of_chunk, out);
        } else if self.session.in_data().is_some() {
            self.recorder.content(length);
            self.session.skip_content();
            self.end_uncertain = true;
            return;
        }
        if of_chunk < length {
            self.lose(Desync::ClientGap, out);
        }
    }

    /// Of `length` octets of the client that were left out: how many are content.
    pub(super) fn content_omitted(&mut self, length: u64, at: Timestamp, out: &mut Output) -> u64 {
        self.end_was_none(out);
        let of_chunk = self.session.chunk_left().min(length);
        let count = if of_chunk > 0 {
            self.chunk(of_chunk, out);
            of_chunk
        } else if self.session.in_data().is_some() {
            self.pass(Side::Client, Passing::Nothing);
            self.recorder.content(length);
            self.session.pass_over_content();
            self.left_out = true;
            length
        } else {
            return 0;
        };
        self.note_heard(Side::Client);
        self.transcript.omitted(Side::Client, count, at);
        count
    }

    pub(super) fn plaintext_after_starttls(&mut self, out: &mut Output) {
        if !self.plaintext_counted {
            self.plaintext_counted = true;
            self.recorder.anomaly(Anomaly::StarttlsPlaintext, out);
        }
    }

    pub(super) fn hear_hello(&mut self, side: Side, octets: &[u8]) {
        if let Some(told) = self.hellos.hear(side, octets) {
            self.recorder.hello(told);
        }
    }
}
