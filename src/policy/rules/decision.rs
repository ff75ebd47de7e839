//! All `[[policy]]` rules together, and their decision.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::require::FactName;
use super::rule::{PolicyRule, RuleEvaluation, RuleMatch, RuleMode};
use super::subject::{PolicyStage, Subject};
use crate::addr::Networks;
use crate::policy::PolicyAction;
use crate::policy::facts::{
    Answers, DomainName, Evaluation, Fact, FactState, Lookup, MessageNeeds,
};
use crate::smtp::{PathKind, Rerouting};

/// The decision with the answers available so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The decision of the enforced rules: the inner `None` is accept because no rule matched, the outer `None` means that
    /// it depends on [`Self::need`].
    pub enforced: Option<Option<RuleMatch>>,
    /// Matches of shadow rules, as far as known.
    pub shadow: Vec<RuleMatch>,
    /// Pending lookups, each once. If [`Self::enforced`] is decided, only shadow rules need them.
    pub need: Vec<Lookup>,
}

/// The `[[policy]]` rules in file order, and what all of them use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRules {
    rules: Vec<PolicyRule>,
    /// Our own addresses: mail that would return to us reaches no sender.
    ours: Networks,
    /// The domains that the site accepts mail for, for exemptions.
    site: Vec<DomainName>,
}

impl PolicyRules {
    pub fn new(rules: Vec<PolicyRule>, ours: Networks) -> Self {
        Self { rules, ours, site: Vec::new() }
    }

    /// With the domains that the site accepts mail for.
    #[must_use]
    pub fn with_site_domains(self, site: Vec<DomainName>) -> Self {
        Self { site, ..self }
    }

    /// Whether a rule in force for this client would decide in another way on a path that is rerouted.
    pub fn depend_on(&self, kind: PathKind, rerouting: Rerouting, client: IpAddr) -> bool {
        self.rules.iter().any(|rule| {
            rule.mode == RuleMode::Enforce
                && rule.depends_on(kind, rerouting)
                && rule.when.matches_client(client)
        })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &PolicyRule> {
        self.rules.iter()
    }

    /// Whether a rule has a condition on the client's certificate.
    pub fn use_client_certificate(&self) -> bool {
        self.rules.iter().any(|rule| !rule.when.client_certificate.is_empty())
    }

    /// Whether a rule is decided at `stage` first.
    pub fn have_stage(&self, stage: PolicyStage) -> bool {
        self.rules.iter().any(|rule| rule.at == stage)
    }

    /// Whether an enforced rule may tag a message.
    pub fn may_tag(&self) -> bool {
        let tags =
            |rule: &PolicyRule| [rule.otherwise, rule.on_unknown].contains(&PolicyAction::Tag);
        self.rules.iter().any(|rule| rule.mode == RuleMode::Enforce && tags(rule))
    }

    /// Whether a rule is decided at the end of a message to the subject's recipient, also in shadow mode.
    pub fn decide_at_end(&self, subject: &Subject<'_>) -> bool {
        self.applicable_at_end(subject).next().is_some()
    }

    /// What the rules that are decided at the end of a message to the subject's recipient need of it; `None` without such a rule.
    pub fn needs_at_end(&self, subject: &Subject<'_>) -> Option<MessageNeeds> {
        let mut rules = self.applicable_at_end(subject).peekable();
        rules.peek()?;
        let mut needs = MessageNeeds::default();
        for fact in rules.flat_map(|rule| &rule.require).map(|require| require.fact) {
            needs.keys |=
                matches!(fact, FactName::Dkim | FactName::Dmarc | FactName::Authenticated);
            needs.policies |= fact == FactName::Dmarc;
        }
        Some(needs)
    }

    fn applicable_at_end(&self, subject: &Subject<'_>) -> impl Iterator<Item = &PolicyRule> {
        self.rules.iter().filter(move |rule| {
            rule.at == PolicyStage::Data && rule.applies(PolicyStage::Data, subject, &self.site)
        })
    }

    /// The rules that decide at the end of a message to the subject's recipient, one bit for each: those up to the last in force
    /// at [`PolicyStage::Data`], as the first match decides. Of more than 64 rules the first 64.
    pub fn rules_at_end(&self, subject: &Subject<'_>) -> u64 {
        let decides =
            |rule: &&PolicyRule| rule.at == PolicyStage::Data && rule.mode == RuleMode::Enforce;
        if !self.rules.iter().any(|rule| decides(&rule)) {
            return 0; // The usual case, for every recipient.
        }
        let rules = (0..u64::BITS).zip(&self.rules);
        let applies = |rule: &PolicyRule| rule.applies(PolicyStage::Data, subject, &self.site);
        let applicable: Vec<_> = rules.filter(|(_, rule)| applies(rule)).collect();
        let Some(last) = applicable.iter().rposition(|(_, rule)| decides(rule)) else { return 0 };
        applicable.iter().take(last + 1).fold(0, |bits, (bit, _)| bits | 1 << bit)
    }

    /// The facts required by the rules at `stage`, as far as known. A fact that several rules require is repeated.
    pub fn facts<'a>(
        &'a self,
        stage: PolicyStage,
        subject: &'a Subject<'_>,
        known: &'a Answers,
    ) -> impl Iterator<Item = (FactName, Fact)> + 'a {
        let applicable = self.rules.iter().filter(move |rule| {
            let presented = known.client_certificate();
            rule.applies(stage, subject, &self.site)
                && rule.when.client_certificate.state(subject, presented) == FactState::True
        });
        let required = applicable.flat_map(|rule| &rule.require);
        required.filter_map(move |require| match require.evaluate(subject, &self.ours, known) {
            Evaluation::Known(fact) => Some((require.fact, fact)),
            Evaluation::NeedsLookups(_) => None,
        })
    }

    /// The decision of the rules that apply at `stage`. The first enforced match decides.
    pub fn decide(&self, stage: PolicyStage, subject: &Subject<'_>, known: &Answers) -> Decision {
        let mut decision = Decision::default();
        let mut need = BTreeSet::new();
        let mut pending = false;
        for rule in self.rules.iter().filter(|rule| rule.applies(stage, subject, &self.site)) {
            match rule.evaluate(subject, &self.ours, known) {
                RuleEvaluation::NoMatch => {}
                RuleEvaluation::NeedsLookups(lookups) => {
                    need.extend(lookups);
                    pending |= rule.mode == RuleMode::Enforce;
                }
                RuleEvaluation::Match(matched) if rule.mode == RuleMode::Shadow => {
                    decision.shadow.push(matched);
                }
                // The rules after this one cannot change the decision, so their lookups are not needed.
                RuleEvaluation::Match(matched) => {
                    if !pending {
                        decision.enforced = Some(Some(matched));
                    }
                    break;
                }
            }
        }
        if !pending && decision.enforced.is_none() {
            decision.enforced = Some(None);
        }
        decision.need = need.into_iter().collect();
        decision
    }
}
