//! Writes the record of a session while it happens, and the events that go with it: what the client said, what it was
//! told, and which transaction that belongs to. The relay's engine and the witness of a capture write by the same pen.

use std::collections::VecDeque;
use std::time::Duration;

use super::commands::path_of;
use super::hello::Told;
use super::{
    Anomaly, Desync, Event, Outcome, Output, Phase, RecipientRecord, ReplySource, SessionRecord,
    Side, SmtpFacts, Starttls, TcpFacts, Tls, TransactionRecord, VerdictRecord,
};
use crate::addr::{ClientAddr, Family, OriginalDst, UpstreamAddr};
use crate::smtp::{Chunk, Command, EnhancedCode, ExpectedReply, Findings, Line, Verb};
use crate::time::Timestamp;

/// Octets of envelope that one session's record may hold; what comes later is only counted.
const ENVELOPE_BUDGET: usize = 32 * 1024;
/// What one entry costs besides its address.
const ENTRY: usize = 64;

/// The number of a transaction that there is not.
const NONE: usize = usize::MAX;

/// Message bytes between the reply to DATA and the reply to the end of data.
#[derive(Debug)]
struct Message {
    transaction: usize,
    began: Option<Timestamp>,
    bytes: u64,
    chunking: bool,
    /// Its fate was told before its end.
    told: bool,
    /// Anomalies of this message that are counted already.
    found: u32,
}

impl Message {
    const fn new(transaction: usize, chunking: bool, began: Option<Timestamp>) -> Self {
        Self { transaction, began, bytes: 0, chunking, told: false, found: 0 }
    }
}

#[derive(Debug)]
pub(super) struct Recorder {
    client: ClientAddr,
    destination: OriginalDst,
    upstream: Option<UpstreamAddr>,
    start: Timestamp,
    /// When the upstream connection stood, then when MAIL was said.
    phase_start: Timestamp,
    tcp: TcpFacts,
    smtp: SmtpFacts,
    commands: [u32; Verb::ALL.len()],
    replies: Vec<(u16, u64)>,
    budget: usize,
    /// The transaction that the client's commands belong to now.
    current: usize,
    /// The one that the last HELO, EHLO or MAIL puts an end to, if the server takes it.
    suspended: usize,
    /// Name and kind of the last HELO or EHLO that the server took.
    introduced: Option<(String, bool)>,
    message: Message,
    /// Messages that ended and whose reply is not there yet: octets and when they ended.
    ended: VecDeque<(u64, Option<Timestamp>)>,
}

impl Recorder {
    pub(super) fn new(client: ClientAddr, destination: OriginalDst, at: Timestamp) -> Self {
        Self {
            client,
            destination,
            upstream: None,
            start: at,
            phase_start: at,
            tcp: TcpFacts::default(),
            smtp: SmtpFacts::default(),
            commands: [0; Verb::ALL.len()],
            replies: Vec::new(),
            budget: ENVELOPE_BUDGET,
            current: NONE,
            suspended: NONE,
            introduced: None,
            message: Message::new(NONE, false, None),
            ended: VecDeque::new(),
        }
    }

    pub(super) fn connected(&mut self, upstream: UpstreamAddr, at: Timestamp, out: &mut Output) {
        self.upstream = Some(upstream);
        self.phase(Phase::Connect, at - self.start, out);
        self.phase_start = at;
    }

    /// The client said a command; what is wrong with it is noted. Returns what its reply will mean.
    pub(super) fn command(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        at: Timestamp,
        out: &mut Output,
    ) -> ExpectedReply {
        let verb = command.verb;
        out.event(Event::Command(verb));
        if let Some(count) = self.commands.get_mut(verb.index()) {
            *count = count.saturating_add(1);
        }
        self.endings(line, out);
        match verb {
            Verb::Helo | Verb::Ehlo => {
                self.smtp.helo = Some(String::from_utf8_lossy(command.argument).into_owned());
                self.smtp.esmtp = verb == Verb::Ehlo;
                self.suspended = std::mem::replace(&mut self.current, NONE);
                if verb == Verb::Ehlo { ExpectedReply::Ehlo } else { ExpectedReply::Helo }
            }
            Verb::Mail => {
                let path = self.path(command, out);
                let transaction = self.mail(&path, at);
                self.suspended = std::mem::replace(&mut self.current, transaction);
                ExpectedReply::Mail { transaction }
            }
            Verb::Rcpt => {
                let transaction = self.current;
                let path = self.path(command, out);
                ExpectedReply::Rcpt { transaction, recipient: self.rcpt(&path) }
            }
            Verb::Data => ExpectedReply::Data { transaction: self.current },
            Verb::Rset => {
                self.current = NONE;
                ExpectedReply::Rset
            }
            Verb::Auth => ExpectedReply::Auth,
            Verb::Starttls => ExpectedReply::Starttls,
            Verb::Quit => ExpectedReply::Quit,
            Verb::Xclient | Verb::Xforward | Verb::Unknown => {
                self.anomaly(
                    match verb {
                        Verb::Xclient => Anomaly::Xclient,
                        Verb::Xforward => Anomaly::Xforward,
                        _ => Anomaly::UnknownCommand,
                    },
                    out,
                );
                ExpectedReply::Other
            }
            Verb::Bdat => {
                if command.chunk().is_err() {
                    self.anomaly(Anomaly::BadSyntax, out);
                }
                ExpectedReply::Other
            }
            Verb::Noop | Verb::Vrfy | Verb::Expn | Verb::Help | Verb::Etrn => ExpectedReply::Other,
        }
    }

    /// The command was a BDAT that can be read. Returns what its reply will mean.
    pub(super) fn chunk(&mut self, chunk: Chunk, at: Timestamp, out: &mut Output) -> ExpectedReply {
        let transaction = self.current;
        let message = &self.message;
        let same = message.chunking && message.transaction == transaction;
        if !same || message.began.is_none() {
            self.content_begins(transaction, true, Some(at), out);
        }
        if !chunk.last {
            return ExpectedReply::Chunk { transaction };
        }
        // What is said next belongs to no transaction, whenever the reply comes.
        self.current = NONE;
        if chunk.size == 0 {
            self.content_ended(Some(at), out);
        }
        ExpectedReply::Message { transaction }
    }

    /// Notes bare newlines of a line.
    pub(super) fn endings(&mut self, line: Line<'_>, out: &mut Output) {
        if !line.is_clean() {
            let bare_cr = line.has_bare_cr();
            self.anomaly(if bare_cr { Anomaly::BareCr } else { Anomaly::BareLf }, out);
        }
    }

    /// The path of MAIL or RCPT; what cannot be read as one is kept as it came, for the server to judge.
    fn path(&mut self, command: &Command<'_>, out: &mut Output) -> String {
        if command.path().is_none() {
            self.anomaly(Anomaly::BadSyntax, out);
        }
        path_of(command)
    }

    /// A transaction begins. Returns its number.
    fn mail(&mut self, path: &str, at: Timestamp) -> usize {
        self.phase_start = at;
        let number = usize::try_from(self.smtp.transactions_total).unwrap_or(NONE);
        self.smtp.transactions_total += 1;
        if self.afford(path) {
            let mail_from = path.to_owned();
            self.smtp.transactions.push(TransactionRecord { mail_from, ..Default::default() });
        }
        number
    }

    /// Returns the recipient's number within the current transaction.
    fn rcpt(&mut self, path: &str) -> usize {
        let affordable = self.afford(path);
        let Some(transaction) = self.smtp.transactions.get_mut(self.current) else {
            return NONE;
        };
        let number = usize::try_from(transaction.rcpt_total).unwrap_or(NONE);
        transaction.rcpt_total += 1;
        if affordable {
            let address = path.to_owned();
            transaction.rcpt_to.push(RecipientRecord { address, code: None, enhanced: None });
        }
        number
    }

    /// The budget only shrinks: once it is spent no later entry is kept, so numbers stay positions.
    fn afford(&mut self, path: &str) -> bool {
        match self.budget.checked_sub(path.len() + ENTRY) {
            Some(left) => {
                self.budget = left;
                true
            }
            None => {
                self.budget = 0;
                false
            }
        }
    }

    pub(super) fn family(&self) -> Family {
        self.client.family()
    }

    /// The transaction that the client's commands belong to now; a number that no other has.
    pub(super) const fn current(&self) -> usize {
        self.current
    }

    /// The client forgot it, or nobody knows what it is.
    pub(super) const fn no_transaction(&mut self) {
        self.current = NONE;
    }

    /// The client reads a complete reply.
    pub(super) fn reply(&mut self, code: u16, source: ReplySource, out: &mut Output) {
        match self.replies.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => self.replies.push((code, 1)),
        }
        out.event(Event::Reply { code, source });
    }

    /// What a reply means that answers `asked`.
    pub(super) fn answered(
        &mut self,
        asked: ExpectedReply,
        code: u16,
        enhanced: Option<EnhancedCode>,
        at: Timestamp,
        out: &mut Output,
    ) {
        match asked {
            ExpectedReply::Greeting => {
                self.smtp.greeting = Some(code);
                self.phase(Phase::Greeting, at - self.phase_start, out);
            }
            // What is refused changes nothing (RFC 5321 §4.1.4).
            ExpectedReply::Helo | ExpectedReply::Ehlo if code >= 400 => {
                if self.current == NONE {
                    self.current = self.suspended;
                }
                if let Some((name, esmtp)) = self.introduced.clone() {
                    (self.smtp.helo, self.smtp.esmtp) = (Some(name), esmtp);
                }
            }
            ExpectedReply::Helo | ExpectedReply::Ehlo => {
                self.introduced = self.smtp.helo.clone().map(|name| (name, self.smtp.esmtp));
            }
            ExpectedReply::Mail { transaction } => {
                if code >= 400 && self.current == transaction && self.suspended != NONE {
                    self.current = self.suspended;
                }
                if let Some(transaction) = self.smtp.transactions.get_mut(transaction) {
                    transaction.mail_code = Some(code);
                }
            }
            ExpectedReply::Rcpt { transaction, recipient } => {
                let transaction = self.smtp.transactions.get_mut(transaction);
                if let Some(recipient) = transaction.and_then(|t| t.rcpt_to.get_mut(recipient)) {
                    (recipient.code, recipient.enhanced) = (Some(code), enhanced);
                }
            }
            ExpectedReply::Data { transaction } if code == 354 => {
                self.content_begins(transaction, false, Some(at), out);
            }
            ExpectedReply::Data { transaction } if code >= 400 => {
                self.data_refused(transaction, code)
            }
            ExpectedReply::Message { transaction } => self.message_code(transaction, code, at, out),
            ExpectedReply::Auth if code == 235 => self.smtp.auth = true,
            ExpectedReply::Starttls if code == 220 => self.starttls(Starttls::Started, out),
            ExpectedReply::Starttls => self.starttls(Starttls::Refused, out),
            _ => {}
        }
    }

    /// The client read what the server can do.
    pub(super) fn offered(&mut self, keywords: Vec<String>) {
        // What became of a STARTTLS tells more than a later offer.
        if self.smtp.tls == Tls::None && keywords.iter().any(|keyword| keyword == "STARTTLS") {
            self.smtp.tls = Tls::Offered;
        }
        self.smtp.extensions = Some(keywords);
    }

    /// `at`: none if nobody heard the go-ahead.
    pub(super) fn content_begins(
        &mut self,
        transaction: usize,
        chunking: bool,
        at: Option<Timestamp>,
        out: &mut Output,
    ) {
        if let Some(at) = at.filter(|_| transaction != NONE) {
            self.phase(Phase::Envelope, at - self.phase_start, out);
        }
        self.message = Message::new(transaction, chunking, at);
        if let Some(transaction) = self.smtp.transactions.get_mut(transaction) {
            transaction.chunking = chunking;
        }
    }

    pub(super) const fn content(&mut self, count: u64) {
        self.message.bytes += count;
    }

    /// The client has said all of a message. `at`: none if nobody heard when.
    pub(super) fn content_ended(&mut self, at: Option<Timestamp>, out: &mut Output) {
        if let (Some(began), Some(at)) = (self.message.began.take(), at) {
            self.phase(Phase::Data, at - began, out);
        }
        if !self.message.chunking {
            self.current = NONE;
        }
        let end = if self.message.chunking { 0 } else { ".\r\n".len() as u64 };
        let bytes = self.message.bytes.saturating_sub(end);
        if let Some(transaction) = self.smtp.transactions.get_mut(self.message.transaction) {
            transaction.bytes = bytes;
        }
        if !self.message.told {
            self.ended.push_back((bytes, at));
        }
    }

    /// DATA was refused: that is the fate of the message, unless every recipient was refused before it.
    fn data_refused(&mut self, transaction: usize, code: u16) {
        if let Some(transaction) = self.smtp.transactions.get_mut(transaction)
            && transaction.rcpt_to.iter().any(|to| to.code.is_some_and(|code| code / 100 == 2))
        {
            transaction.data_code = Some(code);
        }
    }

    /// The message's fate is known.
    fn message_code(&mut self, transaction: usize, code: u16, at: Timestamp, out: &mut Output) {
        let (bytes, ended) = self.ended.pop_front().unwrap_or_else(|| {
            self.message.told = true;
            (self.message.bytes, Some(at))
        });
        if let Some(ended) = ended {
            self.phase(Phase::Acceptance, at - ended, out);
        }
        out.event(Event::Message { code, bytes });
        if let Some(transaction) = self.smtp.transactions.get_mut(transaction) {
            transaction.data_code = Some(code);
            transaction.bytes = bytes;
        }
    }

    /// The replies to messages that ended were missed, but for the last one's if that is still to come.
    pub(super) fn replies_missed(&mut self, but_last: bool) {
        let last = self.ended.pop_back().filter(|_| but_last);
        self.ended.clear();
        self.ended.extend(last);
    }

    fn starttls(&mut self, outcome: Starttls, out: &mut Output) {
        self.smtp.tls = match outcome {
            Starttls::Started => Tls::Started,
            Starttls::Refused => Tls::Refused,
        };
        out.event(Event::Starttls(outcome));
    }

    /// TLS was found to be spoken; nobody heard how it began.
    pub(super) const fn encrypted(&mut self) {
        self.smtp.tls = Tls::Started;
    }

    /// What a hello of TLS told.
    pub(super) fn hello(&mut self, told: Told) {
        match told {
            Told::Version(version) => self.smtp.tls_version = Some(version),
            Told::Name(sni) => self.smtp.sni = Some(sni),
        }
    }

    /// Counted each time, listed once.
    pub(super) fn anomaly(&mut self, anomaly: Anomaly, out: &mut Output) {
        if !self.smtp.anomalies.contains(&anomaly) {
            self.smtp.anomalies.push(anomaly);
        }
        out.event(Event::Anomaly(anomaly));
    }

    /// Counts what a message newly shows, each thing once. Returns whether it has bare newlines.
    pub(super) fn findings(&mut self, findings: Findings, out: &mut Output) -> bool {
        let found = [
            (findings.bare_lf, Anomaly::BareLf),
            (findings.bare_cr, Anomaly::BareCr),
            (findings.smuggling, Anomaly::Smuggling),
            (findings.long_line, Anomaly::TextLineTooLong),
        ];
        for (_, anomaly) in found.into_iter().filter(|(is, _)| *is) {
            let bit = 1 << anomaly.index();
            if self.message.found & bit == 0 {
                self.message.found |= bit;
                self.anomaly(anomaly, out);
            }
        }
        findings.bare_lf || findings.bare_cr
    }

    pub(super) fn desync(&mut self, cause: Desync, out: &mut Output) {
        self.smtp.desyncs += 1;
        out.event(Event::Desync(cause));
    }

    pub(super) const fn resync(&mut self) {
        self.smtp.resyncs += 1;
    }

    pub(super) fn bytes(&mut self, side: Side, count: u64, out: &mut Output) {
        match side {
            Side::Client => self.tcp.client_bytes += count,
            Side::Server => self.tcp.server_bytes += count,
        }
        out.event(Event::Bytes { direction: side.direction(), count });
    }

    fn phase(&mut self, phase: Phase, duration: Duration, out: &mut Output) {
        self.smtp.phases.add(phase, duration);
        out.event(Event::Phase { phase, duration });
    }

    /// What was seen of the connection below SMTP, in place of our own counts.
    pub(super) fn tcp(&mut self, tcp: TcpFacts) {
        self.tcp = tcp;
    }

    /// The record, once; the recorder is empty afterwards.
    pub(super) fn finish(
        &mut self,
        outcome: Outcome,
        verdict: VerdictRecord,
        at: Timestamp,
        out: &mut Output,
    ) -> SessionRecord {
        self.phase(Phase::Session, at - self.start, out);
        out.event(Event::SessionClosed(outcome));
        let mut smtp = std::mem::take(&mut self.smtp);
        // A message that was cut off: what there was of it.
        if self.message.began.is_some()
            && !self.message.told
            && let Some(transaction) = smtp.transactions.get_mut(self.message.transaction)
        {
            transaction.bytes = self.message.bytes;
        }
        smtp.commands = Verb::ALL
            .into_iter()
            .zip(self.commands)
            .filter(|(_, count)| *count > 0)
            .map(|(verb, count)| (verb, u64::from(count)))
            .collect();
        smtp.replies = self.replies.iter().copied().collect();
        SessionRecord {
            start: self.start,
            duration: at - self.start,
            family: self.client.family(),
            client: self.client.socket().into(),
            server: self.destination.socket().into(),
            upstream: self.upstream.map(|upstream| upstream.socket().into()),
            outcome,
            tcp: std::mem::take(&mut self.tcp),
            smtp,
            facts: None,
            verdict,
        }
    }
}
