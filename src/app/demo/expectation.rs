//! The expected row of a client, compared with the replies it read, the gateway's record of the session and the messages
//! that the MTA stored.
//!
//! Layer 5.

use super::dialogue::ClientView;
use super::mailbox::StoredMessage;
use super::result::ClientResult;
use crate::addr::Family;
use crate::engine::{SessionRecord, TlsState};

/// The content that arrives at the MTA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    Nothing,
    /// One message with exactly this content.
    Exactly(Vec<u8>),
    /// One message that contains all of these.
    Containing(Vec<Vec<u8>>),
}

/// The expected columns of a row, and the expected message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expectation {
    pub family: Family,
    /// Destinations that refuse the connection before one accepts it.
    pub unreachable: usize,
    /// Inside TLS, for the client and for the gateway.
    pub tls: bool,
    /// Column REPLY.
    pub reply: &'static str,
    /// Column REASON.
    pub reason: &'static str,
    pub mail_from: &'static str,
    /// The recipients that are accepted.
    pub rcpt_to: Vec<&'static str>,
    pub delivered: Delivered,
}

/// The columns of a row, from evidence alone.
#[derive(Debug)]
pub(super) struct DemoRow {
    pub family: &'static str,
    pub reply: String,
    pub arrived: usize,
    pub reason: String,
}

impl DemoRow {
    pub(super) fn of(result: &ClientResult) -> Self {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let view = result.view.as_ref().ok();
        Self {
            family: view.map_or("-", |view| Family::of(view.server.ip()).as_str()),
            reply: or_dash(view.and_then(decisive_reply)),
            arrived: result.arrived.len(),
            reason: or_dash(view.and_then(|view| reason(view, result.record.as_ref()))),
        }
    }
}

impl Expectation {
    /// Each difference between expectation and result, for the operator.
    pub(super) fn differences(&self, result: &ClientResult) -> Vec<String> {
        let view = match &result.view {
            Ok(view) => view,
            Err(problem) => return vec![problem.clone()],
        };
        let mut differences: Vec<String> = view.problem.iter().cloned().collect();
        let mut compare = |what: &str, found: &str, expected: &str| {
            if found != expected {
                differences.push(format!("{what}: {found}, expected {expected}"));
            }
        };
        let row = DemoRow::of(result);
        compare("family", row.family, self.family.as_str());
        let unreachable = view.unreachable.len().to_string();
        compare("unreachable destinations", &unreachable, &self.unreachable.to_string());
        let by_gateway =
            result.record.as_ref().is_some_and(|record| record.smtp.tls == TlsState::Established);
        for (what, found) in [("TLS of the client", view.tls), ("TLS of the gateway", by_gateway)] {
            compare(what, yes_or_no(found), yes_or_no(self.tls));
        }
        if view.problem.is_none() {
            compare("reply", &row.reply, self.reply);
            compare("reason", &row.reason, self.reason);
        }
        let arrived = if self.delivered == Delivered::Nothing { "0" } else { "1" };
        compare("arrived", &row.arrived.to_string(), arrived);
        if let Some(message) = result.arrived.first() {
            differences.extend(self.message_differences(message));
        }
        differences
    }

    fn message_differences(&self, message: &StoredMessage) -> Vec<String> {
        let mut differences = Vec::new();
        if message.mail_from != self.mail_from || message.rcpt_to != self.rcpt_to {
            differences.push(format!(
                "arrived from {} for {}, expected from {} for {}",
                message.mail_from,
                message.rcpt_to.join(", "),
                self.mail_from,
                self.rcpt_to.join(", ")
            ));
        }
        match &self.delivered {
            Delivered::Nothing => {}
            Delivered::Exactly(content) => {
                if message.content != *content {
                    let same = message.content.iter().zip(content);
                    let same = same.take_while(|(a, b)| a == b).count();
                    differences.push(format!(
                        "{} bytes arrived, {} were sent; they differ from byte {same} on",
                        message.content.len(),
                        content.len()
                    ));
                }
            }
            Delivered::Containing(parts) => {
                for part in parts.iter().filter(|part| !message.contains(part)) {
                    let part = String::from_utf8_lossy(part);
                    differences.push(format!("{part:?} is missing from the message that arrived"));
                }
            }
        }
        differences
    }
}

const fn yes_or_no(answer: bool) -> &'static str {
    if answer { "yes" } else { "no" }
}

/// The last reply other than the one to QUIT.
fn decisive_reply(view: &ClientView) -> Option<String> {
    let mut replies = view.replies.iter().rev();
    replies.find(|reply| reply.code() != Some(221)).map(|reply| reply.codes())
}

/// Why the gateway or the MTA rejected something, with the rejection unless column REPLY shows it already; or what the
/// gateway noted without a rejection.
fn reason(view: &ClientView, record: Option<&SessionRecord>) -> Option<String> {
    let reason = match record {
        Some(record) => gateway_reason(record),
        None => Some("no record".to_owned()),
    };
    match view.rejection() {
        None => reason.map(|reason| format!("noted: {reason}")),
        Some(reply) => {
            let reason = reason.unwrap_or_else(|| "by the MTA".to_owned());
            let codes = reply.codes();
            let is_shown = decisive_reply(view).as_ref() == Some(&codes);
            Some(if is_shown { reason } else { format!("{codes} {reason}") })
        }
    }
}

/// The rule or the reason of the gateway's own verdict, else the anomalies that it noted.
fn gateway_reason(record: &SessionRecord) -> Option<String> {
    if let Some(rule) = &record.verdict.rule {
        return Some(rule.clone());
    }
    let anomalies = record.smtp.anomalies.iter().map(|anomaly| anomaly.as_str());
    let anomalies = anomalies.collect::<Vec<_>>().join(", ");
    let reason = record.verdict.reason.clone().unwrap_or(anomalies);
    (!reason.is_empty()).then(|| reason.replace('_', " "))
}
