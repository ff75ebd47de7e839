//! Assumptions where replies are missing, and proofs that the dialogue is followed again.
//!
//! **Replies are missing** ([`super::Tracking::Unpaired`]): the client is followed as if nothing had happened. After DATA whose
//! reply is missing its next line is content, unless it is a known verb in the full form of its RFC: then DATA was rejected.
//! The same holds for lines of an AUTH exchange; after STARTTLS it is TLS if it begins like TLS. A reply is paired again when
//! the client sent exactly one item since the server's last reply, or a message and more after it; or when it is one that
//! answers nothing else: 354 to DATA, 221 to QUIT, 220 to STARTTLS, 334 and 235 to AUTH. A server's first reply is its
//! greeting.
//!
//! **Commands are missing** ([`super::Tracking::Resync`]): lines are skipped until
//! - a reply comes directly after one single line since the server's reply before it, and that line is a known verb in full
//!   form; or after such a line a reply that answers nothing else;
//! - a 354 comes: content follows, though of an unknown envelope;
//! - both sides send TLS records;
//! - the server greets, in a capture that began before either side sent anything.
//!
//! A line right after a gap is a reply if it looks like one: packets begin with lines.

use super::client::Progress;
use super::{MAX_LINE, Observer, Skipping};
use crate::addr::Side;
use crate::engine::event::{Desync, Event, Starttls};
use crate::engine::output::Output;
use crate::smtp::{Command, ExpectedReply, Junk, Line, Reply, Split, Verb, Wait};

impl Observer {
    /// `rest` of the client waits for a reply that was missed.
    pub(super) fn assume_reply(&mut self, wait: Wait, rest: &[u8], out: &mut Output) -> Progress {
        let line = match Line::split(rest, MAX_LINE) {
            Split::Line(line) => Some(line),
            Split::TooLong => None,
            Split::Incomplete if matches!(wait, Wait::Data | Wait::Auth) => return Progress::Stop,
            Split::Incomplete => None,
        };
        let is_command = line.is_some_and(|line| looks_like_command(line.text));
        self.note_unanswered(false);
        match wait {
            Wait::Data if !is_command => {
                let in_transaction = self.session.state().current().is_some();
                self.session.assume_content();
                self.record.on_content_start(in_transaction, None, out);
            }
            Wait::Auth if !is_command => self.session.assume_auth_line(),
            Wait::Starttls if Junk::recognise(rest) == Some(Junk::Tls) => {
                self.session.assume_starttls();
                self.record.on_tls_found([0; 2], self.now);
                out.event(Event::Starttls(Starttls::Started));
            }
            Wait::Greeting
            | Wait::GatewayCommand
            | Wait::Data
            | Wait::Auth
            | Wait::Starttls
            | Wait::EndOfData
            | Wait::PipelineFull => {
                self.session.assume_command();
            }
        }
        Progress::Again
    }

    /// A reply, others being missing.
    pub(super) fn on_unpaired_reply(&mut self, reply: &Reply<'_>, out: &mut Output) {
        if self.session.in_data() {
            // It may answer a command before the content. If it answers the message, the end was not seen.
            if reply.is_positive() {
                self.record.on_content_end(None, out);
                self.lose(Desync::EndOfData, out);
            }
            return;
        }
        if self.turn.begins_with_message && reply.code != 354 {
            self.regain();
            return self.pair(reply, out);
        }
        let certain = match self.session.newest_pending() {
            None => false,
            Some(ExpectedReply::Greeting) => true,
            Some(expected) => {
                let only_one = self.turn.items == 1 && reply.code != 354;
                only_one || answers_only(expected, reply.code)
            }
        };
        if certain {
            self.note_unanswered(true);
            self.regain();
            self.pair(reply, out);
        } else {
            self.forget_replies();
        }
    }

    /// A line, or the start of one, of unknown meaning.
    pub(super) fn resync_line(&mut self, rest: &[u8]) -> Progress {
        if self.turn.items == 0 {
            match self.is_tls(Side::Client, rest) {
                None => return Progress::Stop,
                Some(true) => return Progress::Again,
                Some(false) => {}
            }
        }
        let len = match Line::split(rest, MAX_LINE) {
            Split::Incomplete => return Progress::Stop,
            Split::Line(line) => line.len(),
            Split::TooLong => {
                self.skip(Side::Client, Skipping::Line);
                0
            }
        };
        self.turn.items += 1;
        self.turn.line.clear();
        let line = rest.get(..len).unwrap_or_default();
        if looks_like_command(line.trim_ascii_end()) {
            self.turn.line.extend_from_slice(line);
        }
        if len > 0 { Progress::Consumed(len) } else { Progress::Again }
    }

    /// A reply, commands being missing: does it prove where the dialogue stands?
    pub(super) fn resync_by(&mut self, reply: &Reply<'_>, out: &mut Output) {
        let line = std::mem::take(&mut self.turn.line);
        if let Split::Line(line) = Line::split(&line, MAX_LINE)
            && self.held_by(Side::Client).is_empty()
        {
            let command = Command::parse(line.text);
            let single = self.turn.is_complete && self.turn.items == 1 && reply.code != 354;
            if single || answers_only(&distinctive_reply(command.verb), reply.code) {
                self.regain();
                self.on_command(line, &command, out);
                return self.pair(reply, out);
            }
        }
        if reply.code == 354 {
            self.regain();
            self.session.assume_content();
            self.record.on_content_start(false, Some(self.now), out);
        } else if !self.has_sent(Side::Server) && self.greets(reply) {
            self.record.on_reply(&ExpectedReply::Greeting, reply.code, false, self.now, out);
            if !self.has_sent(Side::Client) {
                self.regain();
            }
        }
    }

    /// Whether the server's first reply is its greeting: in a capture that began later only before the client's first bytes.
    fn greets(&self, reply: &Reply<'_>) -> bool {
        !self.midstream || reply.code == 220 && !self.has_sent(Side::Client)
    }

    /// Whether bytes of `side` begin with a TLS record, which is skipped then; `None` if they are too few. Once both sides'
    /// do, the session is encrypted.
    pub(super) fn is_tls(&mut self, side: Side, bytes: &[u8]) -> Option<bool> {
        // RFC 8446 §5.1: content type, version, and at most 2^14 bytes and some padding.
        let length = match bytes {
            [20..=23] | [20..=23, 3] | [20..=23, 3, 0..=4] | [20..=23, 3, 0..=4, 0..=0x48] => {
                return None;
            }
            [20..=23, 3, 0..=4, high @ 0..=0x48, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => return Some(false),
        };
        self.skip(side, Skipping::Record(5 + usize::from(length)));
        if let Some(seen) = self.tls_seen.get_mut(side.index()) {
            *seen = true;
        }
        if self.tls_seen == [true; 2] {
            self.regain();
            self.session.on_tls_records();
            self.record.on_tls_found(self.skipping.map(Skipping::record_left), self.now);
        }
        Some(true)
    }
}

/// White space before a verb is more likely text of a message.
fn looks_like_command(text: &[u8]) -> bool {
    !text.first().is_some_and(u8::is_ascii_whitespace) && Command::parse(text).is_well_formed()
}

/// The expected reply to a verb that some code answers alone, see [`answers_only`].
const fn distinctive_reply(verb: Verb) -> ExpectedReply {
    match verb {
        Verb::Data => ExpectedReply::Data,
        Verb::Quit => ExpectedReply::Quit,
        Verb::Starttls => ExpectedReply::Starttls { is_question: false },
        Verb::Auth => ExpectedReply::Auth,
        _ => ExpectedReply::Other,
    }
}

/// Whether a reply of this code answers this and nothing else.
const fn answers_only(expected: &ExpectedReply, code: u16) -> bool {
    matches!(
        (expected, code),
        (ExpectedReply::Data, 354)
            | (ExpectedReply::Quit, 221)
            | (ExpectedReply::Starttls { .. }, 220)
            | (ExpectedReply::Auth, 334 | 235)
    )
}
