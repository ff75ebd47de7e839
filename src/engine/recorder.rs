//! Writes the record of a session while it happens, and the events that go with it.

use std::collections::VecDeque;

use super::{
    Anomaly, Event, Outcome, Output, Phase, RecipientRecord, Refusal, ReplySource, SessionRecord,
    Side, SmtpFacts, Starttls, TcpFacts, Tls, TransactionRecord, VerdictRecord,
};
use crate::addr::{ClientAddr, OriginalDst, UpstreamAddr};
use crate::policy::Verdict;
use crate::smtp::{EnhancedCode, Verb};
use crate::time::Timestamp;

/// Octets of envelope that one session's record may hold; what comes later is only counted.
const ENVELOPE_BUDGET: usize = 32 * 1024;
/// What one entry costs besides its address.
const ENTRY: usize = 64;

/// Message bytes between the reply to DATA and the reply to the end of data.
#[derive(Debug, Default)]
struct Message {
    began: Option<Timestamp>,
    bytes: u64,
    chunking: bool,
    /// Its fate was told before its end.
    told: bool,
    /// Anomalies of this message that are counted already.
    found: u32,
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
    message: Message,
    /// Messages that ended and whose reply is not there yet: octets and when they ended.
    ended: VecDeque<(u64, Timestamp)>,
    last_refusal: Option<Refusal>,
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
            message: Message::default(),
            ended: VecDeque::new(),
            last_refusal: None,
        }
    }

    pub(super) fn connected(&mut self, upstream: UpstreamAddr, at: Timestamp, out: &mut Output) {
        self.upstream = Some(upstream);
        out.event(Event::Phase { phase: Phase::Connect, duration: at - self.start });
        self.phase_start = at;
    }

    pub(super) fn greeting(&mut self, code: u16, at: Timestamp, out: &mut Output) {
        self.smtp.greeting = Some(code);
        out.event(Event::Phase { phase: Phase::Greeting, duration: at - self.phase_start });
    }

    pub(super) fn helo(&mut self, argument: &[u8], esmtp: bool) {
        self.smtp.helo = Some(String::from_utf8_lossy(argument).into_owned());
        self.smtp.esmtp = esmtp;
    }

    pub(super) fn command(&mut self, verb: Verb) {
        if let Some(count) = self.commands.get_mut(verb.index()) {
            *count = count.saturating_add(1);
        }
    }

    pub(super) fn reply(&mut self, code: u16, source: ReplySource, out: &mut Output) {
        match self.replies.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => self.replies.push((code, 1)),
        }
        out.event(Event::Reply { code, source });
    }

    /// A transaction begins. Returns its number.
    pub(super) fn mail(&mut self, path: &str, at: Timestamp) -> usize {
        self.phase_start = at;
        let number = usize::try_from(self.smtp.transactions_total).unwrap_or(usize::MAX);
        self.smtp.transactions_total += 1;
        if self.afford(path) {
            let mail_from = path.to_owned();
            self.smtp.transactions.push(TransactionRecord { mail_from, ..Default::default() });
        }
        number
    }

    pub(super) fn mail_code(&mut self, transaction: usize, code: u16) {
        if let Some(transaction) = self.smtp.transactions.get_mut(transaction) {
            transaction.mail_code = Some(code);
        }
    }

    /// Returns the recipient's number within its transaction.
    pub(super) fn rcpt(&mut self, transaction: usize, path: &str) -> usize {
        let affordable = self.afford(path);
        let Some(transaction) = self.smtp.transactions.get_mut(transaction) else {
            return usize::MAX;
        };
        let number = usize::try_from(transaction.rcpt_total).unwrap_or(usize::MAX);
        transaction.rcpt_total += 1;
        if affordable {
            let address = path.to_owned();
            transaction.rcpt_to.push(RecipientRecord { address, code: None, enhanced: None });
        }
        number
    }

    pub(super) fn rcpt_code(
        &mut self,
        transaction: usize,
        recipient: usize,
        code: u16,
        enhanced: Option<EnhancedCode>,
    ) {
        let transaction = self.smtp.transactions.get_mut(transaction);
        if let Some(recipient) = transaction.and_then(|t| t.rcpt_to.get_mut(recipient)) {
            (recipient.code, recipient.enhanced) = (Some(code), enhanced);
        }
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

    pub(super) fn content_begins(
        &mut self,
        transaction: usize,
        chunking: bool,
        at: Timestamp,
        out: &mut Output,
    ) {
        out.event(Event::Phase { phase: Phase::Envelope, duration: at - self.phase_start });
        self.message = Message { began: Some(at), chunking, ..Message::default() };
        if let Some(transaction) = self.smtp.transactions.get_mut(transaction) {
            transaction.chunking = chunking;
        }
    }

    pub(super) const fn content(&mut self, count: u64) {
        self.message.bytes += count;
    }

    pub(super) fn content_ended(&mut self, at: Timestamp, out: &mut Output) {
        if let Some(began) = self.message.began.take() {
            out.event(Event::Phase { phase: Phase::Data, duration: at - began });
        }
        if self.message.told {
            return;
        }
        let end = if self.message.chunking { 0 } else { ".\r\n".len() as u64 };
        self.ended.push_back((self.message.bytes.saturating_sub(end), at));
    }

    /// The message's fate is known.
    pub(super) fn message_code(
        &mut self,
        transaction: usize,
        code: u16,
        at: Timestamp,
        out: &mut Output,
    ) {
        let (bytes, ended) = self.ended.pop_front().unwrap_or_else(|| {
            self.message.told = true;
            (self.message.bytes, at)
        });
        out.event(Event::Phase { phase: Phase::Acceptance, duration: at - ended });
        out.event(Event::Message { code, bytes });
        if let Some(transaction) = self.smtp.transactions.get_mut(transaction) {
            transaction.data_code = Some(code);
            transaction.bytes = bytes;
        }
    }

    pub(super) const fn authenticated(&mut self) {
        self.smtp.auth = true;
    }

    /// What became of a STARTTLS tells more than a later offer.
    pub(super) fn starttls_offered(&mut self) {
        if self.smtp.tls == Tls::None {
            self.smtp.tls = Tls::Offered;
        }
    }

    pub(super) fn starttls(&mut self, outcome: Starttls, out: &mut Output) {
        self.smtp.tls = match outcome {
            Starttls::Started => Tls::Started,
            Starttls::Refused => Tls::Refused,
        };
        out.event(Event::Starttls(outcome));
    }

    /// Counted each time, listed once.
    pub(super) fn anomaly(&mut self, anomaly: Anomaly, out: &mut Output) {
        if !self.smtp.anomalies.contains(&anomaly) {
            self.smtp.anomalies.push(anomaly);
        }
        out.event(Event::Anomaly(anomaly));
    }

    /// Counted once for each message.
    pub(super) fn anomaly_of_message(&mut self, anomaly: Anomaly, out: &mut Output) {
        let bit = 1 << anomaly.index();
        if self.message.found & bit == 0 {
            self.message.found |= bit;
            self.anomaly(anomaly, out);
        }
    }

    pub(super) fn refusal(&mut self, refusal: Refusal, out: &mut Output) {
        self.last_refusal = Some(refusal);
        out.event(Event::Refusal(refusal));
    }

    pub(super) fn bytes(&mut self, side: Side, count: u64, out: &mut Output) {
        match side {
            Side::Client => self.tcp.client_bytes += count,
            Side::Server => self.tcp.server_bytes += count,
        }
        out.event(Event::Bytes { direction: side.direction(), count });
    }

    /// The record, once; the recorder is empty afterwards.
    pub(super) fn finish(
        &mut self,
        outcome: Outcome,
        verdict: &Verdict,
        at: Timestamp,
        out: &mut Output,
    ) -> SessionRecord {
        out.event(Event::Phase { phase: Phase::Session, duration: at - self.start });
        out.event(Event::SessionClosed(outcome));
        let mut smtp = std::mem::take(&mut self.smtp);
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
            verdict: VerdictRecord {
                action: verdict.action,
                rule: verdict.rule.as_deref().map(str::to_owned),
                reason: self.last_refusal.map(|refusal| refusal.as_str().to_owned()),
            },
        }
    }
}
