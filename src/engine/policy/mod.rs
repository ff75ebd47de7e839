//! A session's decisions: the checks that need no lookup, the policy rules, and the verdict that both lead to.

pub(super) mod checks;
mod delegated;
pub(super) mod evaluator;
mod fault;
pub(super) mod header;
mod outcome;
mod replay;

pub use self::delegated::{
    AskedAt, DelegatedQuestion, DelegatedReply, DelegatedSession, external_path,
};
pub use self::replay::{Evaluated, evaluate_record};
use super::options::{Profile, RefuseAt};
use crate::policy::facts::{Fact, FactState, Facts};
use crate::policy::rules::{FactName, PolicyStage, RuleMatch, RuleMode};

/// The reply to a recipient for whom other rules are decided at the end of the message than for those before: one reply could
/// not be right for both.
pub(super) const OTHER_RULES_AT_END: &str =
    "other rules apply to this recipient; send it the message separately";

/// Whether the greeting waits for the rules: some rule in force can reject the client in its place.
pub(super) fn decides_at_connect(profile: &Profile) -> bool {
    profile.smtp.refuse_at == RefuseAt::Connect
        && profile
            .rules
            .iter()
            .any(|rule| rule.at == PolicyStage::Connect && rule.mode == RuleMode::Enforce)
}

/// An unknown fact never leads to a 5xx, whatever the rule (rule 6 of ARCHITECTURE.md).
fn capped(mut matched: RuleMatch) -> RuleMatch {
    let unknown = |(_, fact): &(FactName, Fact)| fact.state == FactState::Unknown;
    if matched.cause.as_ref().is_some_and(unknown) {
        matched.action = matched.action.min(crate::policy::PolicyAction::Tempfail);
    }
    matched
}

/// Of several facts of one name, the heaviest is reported.
const fn weight(fact: &Fact) -> u8 {
    match fact.state {
        FactState::True => 0,
        FactState::Unknown => 1,
        FactState::False => 2,
    }
}

const fn fact_slot(facts: &mut Facts, name: FactName) -> &mut Option<Fact> {
    match name {
        FactName::ReverseName => &mut facts.reverse_name,
        FactName::Fcrdns => &mut facts.fcrdns,
        FactName::HeloResolves => &mut facts.helo_resolves,
        FactName::ReturnPath => &mut facts.return_path,
        FactName::Recipient => &mut facts.recipient,
        FactName::ReceivePath => &mut facts.receive_path,
        FactName::Spf => &mut facts.spf,
        FactName::Dkim => &mut facts.dkim,
        FactName::Dmarc => &mut facts.dmarc,
        FactName::Authenticated => &mut facts.authenticated,
    }
}
