//! Builds the record of a session while it happens, and emits the events that go with it. The proxy and the observer of a
//! capture use the same builder; the transactions in the record are those of the [`SessionState`].

use std::sync::Arc;
use std::time::Duration;

use super::tls_exchange::{TlsExchange, TlsResult};
use super::tls_hello::HelloInfo;
use super::{
    ClientTlsFacts, EncryptedBytes, PolicyQuestion, RecipientRecord, SessionRecord, SmtpFacts,
    TcpFacts, TlsFacts, TlsFailure, TransactionRecord, VerdictRecord,
};
use crate::addr::{ClientAddr, Family, OriginalDst, Side, UpstreamAddr};
use crate::engine::event::{
    Anomaly, Desync, Direction, Event, Outcome, Phase, ReplySource, Starttls, TlsHandshake,
    TlsVersion, UpstreamTlsResult,
};
use crate::engine::output::Output;
use crate::smtp::{
    Command, ExpectedReply, Junk, Line, Recipient, ScanFindings, Session, Transaction, Verb,
};
use crate::time::Timestamp;

/// Bytes of policy questions that one session's record may hold; later ones are not noted.
const QUESTION_BUDGET: usize = 64 * 1024;

/// The message between the reply to DATA, or the first BDAT, and its end.
#[derive(Debug, Default)]
struct MessageProgress {
    began: Option<Timestamp>,
    /// Anomalies of this message that are counted already, by [`Anomaly::index`].
    found: u32,
}

#[derive(Debug)]
pub(in crate::engine) struct RecordBuilder {
    listener: Option<Arc<str>>,
    client: ClientAddr,
    destination: OriginalDst,
    upstream: Option<UpstreamAddr>,
    upstream_name: Option<Arc<str>>,
    upstream_error: Option<String>,
    upstream_tls: Option<&'static str>,
    start: Timestamp,
    /// When the upstream connection was established, then when MAIL was sent.
    phase_start: Timestamp,
    tcp: TcpFacts,
    smtp: SmtpFacts,
    commands: [u32; Verb::ALL.len()],
    replies: Vec<(u16, u64)>,
    message: MessageProgress,
    encrypted: Option<EncryptedBytes>,
    tls: TlsExchange,
    questions: Vec<PolicyQuestion>,
    question_budget: usize,
}

impl RecordBuilder {
    pub(in crate::engine) fn new(
        listener: Option<Arc<str>>,
        client: ClientAddr,
        destination: OriginalDst,
        at: Timestamp,
    ) -> Self {
        Self {
            listener,
            client,
            destination,
            upstream: None,
            upstream_name: None,
            upstream_error: None,
            upstream_tls: None,
            start: at,
            phase_start: at,
            tcp: TcpFacts::default(),
            smtp: SmtpFacts::default(),
            commands: [0; Verb::ALL.len()],
            replies: Vec::new(),
            message: MessageProgress::default(),
            encrypted: None,
            tls: TlsExchange::default(),
            questions: Vec::new(),
            question_budget: QUESTION_BUDGET,
        }
    }

    pub(in crate::engine) fn family(&self) -> Family {
        self.client.family()
    }

    /// The upstream connection was established.
    pub(in crate::engine) fn on_connected(
        &mut self,
        upstream: Option<UpstreamAddr>,
        at: Timestamp,
        out: &mut Output,
    ) {
        self.upstream = upstream;
        self.phase(Phase::Connect, at - self.start, out);
        self.phase_start = at;
    }

    pub(in crate::engine) fn set_upstream_name(&mut self, name: Option<Arc<str>>) {
        self.upstream_name = name;
    }

    pub(in crate::engine) fn on_upstream_failure(&mut self, detail: String) {
        self.upstream_error = Some(detail);
    }

    /// The client sent a command.
    pub(in crate::engine) fn on_command(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        at: Timestamp,
        out: &mut Output,
    ) {
        let verb = command.verb;
        out.event(Event::Command(verb));
        if let Some(count) = self.commands.get_mut(verb.index()) {
            *count = count.saturating_add(1);
        }
        self.on_line_endings(line, out);
        if verb == Verb::Mail {
            self.phase_start = at;
            self.message.began = None;
        }
        let anomaly = match verb {
            Verb::Mail | Verb::Rcpt if command.envelope().is_err() => Anomaly::BadSyntax,
            Verb::Bdat if command.chunk().is_err() => Anomaly::BadSyntax,
            Verb::Xclient => Anomaly::Xclient,
            Verb::Xforward => Anomaly::Xforward,
            Verb::Unknown if Command::is_proxy_header(line.text) => Anomaly::JunkProxy,
            Verb::Unknown => Anomaly::UnknownCommand,
            _ => return,
        };
        self.anomaly(anomaly, out);
    }

    /// Notes bare newlines of a line.
    pub(in crate::engine) fn on_line_endings(&mut self, line: Line<'_>, out: &mut Output) {
        if !line.is_clean() {
            let bare_cr = line.has_bare_cr();
            self.anomaly(if bare_cr { Anomaly::BareCr } else { Anomaly::BareLf }, out);
        }
    }

    /// Counts a complete reply to the client.
    pub(in crate::engine) fn count_reply(
        &mut self,
        code: u16,
        source: ReplySource,
        out: &mut Output,
    ) {
        match self.replies.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count += 1,
            None => self.replies.push((code, 1)),
        }
        out.event(Event::Reply { code, source });
    }

    /// `expected` was answered; the session has applied it. `in_transaction`: the client has sent a MAIL that nothing ended.
    pub(in crate::engine) fn on_reply(
        &mut self,
        expected: &ExpectedReply,
        code: u16,
        in_transaction: bool,
        at: Timestamp,
        out: &mut Output,
    ) {
        match expected {
            ExpectedReply::Greeting => {
                self.smtp.greeting = Some(code);
                self.phase(Phase::Greeting, at - self.phase_start, out);
            }
            ExpectedReply::Data if code == 354 => {
                self.on_content_start(in_transaction, Some(at), out);
            }
            ExpectedReply::Message { bytes, ended, .. } => {
                if let Some(ended) = *ended {
                    self.phase(Phase::Acceptance, at - ended, out);
                }
                out.event(Event::Message { code, bytes: *bytes });
            }
            ExpectedReply::Starttls { .. } => {
                let outcome = if code == 220 { Starttls::Started } else { Starttls::Refused };
                if code == 220 {
                    self.on_tls_start(at);
                }
                out.event(Event::Starttls(outcome));
            }
            _ => {}
        }
    }

    /// Keywords of an EHLO reply, as the client received them.
    pub(in crate::engine) fn on_keywords(&mut self, keywords: Vec<String>) {
        self.smtp.extensions = Some(keywords);
    }

    /// A BDAT was sent; the first of a message ends the envelope.
    pub(in crate::engine) fn on_chunk(
        &mut self,
        in_transaction: bool,
        at: Timestamp,
        out: &mut Output,
    ) {
        if self.message.began.is_none() {
            self.on_content_start(in_transaction, Some(at), out);
        }
    }

    /// `at`: `None` if the reply to DATA was not seen.
    pub(in crate::engine) fn on_content_start(
        &mut self,
        in_transaction: bool,
        at: Option<Timestamp>,
        out: &mut Output,
    ) {
        if let Some(at) = at.filter(|_| in_transaction) {
            self.phase(Phase::Envelope, at - self.phase_start, out);
        }
        self.message = MessageProgress { began: at, found: 0 };
    }

    /// The client has sent all of a message. `at`: `None` if that was not seen.
    pub(in crate::engine) fn on_content_end(&mut self, at: Option<Timestamp>, out: &mut Output) {
        if let (Some(began), Some(at)) = (self.message.began.take(), at) {
            self.phase(Phase::Data, at - began, out);
        }
    }

    /// TLS between client and server begins.
    pub(in crate::engine) fn on_tls_start(&mut self, at: Timestamp) {
        self.encrypted = Some(EncryptedBytes { last_at: at, ..Default::default() });
        self.tls = TlsExchange::default();
    }

    /// TLS between client and server is found after bytes were missed. `left`: bytes of each side's current record that follow,
    /// by [`Side::index`].
    pub(in crate::engine) fn on_tls_found(&mut self, left: [usize; 2], at: Timestamp) {
        self.encrypted = Some(EncryptedBytes { last_at: at, ..Default::default() });
        self.tls = TlsExchange::midway(left);
    }

    /// The next bytes of TLS that passes through.
    pub(in crate::engine) fn on_tls_bytes(&mut self, side: Side, bytes: &[u8], at: Timestamp) {
        if let Some(encrypted) = &mut self.encrypted {
            encrypted.add(side, bytes.len() as u64, at);
            if !self.tls.is_decided(self.smtp.tls_version) {
                self.tls.on_bytes(side, bytes);
            }
        }
    }

    /// Bytes of TLS passed through unseen.
    pub(in crate::engine) fn on_unseen_tls(&mut self, side: Side, count: u64, at: Timestamp) {
        if let Some(encrypted) = &mut self.encrypted {
            encrypted.add(side, count, at);
            if !self.tls.is_decided(self.smtp.tls_version) {
                self.tls.on_unseen(side, count);
            }
        }
    }

    /// Whether the bytes of TLS need not be seen any more: its handshake is over, however it ended.
    pub(in crate::engine) fn tls_is_decided(&self) -> bool {
        self.tls.is_decided(self.smtp.tls_version)
    }

    /// Who sent last after STARTTLS; `None` if nobody did.
    pub(in crate::engine) fn sent_last_encrypted(&self) -> Option<Side> {
        self.encrypted?.last
    }

    /// A TLS hello was parsed.
    pub(in crate::engine) fn on_tls_hello(&mut self, hello: HelloInfo) {
        match hello {
            HelloInfo::Version(version) => self.smtp.tls_version = Some(version),
            HelloInfo::ServerName(name) => self.smtp.sni = Some(name),
        }
    }

    /// STARTTLS is not offered, as handshakes of the client failed.
    pub(in crate::engine) fn on_starttls_hidden(&mut self, out: &mut Output) {
        self.smtp.starttls_hidden = true;
        out.event(Event::StarttlsHidden);
    }

    /// The gateway answered STARTTLS itself: its session goes on readable.
    pub(in crate::engine) fn on_own_starttls(&mut self, at: Timestamp) {
        self.encrypted = None;
        self.phase_start = at;
    }

    /// The gateway's own TLS with the client is established.
    pub(in crate::engine) fn on_own_tls(
        &mut self,
        facts: &TlsFacts,
        hello: Option<HelloInfo>,
        at: Timestamp,
        out: &mut Output,
    ) {
        self.smtp.tls_version = facts.version.name();
        if let Some(hello) = hello {
            self.on_tls_hello(hello);
        }
        self.smtp.client_certificate.clone_from(&facts.client_certificate);
        let result = if facts.resumed { TlsHandshake::Resumed } else { TlsHandshake::Full };
        self.smtp.tls_handshake = Some(result);
        self.phase(Phase::TlsHandshake, at - self.phase_start, out);
        out.event(Event::TlsHandshake { version: facts.version, result });
    }

    /// Of the TLS that is established. The record does not hold the cipher suite.
    pub(in crate::engine) fn client_tls(
        &self,
        cipher_suite: Option<&'static str>,
    ) -> ClientTlsFacts<'_> {
        let SmtpFacts { tls_version, client_certificate, .. } = &self.smtp;
        ClientTlsFacts {
            version: *tls_version,
            cipher_suite,
            certificate: client_certificate.as_ref(),
        }
    }

    /// It failed: its handshake, or a later record.
    pub(in crate::engine) fn on_tls_failure(&mut self, failure: TlsFailure, out: &mut Output) {
        let TlsFailure { result, reason, .. } = failure;
        if self.smtp.tls_handshake.is_none() {
            self.smtp.tls_handshake = Some(result);
            out.event(Event::TlsHandshake { version: TlsVersion::Unknown, result });
        }
        self.smtp.tls_error = Some(reason);
    }

    /// The gateway tried to use TLS with upstream. `version`: of the TLS that is established.
    pub(in crate::engine) fn on_upstream_tls(
        &mut self,
        version: Option<&'static str>,
        result: UpstreamTlsResult,
        out: &mut Output,
    ) {
        self.upstream_tls = version;
        out.event(Event::UpstreamTls(result));
    }

    /// The policy decided on this, or would have.
    pub(in crate::engine) fn on_question(&mut self, question: PolicyQuestion) {
        let left = self.question_budget.checked_sub(question.cost());
        self.question_budget = left.unwrap_or(0);
        if left.is_some() {
            self.questions.push(question);
        }
    }

    /// Counted each time, listed once.
    pub(in crate::engine) fn anomaly(&mut self, anomaly: Anomaly, out: &mut Output) {
        if !self.smtp.anomalies.contains(&anomaly) {
            self.smtp.anomalies.push(anomaly);
        }
        out.event(Event::Anomaly(anomaly));
    }

    /// Counts new findings in a message, each once. Returns whether it has bare newlines.
    pub(in crate::engine) fn on_findings(
        &mut self,
        findings: ScanFindings,
        out: &mut Output,
    ) -> bool {
        let found = [
            (findings.bare_lf, Anomaly::BareLf),
            (findings.bare_cr, Anomaly::BareCr),
            (findings.smuggling, Anomaly::Smuggling),
            (findings.long_line, Anomaly::TextLineTooLong),
        ];
        for (_, anomaly) in found.into_iter().filter(|(is_found, _)| *is_found) {
            let bit = 1 << anomaly.index();
            if self.message.found & bit == 0 {
                self.message.found |= bit;
                self.anomaly(anomaly, out);
            }
        }
        findings.bare_lf || findings.bare_cr
    }

    pub(in crate::engine) fn on_desync(&mut self, cause: Desync, out: &mut Output) {
        self.smtp.desyncs += 1;
        out.event(Event::Desync(cause));
    }

    pub(in crate::engine) const fn on_resync(&mut self) {
        self.smtp.resyncs += 1;
    }

    pub(in crate::engine) fn count_bytes(&mut self, side: Side, count: u64, out: &mut Output) {
        let direction = match side {
            Side::Client => {
                self.tcp.client_bytes += count;
                Direction::ClientToUpstream
            }
            Side::Server => {
                self.tcp.server_bytes += count;
                Direction::UpstreamToClient
            }
        };
        out.event(Event::Bytes { direction, count });
    }

    fn phase(&mut self, phase: Phase, duration: Duration, out: &mut Output) {
        self.smtp.phases.add(phase, duration);
        out.event(Event::Phase { phase, duration });
    }

    /// The connection below SMTP as a capture shows it replaces the session's own counts.
    pub(in crate::engine) fn set_tcp(&mut self, tcp: TcpFacts) {
        self.tcp = tcp;
    }

    /// The complete record; the builder is empty afterwards.
    pub(in crate::engine) fn finish(
        &mut self,
        outcome: Outcome,
        verdict: VerdictRecord,
        session: &mut Session,
        at: Timestamp,
        out: &mut Output,
    ) -> SessionRecord {
        self.phase(Phase::Session, at - self.start, out);
        let outcome = self.outcome_under_tls(outcome);
        out.event(Event::SessionClosed(outcome));
        let state = session.finish();
        out.event(Event::SessionTls(state.tls()));
        let commands = Verb::ALL.into_iter().zip(self.commands);
        let smtp = SmtpFacts {
            helo: state.helo().map(|helo| helo.name.to_string()),
            esmtp: state.helo().is_some_and(|helo| helo.esmtp),
            tls: state.tls(),
            auth: state.is_authenticated(),
            transactions_total: state.transactions_total(),
            transactions: state.take_transactions().into_iter().map(Into::into).collect(),
            commands: commands
                .filter(|(_, count)| *count > 0)
                .map(|(verb, count)| (verb, u64::from(count)))
                .collect(),
            replies: self.replies.iter().copied().collect(),
            ..std::mem::take(&mut self.smtp)
        };
        SessionRecord {
            start: self.start,
            duration: at - self.start,
            family: self.client.family(),
            client: self.client.socket().into(),
            server: self.destination.socket().into(),
            listener: self.listener.clone(),
            upstream: self.upstream.map(|upstream| upstream.socket().into()),
            upstream_name: self.upstream_name.take(),
            upstream_error: self.upstream_error.take(),
            upstream_tls: self.upstream_tls,
            outcome,
            tcp: std::mem::take(&mut self.tcp),
            smtp,
            facts: None,
            verdict,
            encrypted: self.encrypted,
            questions: std::mem::take(&mut self.questions),
        }
    }
}

impl RecordBuilder {
    /// The result of TLS that passed through takes the place of who closed first, which is no result of the session.
    /// Other outcomes stay: the gateway ended the session, or the capture did.
    fn outcome_under_tls(&mut self, outcome: Outcome) -> Outcome {
        let closed_by = match outcome {
            Outcome::ClientClosed => Side::Client,
            Outcome::UpstreamClosed => Side::Server,
            _ => return outcome,
        };
        self.tcp.closed_by.get_or_insert(closed_by);
        if self.encrypted.is_none() {
            return outcome;
        }
        match self.tls.result(self.smtp.tls_version, closed_by) {
            Some(TlsResult::Completed) => Outcome::TlsCompleted,
            Some(TlsResult::Failed) => Outcome::TlsFailed,
            None => outcome,
        }
    }
}

impl From<Transaction> for TransactionRecord {
    fn from(transaction: Transaction) -> Self {
        Self {
            mail_from: transaction.sender.to_string(),
            mail_code: transaction.mail_code,
            rcpt_to: transaction.recipients.into_iter().map(Into::into).collect(),
            rcpt_total: transaction.recipients_total,
            data_code: transaction.data_code,
            bytes: transaction.bytes,
            chunking: transaction.chunking,
            queue_id: None,
            progress: None,
        }
    }
}

impl From<Recipient> for RecipientRecord {
    fn from(recipient: Recipient) -> Self {
        let Recipient { path, code, enhanced } = recipient;
        Self { address: path.to_string(), code, enhanced }
    }
}

impl From<Junk> for Anomaly {
    fn from(junk: Junk) -> Self {
        match junk {
            Junk::Http => Self::JunkHttp,
            Junk::Tls => Self::JunkTls,
            Junk::Proxy => Self::JunkProxy,
        }
    }
}
