//! What the recipient of a canary reports.

use serde::{Deserialize, Serialize};

use super::judgement::{HeaderJudgement, unfold};
use super::marks::MarkRules;
use super::token::{CanaryToken, NotACanary};
use crate::dkim::HeaderFields;
use crate::hmac_key::HmacKey;
use crate::time::Timestamp;

/// Limit of a report as JSON, in bytes.
pub const MAX_REPORT: usize = 16 * 1024;

/// A message that passed the gateway and may be a canary; whoever has the key knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedMessage {
    pub message_id: String,
    /// Its header section at that moment.
    pub judgement: HeaderJudgement,
}

impl PassedMessage {
    /// `None` if its Message-ID has not the form of a canary's.
    pub fn of(fields: HeaderFields<'_>, rules: &MarkRules) -> Option<Self> {
        let mut ids = fields.clone().filter(|field| field.is_named("Message-ID"));
        let message_id = ids.next().map(|field| unfold(field.value))?;
        let pair = CanaryToken::pair_of(&message_id)?;
        Some(Self { message_id, judgement: HeaderJudgement::of(fields, pair, rules) })
    }
}

/// A canary that was received. It holds the Message-ID, so that whoever has the key can check that the canary was one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryReport {
    pub message_id: String,
    pub recipient: String,
    pub received: Timestamp,
    pub judgement: HeaderJudgement,
}

impl CanaryReport {
    /// Reports on the message with these fields, with the token if it is a canary for `recipient`.
    ///
    /// # Errors
    /// The message is no canary of this key and recipient.
    pub fn of(
        fields: HeaderFields<'_>,
        recipient: &str,
        key: &HmacKey,
        rules: &MarkRules,
        now: Timestamp,
    ) -> Result<(CanaryToken, Self), NotACanary> {
        let mut ids = fields.clone().filter(|field| field.is_named("Message-ID"));
        let message_id = ids.next().map(|field| unfold(field.value)).ok_or(NotACanary::Form)?;
        let token = CanaryToken::recognise(&message_id, recipient, key, now)?;
        let judgement = HeaderJudgement::of(fields, token.pair, rules);
        let recipient = recipient.to_owned();
        Ok((token, Self { message_id, recipient, received: now, judgement }))
    }

    /// The canary that the report is about.
    ///
    /// # Errors
    /// There is none of this key, or it is too old.
    pub fn token(&self, key: &HmacKey, now: Timestamp) -> Result<CanaryToken, NotACanary> {
        CanaryToken::recognise(&self.message_id, &self.recipient, key, now)
    }
}
