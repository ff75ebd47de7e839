//! The text form of the log: one line per session, in `key=value` form like Postfix, for `grep`.
//!
//! The time of a line is the session's end, when it is written, so that the log is in order. No value contains a space,
//! except `rule`, `reason` and `shadow` with text from the configuration: they are quoted and last. `shadow` is the action of a
//! rule in shadow mode. An absent value is `-`.
//!
//! A transaction is `from= to= code= bytes=`. `code` is the deciding reply: to the end of data, otherwise to the recipients if
//! none was accepted, otherwise to MAIL if it was refused. A refused recipient has its own code in parentheses. `nrcpt=` is
//! the number of recipients if there are several. Several transactions follow each other with the same keys, so that
//! `grep 'to=<b@b.example>'` finds each of them; each starts with its number (`tx=2`), after their total (`transactions=`).

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::escape::{EscapeContext, push};
use super::session::{end, is_refusal};
use super::wording;
use super::{LogLevel, MAX_NOTICE};
use crate::engine::{Endpoint, Outcome, SessionRecord, TlsState, TransactionRecord};
use crate::time::Timestamp;

/// Bytes of one escaped value; the longest address of RFC 5321 fits (64 + 1 + 255).
const MAX_VALUE: usize = 320;
/// Transactions in one line; `transactions=` is their total.
const MAX_TRANSACTIONS: usize = 10;
/// Shadow rules in one line.
const MAX_SHADOWS: usize = 10;
/// Recipients of one transaction; `nrcpt=` is their total.
const MAX_RECIPIENTS: usize = 10;

/// One line with its line end.
pub(super) fn session(record: &SessionRecord) -> String {
    let mut line = String::with_capacity(512);
    write_session(&mut line, record);
    line.push('\n');
    line
}

/// One line with its line end: time, level, message.
pub(super) fn notice(at: Timestamp, level: LogLevel, message: &str) -> String {
    let mut line = format!("{at} {level} ");
    push(&mut line, message, EscapeContext::Sentence, MAX_NOTICE);
    line.push('\n');
    line
}

/// Appends to a string, which cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{ let _ = write!($out, $($arg)*); }};
}

fn write_session(line: &mut String, record: &SessionRecord) {
    let smtp = &record.smtp;
    put!(line, "{} session", end(record));
    put!(line, " family={}", record.family);
    put!(line, " client={}", socket(record.client));
    put!(line, " server={}", socket(record.server));
    match (record.upstream, &record.upstream_name) {
        (Some(upstream), _) => put!(line, " upstream={}", socket(upstream)),
        (None, Some(unix)) => {
            line.push_str(" upstream=");
            push(line, unix, EscapeContext::Word, MAX_VALUE);
        }
        (None, None) => line.push_str(" upstream=-"),
    }
    if let (Some(name), Some(_)) = (&record.upstream_name, record.upstream) {
        // Its characters need no escape.
        put!(line, " upstream_name={name}");
    }
    if let Some(listener) = &record.listener {
        // Its characters need no escape.
        put!(line, " listener={listener}");
    }
    if let Some(error) = &record.upstream_error {
        quoted(line, "upstream_error", error);
    }
    if let Some(version) = record.upstream_tls {
        put!(line, " upstream_tls={version}");
    }
    if let Some(greeting) = smtp.greeting.filter(|&code| code != 220) {
        put!(line, " greeting={greeting}");
    }
    line.push_str(" helo=");
    match smtp.helo.as_deref() {
        None => line.push('-'),
        Some("-") => line.push_str("\\x2d"),
        Some(helo) => push(line, helo, EscapeContext::Word, MAX_VALUE),
    }
    write_transactions(line, record);
    put!(line, " tls={}", smtp.tls);
    if smtp.starttls_hidden {
        line.push_str(" starttls=hidden");
    }
    if let Some(certificate) = &smtp.client_certificate {
        put!(line, " client_certificate=sha256:{}", certificate.sha256);
        for (i, name) in certificate.names.iter().enumerate() {
            line.push_str(if i == 0 { " certificate_names=" } else { "," });
            push(line, name, EscapeContext::Word, MAX_VALUE);
        }
        put!(line, " certificate_verified={}", if certificate.verified { "yes" } else { "no" });
    }
    if smtp.tls == TlsState::Started {
        // The rest of the session is encrypted.
        put!(line, " client_bytes={}", record.tcp.client_bytes);
        put!(line, " server_bytes={}", record.tcp.server_bytes);
    }
    if smtp.auth {
        line.push_str(" auth=yes");
    }
    put!(line, " duration={:.3}", record.duration.as_secs_f64());
    put!(line, " outcome={}", record.outcome);
    if let (Outcome::TlsCompleted | Outcome::TlsFailed, Some(side)) =
        (record.outcome, record.tcp.closed_by)
    {
        put!(line, " closed_by={}", wording::side(side));
    }
    for (i, anomaly) in smtp.anomalies.iter().enumerate() {
        line.push_str(if i == 0 { " anomalies=" } else { "," });
        line.push_str(anomaly.as_str());
    }
    put!(line, " verdict={}", record.verdict.action);
    for (key, value) in [("rule", &record.verdict.rule), ("reason", &record.verdict.reason)] {
        if let Some(value) = value {
            quoted(line, key, value);
        }
    }
    for shadow in record.verdict.shadow.iter().take(MAX_SHADOWS) {
        let reason = shadow.reason.as_deref().map_or_else(String::new, |why| format!(" for {why}"));
        quoted(line, "shadow", &format!("{} by {}{reason}", shadow.action, shadow.rule));
    }
}

fn quoted(line: &mut String, key: &str, value: &str) {
    put!(line, " {key}=\"");
    push(line, value, EscapeContext::Quoted, MAX_VALUE);
    line.push('"');
}

fn write_transactions(line: &mut String, record: &SessionRecord) {
    let smtp = &record.smtp;
    let several = smtp.transactions_total > 1 || smtp.transactions.len() > 1;
    if several {
        put!(line, " transactions={}", smtp.transactions_total);
    }
    for (i, transaction) in smtp.transactions.iter().take(MAX_TRANSACTIONS).enumerate() {
        if several {
            put!(line, " tx={}", i + 1);
        }
        write_transaction(line, transaction);
    }
}

fn write_transaction(line: &mut String, transaction: &TransactionRecord) {
    line.push_str(" from=<");
    push(line, &transaction.mail_from, EscapeContext::Word, MAX_VALUE);
    line.push_str("> to=");
    if transaction.rcpt_to.is_empty() {
        line.push('-');
    }
    for (i, recipient) in transaction.rcpt_to.iter().take(MAX_RECIPIENTS).enumerate() {
        line.push_str(if i == 0 { "<" } else { ",<" });
        push(line, &recipient.address, EscapeContext::Word, MAX_VALUE);
        line.push('>');
        if let Some(code) = recipient.code.filter(|&code| is_refusal(code)) {
            put!(line, "({code}");
            if let Some(enhanced) = recipient.enhanced {
                put!(line, "/{enhanced}");
            }
            line.push(')');
        }
    }
    if transaction.rcpt_total > 1 {
        put!(line, " nrcpt={}", transaction.rcpt_total);
    }
    match transaction.deciding_code() {
        Some(code) => put!(line, " code={code}"),
        None => line.push_str(" code=-"),
    }
    put!(line, " bytes={}", transaction.bytes);
    if let Some(id) = &transaction.queue_id {
        line.push_str(" queue_id=");
        push(line, id, EscapeContext::Word, MAX_VALUE);
    }
    if let Some(progress) = transaction.progress {
        put!(line, " progress={progress}");
    }
}

fn socket(endpoint: Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.address, endpoint.port)
}
