//! What a sender's row claims, and the comparison with what happened: the gateway's record of the session and what the
//! MTA kept. (The replies are compared step by step while they are read.)
//!
//! Layer 5. A row is made from evidence only; where it differs from the claim, the difference is named.

use super::dialogue::Told;
use super::mailbox::Message;
use crate::addr::Family;
use crate::engine::{Anomaly, Endpoint, Outcome, Refusal, SessionRecord};

/// What arrives at the MTA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Arrives {
    Nothing,
    /// One message with exactly this content.
    Exactly(Vec<u8>),
    /// One message that holds all of these.
    Holding(Vec<Vec<u8>>),
}

/// One sender's row, before the fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub family: Family,
    /// Destinations that take no connection before one does.
    pub in_vain: usize,
    pub helo: Option<&'static str>,
    pub mail_from: &'static str,
    /// Each RCPT and its code.
    pub rcpt_to: Vec<(&'static str, u16)>,
    pub arrives: Arrives,
    pub outcome: Outcome,
    /// The access rule that decided.
    pub rule: Option<&'static str>,
    /// All of these are in the record; without any the record holds none.
    pub anomalies: &'static [Anomaly],
    /// What the gateway counts as its own refusal, at least once.
    pub refusal: Option<Refusal>,
}

impl Claim {
    /// How many messages arrive.
    pub(super) fn messages(&self) -> u64 {
        u64::from(self.arrives != Arrives::Nothing)
    }

    /// Every difference between the claim and what happened, in words; none: as claimed.
    ///
    /// `refusals` are those that the gateway counted during the session.
    pub(super) fn differences(
        &self,
        told: &Told,
        record: Option<&SessionRecord>,
        refusals: &[Refusal],
        arrived: &[Message],
    ) -> Vec<String> {
        let mut differences = told.problems.clone();
        let mut differ = |what: &str, found: String, claimed: String| {
            if found != claimed {
                differences.push(format!("{what}: {found}, not {claimed}"));
            }
        };
        let family = Family::of(told.peer.ip());
        differ("family", family.to_string(), self.family.to_string());
        differ("tried in vain", told.in_vain.len().to_string(), self.in_vain.to_string());
        differ("arrived", arrived.len().to_string(), self.messages().to_string());
        match record {
            Some(record) => self.compare_record(told, record, &mut differ),
            None => differ("session record", "none".to_owned(), "one".to_owned()),
        }
        let found = refusals.iter().map(|refusal| refusal.as_str());
        let mut found = found.collect::<Vec<_>>().join(", ");
        if found.is_empty() {
            found.push_str("none");
        }
        match self.refusal {
            Some(refusal) if refusals.contains(&refusal) => {}
            claimed => differ(
                "refusals counted",
                found,
                claimed.map_or("none".to_owned(), |refusal| refusal.to_string()),
            ),
        }
        if let Some(message) = arrived.first() {
            differences.extend(self.message_differences(message));
        }
        differences
    }

    fn compare_record(
        &self,
        told: &Told,
        record: &SessionRecord,
        differ: &mut impl FnMut(&str, String, String),
    ) {
        let at = |what: Endpoint| format!("{} port {}", what.address, what.port);
        differ("record: family", record.family.to_string(), self.family.to_string());
        differ("record: client", at(record.client), at(told.local.into()));
        differ("record: server", at(record.server), at(told.peer.into()));
        differ("record: outcome", record.outcome.to_string(), self.outcome.to_string());
        let or_none = |text: Option<&str>| text.unwrap_or("none").to_owned();
        differ("record: HELO", or_none(record.smtp.helo.as_deref()), or_none(self.helo));
        differ("record: rule", or_none(record.verdict.rule.as_deref()), or_none(self.rule));

        let missing = self.anomalies.iter().find(|a| !record.smtp.anomalies.contains(a));
        if missing.is_some() || self.anomalies.is_empty() {
            let words = |list: &[Anomaly]| {
                if list.is_empty() {
                    return "none".to_owned();
                }
                let list: Vec<_> = list.iter().map(|anomaly| anomaly.as_str()).collect();
                list.join(", ")
            };
            differ("record: anomalies", words(&record.smtp.anomalies), words(self.anomalies));
        }

        let accepted = |t: &&crate::engine::TransactionRecord| t.data_code == Some(250);
        let accepted = record.smtp.transactions.iter().filter(accepted).count();
        differ("record: messages", accepted.to_string(), self.messages().to_string());
        let found = record.smtp.transactions.iter().flat_map(|t| {
            let rcpt = t.rcpt_to.iter();
            rcpt.map(|rcpt| format!("{} {}", rcpt.address, rcpt.code.unwrap_or(0)))
        });
        let claimed = self.rcpt_to.iter().map(|(address, code)| format!("{address} {code}"));
        differ(
            "record: recipients",
            found.collect::<Vec<_>>().join(", "),
            claimed.collect::<Vec<_>>().join(", "),
        );
    }

    fn message_differences(&self, message: &Message) -> Vec<String> {
        let mut differences = Vec::new();
        let accepted = self.rcpt_to.iter().filter(|(_, code)| *code == 250);
        let accepted: Vec<_> = accepted.map(|(address, _)| *address).collect();
        if message.mail_from != self.mail_from || message.rcpt_to != accepted {
            differences.push(format!(
                "arrived from {} for {}, not from {} for {}",
                message.mail_from,
                message.rcpt_to.join(", "),
                self.mail_from,
                accepted.join(", ")
            ));
        }
        match &self.arrives {
            Arrives::Nothing => {}
            Arrives::Exactly(content) => {
                if message.content != *content {
                    let same = message.content.iter().zip(content);
                    let same = same.take_while(|(a, b)| a == b).count();
                    differences.push(format!(
                        "{} octets arrived, not the {} sent; they differ from octet {same} on",
                        message.content.len(),
                        content.len()
                    ));
                }
            }
            Arrives::Holding(pieces) => {
                for piece in pieces.iter().filter(|piece| !message.contains(piece)) {
                    let piece = String::from_utf8_lossy(piece);
                    differences.push(format!("{piece:?} is not in what arrived"));
                }
            }
        }
        differences
    }
}
