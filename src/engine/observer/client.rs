//! Bytes from the client of an observed session.

use super::{MAX_AMBIGUOUS, MAX_LINE, Observer, Skipping, Tracking};
use crate::addr::Side;
use crate::engine::event::{Anomaly, Desync, Refusal};
use crate::engine::output::Output;
use crate::smtp::{
    ChunkProgress, ClientEvent, Command, ExpectedReply, Junk, Line, Split, Verb, Wait,
};
use crate::time::Timestamp;

/// The result of one event.
pub(super) enum Progress {
    Consumed(usize),
    /// Nothing was consumed; the same bytes mean something else now.
    Again,
    /// Incomplete, or a reply has to come first.
    Stop,
}

impl Observer {
    /// Returns how much of `input` was interpreted.
    pub(super) fn on_client_bytes(&mut self, input: &[u8], out: &mut Output) -> usize {
        let mut used = 0;
        while let Some(rest) = input.get(used..).filter(|rest| !rest.is_empty()) {
            if self.quit {
                return input.len();
            }
            if !self.session.is_opaque() {
                let skipped = self.skipped(Side::Client, rest);
                if skipped > 0 {
                    used += skipped;
                    continue;
                }
            }
            let (opaque, content) = (self.session.is_opaque(), self.session.in_content());
            let progress = match self.tracking {
                Tracking::Resync if !self.session.is_opaque() => self.resync_line(rest),
                _ => self.client_step(rest, out),
            };
            match progress {
                Progress::Consumed(count) => {
                    used += count;
                    let bytes = rest.get(..count).unwrap_or_default();
                    let at = self.since(Side::Client);
                    match (opaque, content) {
                        (true, _) => self.transcript.encrypted(Side::Client, count as u64, at),
                        (_, true) => self.transcript.content(Side::Client, bytes, at),
                        _ => self.transcript.line(Side::Client, bytes, at),
                    }
                }
                Progress::Again => {}
                Progress::Stop => break,
            }
        }
        used
    }

    fn client_step(&mut self, rest: &[u8], out: &mut Output) -> Progress {
        match self.session.client(rest) {
            ClientEvent::Incomplete => Progress::Stop,
            // Implicit TLS: no greeting will come.
            ClientEvent::Waiting(Wait::Greeting) if Junk::recognise(rest) == Some(Junk::Tls) => {
                self.on_junk(Junk::Tls, rest, out)
            }
            ClientEvent::Waiting(_) if self.tracking == Tracking::Paired => Progress::Stop,
            ClientEvent::Waiting(wait) => self.assume_reply(wait, rest, out),
            ClientEvent::Junk(junk) => self.on_junk(junk, rest, out),
            ClientEvent::Command { command, .. }
                if self.tracking == Tracking::Paired
                    && self.session.utf8_is_uncertain(&command) =>
            {
                Progress::Stop
            }
            ClientEvent::Command { line, command } => {
                self.on_command(line, &command, out);
                Progress::Consumed(line.len())
            }
            ClientEvent::TooLong { len, done, auth } => {
                if done {
                    self.record.anomaly(Anomaly::CommandTooLong, out);
                    let refusal = self.checks.on_long_line(self.session.message_pending());
                    self.on_refusal(refusal, out);
                    self.expect(if auth { ExpectedReply::Auth } else { ExpectedReply::Other });
                }
                Progress::Consumed(len)
            }
            ClientEvent::AuthLine(line) => {
                self.record.on_line_endings(line, out);
                if !self.checks.accepts_endings(line) {
                    self.checks.on_refusal(Refusal::BareNewline, out);
                }
                self.expect(ExpectedReply::Auth);
                Progress::Consumed(line.len())
            }
            ClientEvent::Content => self.on_content(rest, out),
            ClientEvent::Chunk { len, .. } => {
                if let Some(reader) = &mut self.message_reader {
                    reader.on_chunk(rest.get(..len).unwrap_or_default());
                }
                self.on_chunk_bytes(len as u64, out);
                Progress::Consumed(len)
            }
            ClientEvent::Plaintext { len } => self.on_plaintext(rest, len, out),
            ClientEvent::Opaque => {
                self.on_tls_bytes(Side::Client, rest);
                Progress::Consumed(rest.len())
            }
        }
    }

    pub(super) fn on_command(&mut self, line: Line<'_>, command: &Command<'_>, out: &mut Output) {
        self.record.on_command(line, command, self.now, out);
        let refusal = self.check_command(line, command, out);
        use Refusal::{BareNewline, LimitCommands, LimitErrors, LimitLine};
        if !matches!(refusal, Some(BareNewline | LimitCommands | LimitErrors | LimitLine)) {
            let pending = self.tracking == Tracking::Paired && self.session.has_pending();
            if pending && !self.session.state().extensions().pipelining {
                self.record.anomaly(Anomaly::UnauthorizedPipelining, out);
            }
        }
        let expected = match command.chunk() {
            Ok(chunk) if command.verb == Verb::Bdat => {
                let in_transaction = self.session.next_transaction().is_some();
                self.record.on_chunk(in_transaction, self.now, out);
                self.read_chunk();
                if chunk.last && chunk.size == 0 {
                    self.record.on_content_end(Some(self.now), out);
                }
                self.session.begin_chunk(chunk, true, self.now)
            }
            _ => ExpectedReply::to(command),
        };
        let is_question =
            refusal.is_none() && !self.checks.has_ended() && self.checks.asks_policy(command.verb);
        let ends = matches!(expected, ExpectedReply::Message { ended: Some(_), .. });
        self.expect(if is_question { expected.as_question() } else { expected });
        if ends {
            self.end_message(true);
        }
    }

    /// Records what the gateway would have done with a command. Returns why it would have rejected it.
    fn check_command(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        out: &mut Output,
    ) -> Option<Refusal> {
        let message_pending = self.session.message_pending();
        let refusal = if self.checks.is_too_long(line) {
            self.record.anomaly(Anomaly::CommandTooLong, out);
            Some(self.checks.on_long_line(message_pending))
        } else {
            self.checks.on_command(line, command, &self.session)
        };
        if let Some(refusal) = refusal {
            self.on_refusal(refusal, out);
            use Refusal::{BareNewline, CommandSyntax};
            if command.verb == Verb::Bdat && matches!(refusal, BareNewline | CommandSyntax) {
                self.checks.end();
            }
        } else if command.verb == Verb::Unknown && Command::is_not_smtp(line.text) {
            self.on_refusal(Refusal::Junk, out);
        }
        refusal
    }

    /// The gateway would have rejected this, and perhaps have ended the session with it.
    fn on_refusal(&mut self, refusal: Refusal, out: &mut Output) {
        self.checks.on_refusal(refusal, out);
        if matches!(refusal, Refusal::LimitCommands | Refusal::LimitErrors | Refusal::Junk) {
            self.checks.end();
        }
    }

    /// The server is expected to answer.
    pub(super) fn expect(&mut self, expected: ExpectedReply) {
        self.session.expect(expected);
        self.turn.items += 1;
    }

    fn on_junk(&mut self, junk: Junk, rest: &[u8], out: &mut Output) -> Progress {
        if !self.junk_counted {
            self.junk_counted = true;
            self.record.anomaly(junk.into(), out);
            self.on_refusal(Refusal::Junk, out);
        }
        if junk == Junk::Tls {
            self.note_unanswered(false);
            self.session.assume_tls(true);
            self.record.on_tls_start(self.now);
            return Progress::Again;
        }
        match Line::split(rest, MAX_LINE) {
            Split::Incomplete => Progress::Stop,
            // The server answers it as it answers any command.
            Split::Line(line) => {
                self.junk_counted = false;
                self.on_command(line, &Command::parse(line.text), out);
                Progress::Consumed(line.len())
            }
            Split::TooLong => {
                self.junk_counted = false;
                self.expect(ExpectedReply::Other);
                self.skip(Side::Client, Skipping::Line);
                Progress::Again
            }
        }
    }

    fn on_content(&mut self, rest: &[u8], out: &mut Output) -> Progress {
        if self.ambiguous_end.is_some() {
            if rest.len() < MAX_AMBIGUOUS && !self.session.would_end(rest) {
                return Progress::Stop;
            }
            self.ambiguous_end = None;
        }
        let (end, findings) = self.session.scan(rest, self.now, |_| {});
        if let Some(reader) = &mut self.message_reader {
            reader.on_content(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default());
        }
        let bare = self.record.on_findings(findings, out);
        if self.session.end_is_ambiguous() {
            self.ambiguous_end = Some(self.now);
        } else if end.is_some() {
            self.on_message_sent(bare, self.now, out);
        }
        Progress::Consumed(end.unwrap_or(rest.len()))
    }

    fn on_message_sent(&mut self, bare: bool, at: Timestamp, out: &mut Output) {
        if self.session.has_pending() {
            self.turn.begins_with_message |= self.turn.items == 0;
            self.turn.items += 1; // Otherwise the server rejected it before its end.
        }
        self.on_content_end(bare, Some(at), out);
    }

    /// The server's reply proves that an ambiguous end of data was one.
    pub(super) fn confirm_ambiguous_end(&mut self, out: &mut Output) {
        let Some(at) = self.ambiguous_end.take() else { return };
        let (_, findings) = self.session.scan(&[], at, |_| {});
        self.session.assume_end_of_data(Some(at));
        self.on_message_sent(findings.bare_lf || findings.bare_cr, at, out);
        self.feed(Side::Client, &[], out);
    }

    /// An ambiguous end of data was none, or nothing will ever prove it.
    pub(super) fn reject_ambiguous_end(&mut self, out: &mut Output) {
        if self.ambiguous_end.take().is_some() {
            self.feed(Side::Client, &[], out);
        }
    }

    /// A message is over. `bare`: it has bare newlines; `at`: `None` if its end was not seen.
    pub(super) fn on_content_end(&mut self, bare: bool, at: Option<Timestamp>, out: &mut Output) {
        (self.end_uncertain, self.content_omitted, self.ambiguous_end) = (false, false, None);
        self.record.on_content_end(at, out);
        if bare && self.checks.rejects_bare_newlines() {
            self.checks.on_refusal(Refusal::BareNewline, out);
            self.checks.end();
        }
        self.end_message(at.is_some());
    }

    fn on_chunk_bytes(&mut self, count: u64, out: &mut Output) {
        let progress = self.session.on_chunk_bytes(count, self.now);
        if let ChunkProgress::ChunkEnds { last: true, .. } = progress {
            self.record.on_content_end(Some(self.now), out);
            self.end_message(true);
        }
    }

    /// `length` bytes of the client are missing. Held bytes before them cannot be completed.
    pub(super) fn on_client_gap(&mut self, length: u64, out: &mut Output) {
        let of_chunk = self.session.chunk_left().min(length);
        self.lose_message();
        if of_chunk > 0 {
            self.on_chunk_bytes(of_chunk, out);
        } else if self.session.in_data() {
            self.session.skip_content(length);
            self.end_uncertain = true;
            return;
        }
        if of_chunk < length {
            self.lose(Desync::ClientGap, out);
        }
    }

    /// Of `length` omitted bytes of the client: how many are content.
    pub(super) fn on_content_omitted(
        &mut self,
        length: u64,
        at: Timestamp,
        out: &mut Output,
    ) -> u64 {
        self.reject_ambiguous_end(out);
        self.lose_message();
        let of_chunk = self.session.chunk_left().min(length);
        let count = if of_chunk > 0 {
            self.on_chunk_bytes(of_chunk, out);
            of_chunk
        } else if self.session.in_data() {
            self.skip(Side::Client, Skipping::Nothing);
            self.session.omit_content(length);
            self.content_omitted = true;
            length
        } else {
            return 0;
        };
        self.set_has_sent(Side::Client);
        self.transcript.omitted(Side::Client, count, at);
        count
    }

    /// No TLS after STARTTLS: sent before the 220 already, or the dialogue goes on decrypted, with EHLO (RFC 3207 §4.2), as a
    /// gateway that ends TLS records it.
    fn on_plaintext(&mut self, rest: &[u8], len: usize, out: &mut Output) -> Progress {
        if self.sent_before_tls > 0 {
            let count = len.min(self.sent_before_tls);
            self.sent_before_tls -= count;
            self.on_plaintext_after_starttls(out);
            return Progress::Consumed(count);
        }
        let goes_on =
            if self.checks.terminates_tls() { Some(true) } else { begins_with_ehlo(rest) };
        match goes_on {
            None => Progress::Stop,
            Some(true) => {
                self.session.on_tls_established();
                self.record.on_own_starttls(self.now);
                Progress::Again
            }
            Some(false) => {
                self.on_plaintext_after_starttls(out);
                Progress::Consumed(len)
            }
        }
    }

    pub(super) fn on_plaintext_after_starttls(&mut self, out: &mut Output) {
        if !self.plaintext_counted {
            self.plaintext_counted = true;
            self.record.anomaly(Anomaly::StarttlsPlaintext, out);
        }
    }

    pub(super) fn on_tls_bytes(&mut self, side: Side, bytes: &[u8]) {
        self.record.on_tls_bytes(side, bytes, self.now);
        if let Some(hello) = self.tls_hellos.on_bytes(side, bytes) {
            self.record.on_tls_hello(hello);
        }
    }
}

/// `None`: the bytes do not suffice.
fn begins_with_ehlo(bytes: &[u8]) -> Option<bool> {
    let length = bytes.len().min(b"EHLO ".len());
    let head = bytes.get(..length)?;
    let fits = |verb: &[u8]| verb.get(..length).is_some_and(|verb| verb.eq_ignore_ascii_case(head));
    let fits = fits(b"EHLO ") || fits(b"HELO ");
    (length == b"EHLO ".len() || !fits).then_some(fits)
}
