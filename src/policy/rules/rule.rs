//! One `[[policy]]` rule, and its evaluation.

use std::sync::Arc;

use super::require::{FactName, Requirement};
use super::subject::{PolicyStage, Subject};
use super::when::{Exemption, When};
use crate::addr::Networks;
use crate::label::labels;
use crate::policy::PolicyAction;
use crate::policy::facts::{Answers, DomainName, Evaluation, Fact, FactState, Lookup, Reason};
use crate::smtp::{PathKind, Rerouting};

labels! {
    /// Whether a rule's verdict is enforced.
    #[derive(Default)]
    pub enum RuleMode {
        #[default]
        Enforce = "enforce",
        /// Evaluated and recorded, not enforced.
        Shadow = "shadow",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Shown in replies, logs and metrics.
    pub name: Arc<str>,
    /// The first stage at which the rule is evaluated; never before the facts and conditions that it uses are known.
    pub at: PolicyStage,
    pub when: When,
    pub exempt: Vec<Exemption>,
    /// The rule matches unless all of these hold; without any it always matches.
    pub require: Vec<Requirement>,
    pub otherwise: PolicyAction,
    /// The action if no requirement fails and one is unknown. Never [`PolicyAction::Reject`] (rule 6 of ARCHITECTURE.md).
    /// With [`PolicyAction::Accept`] the next rules decide.
    pub on_unknown: PolicyAction,
    pub mode: RuleMode,
    /// A page with more information, for the reply.
    pub url: Option<Arc<str>>,
}

/// A rule that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleMatch {
    pub rule: Arc<str>,
    pub action: PolicyAction,
    /// The requirement that did not hold; `None` for a rule without requirements.
    pub cause: Option<(FactName, Fact)>,
    pub url: Option<Arc<str>>,
}

impl RuleMatch {
    /// The failed requirement and its reason, `fcrdns.no_ptr`; `None` for a rule without requirements.
    pub fn reason(&self) -> Option<String> {
        let (name, fact) = self.cause.as_ref()?;
        let reason = fact.reason.map_or(fact.state.as_str(), Reason::as_str);
        Some(format!("{name}.{reason}"))
    }
}

pub(super) enum RuleEvaluation {
    NoMatch,
    NeedsLookups(Vec<Lookup>),
    Match(RuleMatch),
}

impl PolicyRule {
    /// `site`: the domains that the site accepts mail for.
    pub(super) fn applies(
        &self,
        stage: PolicyStage,
        subject: &Subject<'_>,
        site: &[DomainName],
    ) -> bool {
        // Without a recipient, as of a message that has several, nothing is decided about one.
        let has_subject = self.at != PolicyStage::Rcpt || subject.recipient.is_some();
        self.at <= stage
            && has_subject
            && self.when.matches(subject)
            && !self.exempt.iter().any(|exemption| exemption.matches(subject, site))
    }

    /// Whether the rule would decide in another way on a path that is rerouted. Conditions do; facts only for a route: they are
    /// about the domain as DNS and the mail server read it. Exemptions are for exact mailboxes of the site, which take none.
    pub(super) fn depends_on(&self, kind: PathKind, rerouting: Rerouting) -> bool {
        let (domains, uses): (_, fn(FactName) -> bool) = match kind {
            PathKind::Reverse => (&self.when.sender, FactName::uses_sender),
            PathKind::Forward => (&self.when.recipient, |fact| fact == FactName::Recipient),
        };
        let requires = || self.require.iter().any(|require| uses(require.fact));
        !domains.is_empty() || rerouting == Rerouting::Route && requires()
    }

    /// A fact that is unknown without the content of the message, where the action of the rule depends on that.
    pub fn needs_content(&self) -> Option<FactName> {
        let accepts = self.on_unknown == PolicyAction::Accept;
        let mut facts = self.require.iter().map(|require| require.fact);
        facts.find(|fact| match fact {
            FactName::Dkim | FactName::Dmarc => true,
            // Holds by SPF alone.
            FactName::Authenticated => !accepts,
            _ => false,
        })
    }

    pub(super) fn evaluate(
        &self,
        subject: &Subject<'_>,
        ours: &Networks,
        known: &Answers,
    ) -> RuleEvaluation {
        match self.when.client_certificate.state(subject, known.client_certificate()) {
            FactState::True => {}
            FactState::False => return RuleEvaluation::NoMatch,
            FactState::Unknown if self.on_unknown == PolicyAction::Accept => {
                return RuleEvaluation::NoMatch;
            }
            FactState::Unknown => {
                return RuleEvaluation::Match(self.matched(self.on_unknown, None));
            }
        }
        if self.require.is_empty() {
            return RuleEvaluation::Match(self.matched(self.otherwise, None));
        }
        let mut needed = Vec::new();
        let mut unknown = None;
        for requirement in &self.require {
            match requirement.evaluate(subject, ours, known) {
                Evaluation::NeedsLookups(lookups) => needed.extend(lookups),
                Evaluation::Known(fact) => match fact.state {
                    FactState::True => {}
                    // The reason is the first failure in the rule's order, not in the order of the answers.
                    FactState::False if !needed.is_empty() => break,
                    FactState::False => {
                        let cause = Some((requirement.fact, fact));
                        return RuleEvaluation::Match(self.matched(self.otherwise, cause));
                    }
                    FactState::Unknown => {
                        unknown.get_or_insert((requirement.fact, fact));
                    }
                },
            }
        }
        match unknown {
            _ if !needed.is_empty() => RuleEvaluation::NeedsLookups(needed),
            Some(cause) if self.on_unknown != PolicyAction::Accept => {
                RuleEvaluation::Match(self.matched(self.on_unknown, Some(cause)))
            }
            _ => RuleEvaluation::NoMatch,
        }
    }

    fn matched(&self, action: PolicyAction, cause: Option<(FactName, Fact)>) -> RuleMatch {
        RuleMatch { rule: Arc::clone(&self.name), action, cause, url: self.url.clone() }
    }
}
