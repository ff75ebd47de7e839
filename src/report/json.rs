//! The JSON form: one object per line, with `"type"` first. A session is the serde form of its record; in a replay it also
//! has the file and the session's number. Each function returns one line with its line end.

use std::io;

use serde::Serialize;
use serde_json::Serializer;

use super::escape::{EscapeContext, VisibleJson, push};
use super::losses::CaptureLosses;
use super::{LogLevel, MAX_NOTICE};
use crate::engine::{RecipientRecord, SessionRecord, SmtpFacts, TransactionRecord, VerdictRecord};
use crate::time::Timestamp;
use crate::traffic::Evidence;
use crate::traffic::fallback::{Fallback, FallbackReason, ServerMatch};

/// Bytes of one line. A longer record is shortened to the limits below; its totals keep the full counts.
const MAX_LINE: usize = 1 << 20;
const SHORT_TRANSACTIONS: usize = 10;
const SHORT_RECIPIENTS: usize = 20;
const SHORT_DESTINATIONS: usize = 500;
/// Bytes of one string before JSON's own escapes.
const SHORT_VALUE: usize = 320;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum JsonLine<'a> {
    Session(&'a SessionRecord),
    #[serde(rename = "session")]
    Replayed {
        file: &'a str,
        number: u64,
        #[serde(flatten)]
        record: &'a SessionRecord,
    },
    Fallback {
        from: u64,
        to: u64,
        after_s: f64,
        why: FallbackReason,
        code: Option<u16>,
        by: ServerMatch,
    },
    Damage {
        file: &'a str,
        message: &'a str,
    },
    Evidence(&'a Evidence<'a>),
    Lost(&'a CaptureLosses),
    Notice {
        time: Timestamp,
        level: LogLevel,
        message: &'a str,
    },
}

pub(super) fn session(record: &SessionRecord) -> String {
    write(&JsonLine::Session(record))
        .or_else(|| write(&JsonLine::Session(&shortened(record))))
        .unwrap_or_default()
}

pub(super) fn replayed(file: &str, number: u64, record: &SessionRecord) -> String {
    write(&JsonLine::Replayed { file, number, record })
        .or_else(|| write(&JsonLine::Replayed { file, number, record: &shortened(record) }))
        .unwrap_or_default()
}

pub(super) fn fallback(fallback: &Fallback) -> String {
    let &Fallback { from, to, after, why, code, by, .. } = fallback;
    write(&JsonLine::Fallback { from, to, after_s: after.as_secs_f64(), why, code, by })
        .unwrap_or_default()
}

pub(super) fn damage(file: &str, message: &str) -> String {
    let mut bounded = String::new();
    push(&mut bounded, message, EscapeContext::Sentence, MAX_NOTICE);
    write(&JsonLine::Damage { file, message: &bounded }).unwrap_or_default()
}

pub(super) fn evidence(evidence: &Evidence<'_>) -> String {
    write(&JsonLine::Evidence(evidence)).unwrap_or_else(|| {
        let mut short = evidence.clone();
        short.return_path.destinations.truncate(SHORT_DESTINATIONS);
        write(&JsonLine::Evidence(&short)).unwrap_or_default()
    })
}

pub(super) fn losses(losses: &CaptureLosses) -> String {
    write(&JsonLine::Lost(losses)).unwrap_or_default()
}

pub(super) fn notice(time: Timestamp, level: LogLevel, message: &str) -> String {
    let mut bounded = String::new();
    push(&mut bounded, message, EscapeContext::Sentence, MAX_NOTICE);
    let message = bounded.as_str();
    write(&JsonLine::Notice { time, level, message }).unwrap_or_default()
}

/// `None` if the line would exceed [`MAX_LINE`]; serialization stops there.
fn write(line: &JsonLine<'_>) -> Option<String> {
    let mut out = BoundedBuffer(Vec::with_capacity(1024));
    line.serialize(&mut Serializer::with_formatter(&mut out, VisibleJson)).ok()?;
    out.0.push(b'\n');
    String::from_utf8(out.0).ok()
}

struct BoundedBuffer(Vec<u8>);

impl io::Write for BoundedBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Leaves room for the line end.
        if self.0.len() + bytes.len() >= MAX_LINE {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The record within the limits. Every field is listed, so that nothing large is cloned.
fn shortened(record: &SessionRecord) -> SessionRecord {
    let smtp = &record.smtp;
    let transactions = smtp.transactions.iter().take(SHORT_TRANSACTIONS);
    SessionRecord {
        start: record.start,
        duration: record.duration,
        family: record.family,
        client: record.client,
        server: record.server,
        listener: record.listener.clone(),
        upstream: record.upstream,
        upstream_name: record.upstream_name.clone(),
        upstream_error: record.upstream_error.as_deref().map(truncated),
        upstream_tls: record.upstream_tls,
        outcome: record.outcome,
        tcp: record.tcp.clone(),
        smtp: SmtpFacts {
            greeting: smtp.greeting,
            helo: smtp.helo.as_deref().map(truncated),
            esmtp: smtp.esmtp,
            extensions: smtp.extensions.clone(),
            tls: smtp.tls,
            tls_version: smtp.tls_version,
            tls_handshake: smtp.tls_handshake,
            tls_error: smtp.tls_error.as_deref().map(truncated),
            starttls_hidden: smtp.starttls_hidden,
            client_certificate: smtp.client_certificate.clone(),
            sni: smtp.sni.as_deref().map(truncated),
            auth: smtp.auth,
            transactions: transactions.map(shortened_transaction).collect(),
            transactions_total: smtp.transactions_total,
            commands: smtp.commands.clone(),
            replies: smtp.replies.clone(),
            phases: smtp.phases.clone(),
            anomalies: smtp.anomalies.clone(),
            desyncs: smtp.desyncs,
            resyncs: smtp.resyncs,
        },
        // Bounded by the length of domain names.
        facts: record.facts.clone(),
        verdict: VerdictRecord {
            action: record.verdict.action,
            rule: record.verdict.rule.as_deref().map(truncated),
            reason: record.verdict.reason.as_deref().map(truncated),
            // Bounded by the number of rules and the length of their names.
            shadow: record.verdict.shadow.clone(),
        },
        encrypted: None,
        questions: Vec::new(),
    }
}

fn shortened_transaction(transaction: &TransactionRecord) -> TransactionRecord {
    let recipients = transaction.rcpt_to.iter().take(SHORT_RECIPIENTS);
    TransactionRecord {
        mail_from: truncated(&transaction.mail_from),
        mail_code: transaction.mail_code,
        rcpt_to: recipients
            .map(|recipient| RecipientRecord {
                address: truncated(&recipient.address),
                ..*recipient
            })
            .collect(),
        rcpt_total: transaction.rcpt_total,
        data_code: transaction.data_code,
        bytes: transaction.bytes,
        chunking: transaction.chunking,
        queue_id: transaction.queue_id.as_deref().map(truncated),
        progress: transaction.progress,
    }
}

fn truncated(value: &str) -> String {
    let mut end = value.len().min(SHORT_VALUE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    let (kept, rest) = value.split_at(end);
    if rest.is_empty() { kept.to_owned() } else { format!("{kept}…") }
}
