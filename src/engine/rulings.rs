//! What the policy rules came to in one session, for its verdict: the relay's engine and the review of a recorded session
//! put it together here, so that both say the same.

use std::cmp::Ordering;

use super::{ShadowRecord, VerdictRecord};
use crate::policy::PolicyAction;
use crate::policy::rules::RuleMatch;

/// The strictest ruling that was carried out, and what rules in shadow would have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyOutcome {
    strictest: Option<RuleMatch>,
    /// Each rule once.
    shadow: Vec<RuleMatch>,
}

impl PolicyOutcome {
    /// The client was treated as `fired` says. Of several that are equally strict the first counts.
    pub fn told(&mut self, fired: &RuleMatch) {
        if self.strictest.as_ref().is_none_or(|strictest| fired.action > strictest.action) {
            self.strictest = Some(fired.clone());
        }
    }

    /// It would have been, by a rule in shadow.
    pub fn in_shadow(&mut self, fired: &RuleMatch) {
        match self.shadow.iter_mut().find(|known| known.rule == fired.rule) {
            Some(known) if fired.action > known.action => *known = fired.clone(),
            Some(_) => {}
            None => self.shadow.push(fired.clone()),
        }
    }

    /// The verdict of the session, where `verdict` is what everything but policy rules came to. Only what is stricter
    /// replaces it, so it does not matter which of the two was first.
    #[must_use]
    pub fn onto(&self, mut verdict: VerdictRecord) -> VerdictRecord {
        if let Some(fired) = &self.strictest {
            match fired.action.cmp(&verdict.action) {
                Ordering::Greater => {
                    verdict.action = fired.action;
                    verdict.rule = Some(fired.rule.to_string());
                    verdict.reason = fired.reason();
                }
                // Not over the reason why a session ended that nobody refused.
                Ordering::Equal if fired.action == PolicyAction::Accept => {
                    verdict.rule.get_or_insert_with(|| fired.rule.to_string());
                }
                Ordering::Equal | Ordering::Less => {}
            }
        }
        verdict.shadow = self.shadow.iter().map(ShadowRecord::from).collect();
        verdict
    }
}

impl From<&RuleMatch> for ShadowRecord {
    fn from(fired: &RuleMatch) -> Self {
        Self { rule: fired.rule.to_string(), action: fired.action, reason: fired.reason() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::facts::{Fact, FactState, Reason, Source};
    use crate::policy::rules::FactName;

    fn fired(rule: &str, action: PolicyAction, reason: Option<Reason>) -> RuleMatch {
        let fact = |reason| Fact {
            state: FactState::False,
            reason: Some(reason),
            source: Source::Dns,
            detail: None,
            at: None,
        };
        let cause = reason.map(|reason| (FactName::Fcrdns, fact(reason)));
        RuleMatch { rule: rule.into(), action, cause, url: None }
    }

    fn verdict(action: PolicyAction, rule: Option<&str>, reason: Option<&str>) -> VerdictRecord {
        let (rule, reason) = (rule.map(str::to_owned), reason.map(str::to_owned));
        VerdictRecord { action, rule, reason, shadow: Vec::new() }
    }

    #[test]
    fn the_strictest_counts_and_of_equals_the_first() {
        let mut rulings = PolicyOutcome::default();
        let untouched = verdict(PolicyAction::Accept, None, Some("timeout"));
        assert_eq!(rulings.onto(untouched.clone()), untouched);
        rulings.told(&fired("let in", PolicyAction::Accept, None));
        let told = verdict(PolicyAction::Accept, Some("let in"), Some("timeout"));
        assert_eq!(rulings.onto(untouched.clone()), told);
        rulings.told(&fired("a", PolicyAction::Tempfail, Some(Reason::NoPtr)));
        rulings.told(&fired("b", PolicyAction::Tempfail, Some(Reason::NotConfirmed)));
        rulings.told(&fired("c", PolicyAction::Tag, None));
        let told = verdict(PolicyAction::Tempfail, Some("a"), Some("fcrdns.no_ptr"));
        assert_eq!(rulings.onto(untouched), told);
        let access = verdict(PolicyAction::Tempfail, Some("listed"), Some("access_tempfail"));
        assert_eq!(rulings.onto(access.clone()), access);
        let limit = verdict(PolicyAction::Reject, None, Some("bare_newline"));
        assert_eq!(rulings.onto(limit.clone()), limit);
    }

    #[test]
    fn each_rule_in_shadow_is_there_once_at_its_strictest() {
        let mut rulings = PolicyOutcome::default();
        rulings.in_shadow(&fired("a", PolicyAction::Tempfail, Some(Reason::Timeout)));
        rulings.in_shadow(&fired("b", PolicyAction::Tag, None));
        rulings.in_shadow(&fired("a", PolicyAction::Reject, Some(Reason::NoPtr)));
        rulings.in_shadow(&fired("a", PolicyAction::Tempfail, Some(Reason::Timeout)));
        let found = rulings.onto(verdict(PolicyAction::Accept, None, None));
        let shadow = |rule: &str, action, reason: Option<&str>| {
            let (rule, reason) = (rule.to_owned(), reason.map(str::to_owned));
            ShadowRecord { rule, action, reason }
        };
        assert_eq!(
            found.shadow,
            [
                shadow("a", PolicyAction::Reject, Some("fcrdns.no_ptr")),
                shadow("b", PolicyAction::Tag, None)
            ]
        );
        assert_eq!((found.action, found.rule), (PolicyAction::Accept, None));
    }
}
