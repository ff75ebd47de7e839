//! What a rule may require, and how the fact is made.

use serde::{Deserialize, Serialize};

use super::{PolicyStage, Subject};
use crate::addr::{Family, Networks};
use crate::policy::facts::{
    Answers, Level, Over, ReturnPath, Step, fcrdns, helo_resolves, receive_path, recipient,
    return_path, reverse_name,
};

/// The facts by the names that rules and metrics use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactName {
    ReverseName,
    Fcrdns,
    HeloResolves,
    ReturnPath,
    Recipient,
    ReceivePath,
}

impl FactName {
    pub const ALL: [Self; 6] = [
        Self::ReverseName,
        Self::Fcrdns,
        Self::HeloResolves,
        Self::ReturnPath,
        Self::Recipient,
        Self::ReceivePath,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReverseName => "reverse_name",
            Self::Fcrdns => "fcrdns",
            Self::HeloResolves => "helo_resolves",
            Self::ReturnPath => "return_path",
            Self::Recipient => "recipient",
            Self::ReceivePath => "receive_path",
        }
    }

    /// When all that it is made from is known.
    pub const fn moment(self) -> PolicyStage {
        match self {
            Self::ReverseName | Self::Fcrdns | Self::ReceivePath => PolicyStage::Connect,
            Self::HeloResolves => PolicyStage::Helo,
            Self::ReturnPath => PolicyStage::Mail,
            Self::Recipient => PolicyStage::Rcpt,
        }
    }
}

/// One requirement: `"fcrdns"`, or `{ fact = "return_path", level = "smtp", over = "any" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Require {
    pub fact: FactName,
    /// Of the return path.
    pub level: Level,
    /// Of the return path.
    pub over: Over,
}

impl Require {
    /// The fact, or what it needs. What `subject` does not tell yet cannot be required: rules come no earlier than
    /// [`FactName::moment`], so that is as if the client had said nothing.
    pub(super) fn step(&self, subject: &Subject<'_>, ours: &Networks, known: &Answers) -> Step {
        let family = Family::of(subject.client);
        match self.fact {
            FactName::ReverseName => reverse_name(subject.client, known),
            FactName::Fcrdns => fcrdns(subject.client, known),
            FactName::HeloResolves => helo_resolves(subject.helo.unwrap_or_default(), known),
            FactName::ReturnPath => {
                let sender = subject.sender.unwrap_or_default();
                let (over, level) = (self.over, self.level);
                return_path(&ReturnPath { sender, family, over, level, ours }, known)
            }
            FactName::Recipient => recipient(subject.recipient.unwrap_or_default(), known),
            FactName::ReceivePath => receive_path(family, known),
        }
    }
}
