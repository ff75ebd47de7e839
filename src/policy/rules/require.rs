//! Requirements of a rule, and the evaluation of their facts.

use super::subject::{PolicyStage, Subject};
use crate::addr::{Family, Networks};
use crate::label::labels;
use crate::policy::facts::{
    Answers, Evaluation, FamilyRequirement, ReturnPathCheck, ReturnPathLevel, fcrdns,
    helo_resolves, receive_path, recipient, return_path, reverse_name, spf,
};

labels! {
    /// The facts by their names in rules and metrics.
    pub enum FactName {
        ReverseName = "reverse_name",
        Fcrdns = "fcrdns",
        HeloResolves = "helo_resolves",
        ReturnPath = "return_path",
        Recipient = "recipient",
        ReceivePath = "receive_path",
        Spf = "spf",
    }
}

impl FactName {
    /// The first stage at which its inputs are known.
    pub const fn stage(self) -> PolicyStage {
        match self {
            Self::ReverseName | Self::Fcrdns | Self::ReceivePath => PolicyStage::Connect,
            Self::HeloResolves => PolicyStage::Helo,
            Self::ReturnPath | Self::Spf => PolicyStage::Mail,
            Self::Recipient => PolicyStage::Rcpt,
        }
    }
}

/// `"fcrdns"`, or `{ fact = "return_path", level = "smtp", over = "any" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub fact: FactName,
    /// Of the return path.
    pub level: ReturnPathLevel,
    /// Of the return path.
    pub over: FamilyRequirement,
}

impl Requirement {
    /// Inputs that `subject` lacks count as empty; rules are not evaluated before [`FactName::stage`].
    pub(super) fn evaluate(
        &self,
        subject: &Subject<'_>,
        ours: &Networks,
        known: &Answers,
    ) -> Evaluation {
        let family = Family::of(subject.client);
        match self.fact {
            FactName::ReverseName => reverse_name(subject.client, known),
            FactName::Fcrdns => fcrdns(subject.client, known),
            FactName::HeloResolves => helo_resolves(subject.helo.unwrap_or_default(), known),
            FactName::ReturnPath => {
                let sender = subject.sender.unwrap_or_default();
                let (over, level) = (self.over, self.level);
                return_path(&ReturnPathCheck { sender, family, over, level, ours }, known)
            }
            FactName::Recipient => recipient(subject.recipient.unwrap_or_default(), known),
            FactName::ReceivePath => receive_path(family, known),
            FactName::Spf => {
                let sender = subject.sender.unwrap_or_default();
                spf::spf(subject.client, subject.helo.unwrap_or_default(), sender, known)
            }
        }
    }
}
