//! The outcome of the policy rules in one session, merged into its verdict. The live evaluator and the evaluation of a record
//! share it, so that both give the same verdict.

use std::cmp::Ordering;

use crate::engine::event::Refusal;
use crate::engine::record::{ShadowRecord, VerdictRecord};
use crate::policy::PolicyAction;
use crate::policy::rules::RuleMatch;

/// The strictest match that was enforced, and the matches of rules in shadow mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct PolicyOutcome {
    strictest: Option<RuleMatch>,
    /// Each rule once.
    shadow: Vec<RuleMatch>,
}

impl PolicyOutcome {
    /// `matched` was enforced. Of several that are equally strict the first counts.
    pub(in crate::engine) fn enforced(&mut self, matched: &RuleMatch) {
        if self.strictest.as_ref().is_none_or(|strictest| matched.action > strictest.action) {
            self.strictest = Some(matched.clone());
        }
    }

    /// A rule in shadow mode matched.
    pub(in crate::engine) fn in_shadow(&mut self, matched: &RuleMatch) {
        match self.shadow.iter_mut().find(|known| known.rule == matched.rule) {
            Some(known) if matched.action > known.action => *known = matched.clone(),
            Some(_) => {}
            None => self.shadow.push(matched.clone()),
        }
    }

    /// The verdict of the session, where `verdict` is that of everything but policy rules. Only a stricter action replaces
    /// it, so the order of the two does not matter.
    #[must_use]
    pub(in crate::engine) fn apply_to(&self, mut verdict: VerdictRecord) -> VerdictRecord {
        if let Some(matched) = &self.strictest {
            match matched.action.cmp(&verdict.action) {
                Ordering::Greater => {
                    verdict.action = matched.action;
                    verdict.rule = Some(matched.rule.to_string());
                    verdict.reason = matched.reason();
                }
                // The rule's rejections led to the limit.
                Ordering::Equal if is_error_limit(&verdict) => {
                    verdict.rule = Some(matched.rule.to_string());
                    verdict.reason = matched.reason();
                }
                // The reason stays: it is why a session ended that no rule rejected.
                Ordering::Equal if matched.action == PolicyAction::Accept => {
                    verdict.rule.get_or_insert_with(|| matched.rule.to_string());
                }
                Ordering::Equal | Ordering::Less => {}
            }
        }
        verdict.shadow = self.shadow.iter().map(ShadowRecord::from).collect();
        verdict
    }
}

fn is_error_limit(verdict: &VerdictRecord) -> bool {
    verdict.reason.as_deref() == Some(Refusal::LimitErrors.as_str())
}

impl From<&RuleMatch> for ShadowRecord {
    fn from(matched: &RuleMatch) -> Self {
        Self { rule: matched.rule.to_string(), action: matched.action, reason: matched.reason() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::facts::{Fact, FactState, Reason, Source};
    use crate::policy::rules::FactName;

    fn matched(rule: &str, action: PolicyAction, reason: Option<Reason>) -> RuleMatch {
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
        let mut outcome = PolicyOutcome::default();
        let untouched = verdict(PolicyAction::Accept, None, Some("timeout"));
        assert_eq!(outcome.apply_to(untouched.clone()), untouched);
        outcome.enforced(&matched("let in", PolicyAction::Accept, None));
        let expected = verdict(PolicyAction::Accept, Some("let in"), Some("timeout"));
        assert_eq!(outcome.apply_to(untouched.clone()), expected);
        outcome.enforced(&matched("a", PolicyAction::Tempfail, Some(Reason::NoPtr)));
        outcome.enforced(&matched("b", PolicyAction::Tempfail, Some(Reason::NotConfirmed)));
        outcome.enforced(&matched("c", PolicyAction::Tag, None));
        let expected = verdict(PolicyAction::Tempfail, Some("a"), Some("fcrdns.no_ptr"));
        assert_eq!(outcome.apply_to(untouched), expected);
        let access = verdict(PolicyAction::Tempfail, Some("listed"), Some("access_tempfail"));
        assert_eq!(outcome.apply_to(access.clone()), access);
        let limit = verdict(PolicyAction::Reject, None, Some("bare_newline"));
        assert_eq!(outcome.apply_to(limit.clone()), limit);
    }

    #[test]
    fn each_rule_in_shadow_is_there_once_at_its_strictest() {
        let mut outcome = PolicyOutcome::default();
        outcome.in_shadow(&matched("a", PolicyAction::Tempfail, Some(Reason::Timeout)));
        outcome.in_shadow(&matched("b", PolicyAction::Tag, None));
        outcome.in_shadow(&matched("a", PolicyAction::Reject, Some(Reason::NoPtr)));
        outcome.in_shadow(&matched("a", PolicyAction::Tempfail, Some(Reason::Timeout)));
        let found = outcome.apply_to(verdict(PolicyAction::Accept, None, None));
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
