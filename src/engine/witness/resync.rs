//! What is presumed where replies are missing, and what counts as proof that the thread is found again.
//!
//! **Replies are missing** ([`super::Footing::Unpaired`]): the client is followed as if nothing had happened. After DATA whose reply
//! is missing its next line is content, unless it is a known verb in the full form of its RFC: then DATA was refused. So with
//! lines of an AUTH exchange; after STARTTLS it is TLS if it begins like TLS. A reply is paired again when the client
//! said exactly one thing since the server's last word, or a message and more behind it; or when it is one that nothing else
//! is answered with: 354 to DATA, 221 to QUIT, 220 to STARTTLS, 334 and 235 to AUTH. The first words of a server are its
//! greeting.
//!
//! **Commands are missing** ([`super::Footing::Resync`]): lines are passed over until
//! - a reply comes directly after one single line since the server's word before it, and that line is a known verb in full
//!   form; or after such a line that nothing else is answered with so;
//! - a 354 comes: what follows is content, though nobody knows of which envelope;
//! - both sides speak in records of TLS;
//! - the server greets, in a capture that began before anyone spoke.
//!
//! A line right behind a gap is a reply if it looks like one: packets begin with lines.

use super::client::Step;
use super::{MAX_LINE, Observer, Passing};
use crate::engine::{Desync, Output, Side};
use crate::smtp::{Command, ExpectedReply, Junk, Line, Reply, Split, Verb, Wait};

impl Observer {
    /// `rest` of the client waits for a reply that was missed.
    pub(super) fn presume(&mut self, wait: Wait, rest: &[u8], out: &mut Output) -> Step {
        let line = match Line::split(rest, MAX_LINE) {
            Split::Line(line) => Some(line),
            Split::TooLong => None,
            Split::Incomplete if matches!(wait, Wait::Data | Wait::Auth) => return Step::Stop,
            Split::Incomplete => None,
        };
        let is_command = line.is_some_and(|line| Command::parse(line.text).is_well_formed());
        match wait {
            Wait::Data if !is_command => {
                let transaction = match self.session.asked_last() {
                    Some(ExpectedReply::Data { transaction }) => transaction,
                    _ => self.recorder.current(),
                };
                self.session.presume_content(transaction);
                self.recorder.content_begins(transaction, false, None, out);
            }
            Wait::Auth if !is_command => self.session.presume_auth_line(),
            Wait::Starttls if Junk::recognise(rest) == Some(Junk::Tls) => {
                self.session.presume_tls(false);
                self.recorder.answered(ExpectedReply::Starttls, 220, None, self.now, out);
            }
            Wait::Greeting | Wait::Own | Wait::Data | Wait::Auth | Wait::Starttls | Wait::Room => {
                self.session.presume_command();
            }
        }
        Step::Again
    }

    /// A reply, others being missing.
    pub(super) fn unpaired(&mut self, reply: &Reply<'_>, out: &mut Output) {
        if self.session.in_data().is_some() {
            // It may answer what came before the content. If it is the message's, the end was not heard.
            if reply.is_positive() {
                self.recorder.content_ended(None, out);
                self.lose(Desync::EndOfData, out);
            }
            return;
        }
        if self.flight.begins_with_message && reply.code != 354 {
            self.regain();
            return self.paired(reply, out);
        }
        let certain = match self.session.asked_last() {
            None => false,
            Some(ExpectedReply::Greeting) => true,
            Some(asked) => {
                let only_one = self.flight.said == 1 && reply.code != 354;
                only_one || only_answer(asked, reply.code)
            }
        };
        if certain {
            self.only_last_is_answered();
            self.regain();
            self.paired(reply, out);
        } else {
            self.recorder.replies_missed(false);
            self.session.replies_missed();
        }
    }

    /// The reply at hand answers what was asked last, and those before it were missed.
    pub(super) fn only_last_is_answered(&mut self) {
        let message = matches!(self.session.asked_last(), Some(ExpectedReply::Message { .. }));
        self.recorder.replies_missed(message);
        self.session.only_last();
    }

    /// A line, or what of one there is, that may be anything.
    pub(super) fn adrift(&mut self, rest: &[u8]) -> Step {
        if self.flight.said == 0 {
            match self.is_tls(Side::Client, rest) {
                None => return Step::Stop,
                Some(true) => return Step::Again,
                Some(false) => {}
            }
        }
        let len = match Line::split(rest, MAX_LINE) {
            Split::Incomplete => return Step::Stop,
            Split::Line(line) => line.len(),
            Split::TooLong => {
                self.pass(Side::Client, Passing::Line);
                0
            }
        };
        self.flight.said += 1;
        self.flight.line.clear();
        let line = rest.get(..len).unwrap_or_default();
        if Command::parse(line.trim_ascii_end()).is_well_formed() {
            self.flight.line.extend_from_slice(line);
        }
        if len > 0 { Step::Consumed(len) } else { Step::Again }
    }

    /// A reply, commands being missing: does it prove where the dialogue stands?
    pub(super) fn proof(&mut self, reply: &Reply<'_>, out: &mut Output) {
        let line = std::mem::take(&mut self.flight.line);
        if let Split::Line(line) = Line::split(&line, MAX_LINE)
            && self.waiting(Side::Client).is_empty()
        {
            let command = Command::parse(line.text);
            let single = self.flight.whole && self.flight.said == 1 && reply.code != 354;
            if single || only_answer(asked_by(command.verb), reply.code) {
                self.regain();
                self.command(line, &command, out);
                return self.paired(reply, out);
            }
        }
        if reply.code == 354 {
            self.regain();
            let transaction = self.recorder.current();
            self.session.presume_content(transaction);
            self.recorder.content_begins(transaction, false, Some(self.now), out);
        } else if !self.was_heard(Side::Server) && self.greets(reply) {
            self.recorder.answered(ExpectedReply::Greeting, reply.code, None, self.now, out);
            if !self.was_heard(Side::Client) {
                self.regain();
            }
        }
    }

    /// Whether the server's first words are its greeting: in a capture that began later only before the client's.
    fn greets(&self, reply: &Reply<'_>) -> bool {
        !self.midstream || reply.code == 220 && !self.was_heard(Side::Client)
    }

    /// Whether octets of `side` begin with a record of TLS, which is passed over then; `None` if they are too few. Once both
    /// sides' do, they speak it.
    pub(super) fn is_tls(&mut self, side: Side, octets: &[u8]) -> Option<bool> {
        // RFC 8446 §5.1: content type, version, and at most 2^14 octets and some padding.
        let length = match octets {
            [20..=23] | [20..=23, 3] | [20..=23, 3, 0..=4] | [20..=23, 3, 0..=4, 0..=0x48] => {
                return None;
            }
            [20..=23, 3, 0..=4, high @ 0..=0x48, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => return Some(false),
        };
        self.pass(side, Passing::Record(5 + usize::from(length)));
        if let Some(seen) = self.tls.get_mut(side.index()) {
            *seen = true;
        }
        if self.tls == [true; 2] {
            self.regain();
            self.session.presume_tls(true);
            self.recorder.encrypted();
        }
        Some(true)
    }
}

/// As far as [`only_answer`] minds.
const fn asked_by(verb: Verb) -> ExpectedReply {
    match verb {
        Verb::Data => ExpectedReply::Data { transaction: 0 },
        Verb::Quit => ExpectedReply::Quit,
        Verb::Starttls => ExpectedReply::Starttls,
        Verb::Auth => ExpectedReply::Auth,
        _ => ExpectedReply::Other,
    }
}

/// Whether a reply of this code answers this and nothing else.
fn only_answer(asked: ExpectedReply, code: u16) -> bool {
    matches!(
        (asked, code),
        (ExpectedReply::Data { .. }, 354)
            | (ExpectedReply::Quit, 221)
            | (ExpectedReply::Starttls, 220)
            | (ExpectedReply::Auth, 334 | 235)
    )
}
