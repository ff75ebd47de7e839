//! Bytes of a log to events.

use std::net::SocketAddr;

use memchr::memmem::Finder;

use super::active_queue::ActiveQueue;
use super::event::{DeliveryStatus, MailLogCounts, MailLogEvent, RecipientDelivery};
use super::export::{JournalEntry, JournalExport};
use super::failure::{Failure, FailureText, connect_outcome, is_informational};
use super::header::{LineOrigin, Program, split_queue_id};
use super::join::{AttemptLine, Joiner, MessageLine};
use super::log_time::{LogTime, LogZone};
use super::peer::{LoggedPeer, PeerText};
use super::reply_text::kept_reply;
use super::status_line::StatusLine;
use crate::outbound::{Delays, OutboundAttempt, OutboundOutcome};
use crate::policy::facts::DomainName;
use crate::time::Timestamp;

/// Bytes of a line; longer ones are skipped. Syslog daemons cut at 1 to 8 KiB.
const MAX_LINE: usize = 64 * 1024;

/// Reads Postfix's log in pieces of any size. No memory grows with the log.
///
/// Lines of other programs are skipped by a search for these two texts, before anything else is looked at.
#[derive(Debug)]
pub struct MailLogParser {
    smtp: Finder<'static>,
    active: Finder<'static>,
    time: LogTime,
    export: JournalExport,
    /// Where `journalctl --after-cursor` continues.
    cursor: String,
    /// The beginning of a line whose end has not arrived.
    partial: Vec<u8>,
    /// The line in progress is too long and is skipped to its end.
    is_skipping: bool,
    queue: ActiveQueue,
    joiner: Joiner,
    counts: MailLogCounts,
}

impl MailLogParser {
    /// Stamps without a year are read as the latest year that is not after `reference` by more than a day, and those
    /// without a time zone in `zone`.
    pub fn new(zone: LogZone, reference: Timestamp) -> Self {
        Self {
            smtp: Finder::new("/smtp["),
            active: Finder::new(" (queue active)\n"),
            time: LogTime::new(zone, reference),
            export: JournalExport::default(),
            cursor: String::new(),
            partial: Vec::new(),
            is_skipping: false,
            queue: ActiveQueue::default(),
            joiner: Joiner::default(),
            counts: MailLogCounts::default(),
        }
    }

    /// The present time, for a log that is followed.
    pub fn set_reference(&mut self, reference: Timestamp) {
        self.time.set_reference(reference);
    }

    /// Takes the next bytes of a log of text lines, and appends what they complete to `out`.
    pub fn on_bytes(&mut self, mut bytes: &[u8], out: &mut Vec<MailLogEvent>) {
        if !self.partial.is_empty() || self.is_skipping {
            let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |newline| newline + 1);
            let (head, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            self.hold(head);
            if !head.ends_with(b"\n") {
                return;
            }
            bytes = rest;
            self.is_skipping = false;
            let line = std::mem::take(&mut self.partial);
            self.on_lines(&line, out);
            self.partial = line;
            self.partial.clear();
        }
        let whole = memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1);
        let (lines, tail) = bytes.split_at_checked(whole).unwrap_or((bytes, &[]));
        self.on_lines(lines, out);
        self.hold(tail);
    }

    /// Takes the next bytes of `journalctl --output=export`.
    pub fn on_journal(&mut self, bytes: &[u8], out: &mut Vec<MailLogEvent>) {
        let mut export = std::mem::take(&mut self.export);
        export.on_bytes(bytes, |entry| self.on_entry(entry, out));
        self.export = export;
    }

    /// The cursor of the last entry of the journal; empty before the first.
    pub fn journal_cursor(&self) -> &str {
        &self.cursor
    }

    /// The log continues at another place: the beginning of a line that is held has no end.
    pub fn on_gap(&mut self) {
        self.partial.clear();
        self.is_skipping = false;
        self.export = JournalExport::default();
    }

    /// Emits attempts that have waited long enough, by `now`, for further lines. To be called about once a second.
    pub fn on_time(&mut self, now: Timestamp, out: &mut Vec<MailLogEvent>) {
        self.joiner.on_time(now, out);
    }

    /// The log has ended: takes a last line without an end, and emits all attempts that wait.
    pub fn finish(&mut self, out: &mut Vec<MailLogEvent>) {
        if !self.partial.is_empty() {
            self.on_bytes(b"\n", out);
        }
        self.joiner.finish(out);
    }

    pub const fn counts(&self) -> MailLogCounts {
        self.counts
    }

    fn hold(&mut self, bytes: &[u8]) {
        if self.is_skipping {
            return;
        }
        // The line end does not count.
        if self.partial.len() + bytes.strip_suffix(b"\n").unwrap_or(bytes).len() > MAX_LINE {
            self.partial.clear();
            self.is_skipping = true;
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }

    /// Takes whole lines.
    fn on_lines(&mut self, lines: &[u8], out: &mut Vec<MailLogEvent>) {
        let mut next_smtp = self.smtp.find(lines);
        let mut next_active = self.active.find(lines);
        loop {
            let found = match (next_smtp, next_active) {
                (Some(smtp), Some(active)) => smtp.min(active),
                (Some(one), None) | (None, Some(one)) => one,
                (None, None) => break,
            };
            let before = lines.get(..found).unwrap_or_default();
            let start = memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1);
            let rest = lines.get(found..).unwrap_or_default();
            let end = memchr::memchr(b'\n', rest).map_or(lines.len(), |newline| found + newline);
            let line = lines.get(start..end).unwrap_or_default();
            if line.len() <= MAX_LINE {
                self.on_line(line, out);
            }
            let again = |next: Option<usize>, finder: &Finder<'_>| match next {
                Some(at) if at < end => {
                    finder.find(lines.get(end..).unwrap_or_default()).map(|at| end + at)
                }
                next => next,
            };
            next_smtp = again(next_smtp, &self.smtp);
            next_active = again(next_active, &self.active);
        }
    }

    fn on_line(&mut self, line: &[u8], out: &mut Vec<MailLogEvent>) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some((origin, message)) = LineOrigin::parse(line, &mut self.time) {
            self.on_message(origin, message, out);
        }
    }

    fn on_entry(&mut self, entry: JournalEntry<'_>, out: &mut Vec<MailLogEvent>) {
        if !entry.cursor.is_empty() {
            self.cursor = String::from_utf8_lossy(entry.cursor).into_owned();
        }
        let realtime = std::str::from_utf8(entry.realtime).ok();
        let Some(at) = realtime
            .and_then(|digits| digits.parse::<u64>().ok())
            .and_then(|micros| micros.checked_mul(1000))
        else {
            return;
        };
        let at = Timestamp::from_nanos(at);
        if let Some(origin) = LineOrigin::new(at, entry.host, entry.identifier, entry.pid) {
            self.on_message(origin, entry.message, out);
        }
    }

    fn on_message(&mut self, origin: LineOrigin, message: &[u8], out: &mut Vec<MailLogEvent>) {
        if origin.program == Program::Qmgr {
            if let Some((queue_id, text)) = split_queue_id(message) {
                self.queue.on_line(origin.host, queue_id, text);
            }
            return;
        }
        self.counts.smtp_lines += 1;
        let is_understood = match split_queue_id(message) {
            None => self.on_bare_line(origin, message, out) || is_informational(message),
            Some((queue_id, text)) if text.starts_with(b"to=<") => {
                self.on_status_line(origin, queue_id, text, out)
            }
            Some((queue_id, text)) => self.on_failure_line(origin, queue_id, text, out),
        };
        if !is_understood {
            self.counts.not_understood += 1;
        }
    }

    /// A line about no message. Returns whether its form is known.
    fn on_bare_line(
        &mut self,
        origin: LineOrigin,
        text: &[u8],
        out: &mut Vec<MailLogEvent>,
    ) -> bool {
        let (rest, is_connect) = match text.strip_prefix(b"connect to ") {
            Some(rest) => (rest, true),
            None => match text.strip_prefix(b"SSL_connect error to ") {
                Some(rest) => (rest, false),
                None => return false,
            },
        };
        let Some((peer, rest)) = PeerText::parse(rest) else { return false };
        let Some(reason) = rest.strip_prefix(b": ") else { return false };
        if let Some(peer) = exchange(peer) {
            let outcome =
                if is_connect { connect_outcome(reason) } else { OutboundOutcome::TlsFailed };
            let attempt = attempt(origin.at, &peer, outcome, None);
            self.joiner.on_bare_attempt(origin.process, attempt, out);
        }
        true
    }

    /// `ID: host mx.example[2001:db8::1] said: …`: smtp(8) goes on to another address. Returns whether its form is known.
    fn on_failure_line(
        &mut self,
        origin: LineOrigin,
        queue_id: &str,
        text: &[u8],
        out: &mut Vec<MailLogEvent>,
    ) -> bool {
        let parsed = FailureText::parse(text);
        let line = match parsed {
            Some(FailureText::Failure(failure)) => self.failed_attempt(origin, queue_id, &failure),
            _ => None,
        };
        let message = MessageLine {
            queue_id,
            activation: self.queue.activation(origin.host, queue_id),
            is_delivery: false,
            domain: None,
            local_part: b"",
        };
        self.joiner.on_message_line(origin.process, origin.at, message, line, out);
        parsed.is_some() || is_informational(text)
    }

    fn failed_attempt(
        &self,
        origin: LineOrigin,
        queue_id: &str,
        failure: &Failure<'_>,
    ) -> Option<AttemptLine> {
        let reply = failure.reply.map(|reply| kept_reply(reply, b""));
        let mut attempt = match failure.peer {
            Some(peer) => attempt(origin.at, &exchange(peer)?, failure.outcome, reply),
            None => OutboundAttempt {
                at: origin.at,
                outcome: failure.outcome,
                ..self.joiner.failed_handshake(origin.process, queue_id)?.clone()
            },
        };
        attempt.queue_id = Some(queue_id.to_owned());
        Some(AttemptLine { attempt, ends_session: failure.ends_session })
    }

    /// `ID: to=<…>, …`. Returns whether its form is known.
    fn on_status_line(
        &mut self,
        origin: LineOrigin,
        queue_id: &str,
        text: &[u8],
        out: &mut Vec<MailLogEvent>,
    ) -> bool {
        let Some(line) = StatusLine::parse(text) else { return false };
        let domain = std::str::from_utf8(line.domain).ok().and_then(DomainName::parse);
        let peer = match line.relay {
            Some(PeerText::Server(peer)) => Some(peer),
            Some(PeerText::UnixSocket) | None => None,
        };
        let (outcome, reply, ends_session, is_known) = match line.status {
            DeliveryStatus::Sent => (Some(OutboundOutcome::Delivered), Some(line.text), true, true),
            DeliveryStatus::Deliverable => (None, None, true, true),
            _ if peer.is_none() => (None, None, true, true),
            _ => match FailureText::parse(line.text) {
                Some(FailureText::Failure(failure)) => {
                    (Some(failure.outcome), failure.reply, failure.ends_session, true)
                }
                Some(FailureText::Local) => (None, None, true, true),
                // A line that was cut off may have lost all of its text.
                None => (None, None, true, line.text.is_empty()),
            },
        };
        let outcome = outcome.filter(|_| peer.is_some());
        out.push(MailLogEvent::Delivery(RecipientDelivery {
            at: origin.at,
            queue_id: queue_id.to_owned(),
            domain: domain.clone(),
            relay: peer.map(|peer| peer.address),
            status: line.status,
            dsn: line.dsn,
            outcome,
            is_reused: line.is_reused,
        }));
        let peer = peer.filter(|peer| is_exchange(peer.address) && !line.is_reused);
        let attempt_line = peer.zip(outcome).map(|(peer, outcome)| AttemptLine {
            attempt: OutboundAttempt {
                domain: domain.clone(),
                delays: line.delays,
                queue_id: Some(queue_id.to_owned()),
                ..attempt(
                    origin.at,
                    &peer,
                    outcome,
                    reply.map(|reply| kept_reply(reply, line.local_part)),
                )
            },
            ends_session,
        });
        let message = MessageLine {
            queue_id,
            activation: self.queue.activation(origin.host, queue_id),
            is_delivery: true,
            domain: domain.as_ref(),
            local_part: line.local_part,
        };
        self.joiner.on_message_line(origin.process, origin.at, message, attempt_line, out);
        is_known
    }
}

fn attempt(
    at: Timestamp,
    peer: &LoggedPeer<'_>,
    outcome: OutboundOutcome,
    reply: Option<String>,
) -> OutboundAttempt {
    let delays: Option<Delays> = None;
    let (host, address) = (peer.host(), peer.address);
    OutboundAttempt { at, host, address, domain: None, outcome, reply, delays, queue_id: None }
}

/// The server, if it is another host: a content filter on loopback or at a Unix socket is none.
fn exchange(peer: PeerText<'_>) -> Option<LoggedPeer<'_>> {
    match peer {
        PeerText::Server(peer) if is_exchange(peer.address) => Some(peer),
        PeerText::Server(_) | PeerText::UnixSocket => None,
    }
}

const fn is_exchange(address: SocketAddr) -> bool {
    !address.ip().is_loopback()
}
