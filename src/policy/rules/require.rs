//! Requirements of a rule, and the evaluation of their facts.

use super::subject::{PolicyStage, Subject};
use crate::addr::{Family, Networks};
use crate::label::labels;
use crate::policy::facts::dmarc::{DmarcCheck, DmarcPolicy, dmarc};
use crate::policy::facts::spf::{SpfArguments, SpfLevel, spf};
use crate::policy::facts::{
    Answers, Evaluation, FamilyRequirement, ReturnPathCheck, ReturnPathLevel, authenticated, dkim,
    fcrdns, helo_resolves, receive_path, recipient, return_path, reverse_name,
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
        Dkim = "dkim",
        Dmarc = "dmarc",
        Authenticated = "authenticated",
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
            Self::Dkim | Self::Dmarc | Self::Authenticated => PolicyStage::Data,
        }
    }

    /// Whether it depends on the domain of MAIL FROM.
    pub const fn uses_sender(self) -> bool {
        matches!(self, Self::ReturnPath | Self::Spf | Self::Dmarc | Self::Authenticated)
    }
}

/// `"fcrdns"`, or `{ fact = "return_path", level = "smtp", over = "any" }`. Options of other facts have no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub fact: FactName,
    /// Of the return path.
    pub level: ReturnPathLevel,
    /// Of the return path.
    pub over: FamilyRequirement,
    /// Of SPF.
    pub spf: SpfLevel,
    /// Of DMARC: the weakest policy that a message may not violate.
    pub policy: DmarcPolicy,
}

impl Requirement {
    /// With the defaults of all options.
    pub const fn new(fact: FactName) -> Self {
        Self {
            fact,
            level: ReturnPathLevel::Dns,
            over: FamilyRequirement::Any,
            spf: SpfLevel::Pass,
            policy: DmarcPolicy::Quarantine,
        }
    }

    /// Inputs that `subject` lacks count as empty; rules are not evaluated before [`FactName::stage`].
    pub(super) fn evaluate(
        &self,
        subject: &Subject<'_>,
        ours: &Networks,
        known: &Answers,
    ) -> Evaluation {
        let family = Family::of(subject.client);
        let (helo, sender) = (subject.helo.unwrap_or_default(), subject.sender.unwrap_or_default());
        let arguments = SpfArguments { client: subject.client, helo, sender };
        match self.fact {
            FactName::ReverseName => reverse_name(subject.client, known),
            FactName::Fcrdns => fcrdns(subject.client, known),
            FactName::HeloResolves => helo_resolves(helo, known),
            FactName::ReturnPath => {
                let (over, level) = (self.over, self.level);
                return_path(&ReturnPathCheck { sender, family, over, level, ours }, known)
            }
            FactName::Recipient => recipient(subject.recipient.unwrap_or_default(), known),
            FactName::ReceivePath => receive_path(family, known),
            FactName::Spf => spf(arguments, self.spf, known),
            FactName::Dkim => dkim(subject.message, known),
            FactName::Dmarc => {
                let (message, policy) = (subject.message, self.policy);
                dmarc(&DmarcCheck { spf: arguments, message, policy }, known)
            }
            FactName::Authenticated => authenticated(arguments, subject.message, known),
        }
    }
}
