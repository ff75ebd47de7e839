//! `[[policy]]` rules: facts to a verdict, in file order, the first that fires wins.
//!
//! [`PolicyRules::decide`] is pure. What it lacks it asks for, and it is asked again with the answers; so the relay, which waits
//! for them, and a replay, which has them, run the same rules.
//!
//! A rule looks at a session from its [`PolicyStage`] on. A refusal is told at RCPT, where the envelope is known and the
//! exemptions too, unless `smtp.refuse_at` or STARTTLS make it come earlier.

mod require;
mod when;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use self::require::{FactName, Requirement};
pub use self::when::{Domains, Exemption, When};
use super::PolicyAction;
use super::facts::{Answers, Evaluation, Fact, FactState, Lookup, Reason};
use crate::addr::Networks;
use crate::label::labels;

labels! {
    /// How far a session is, from its beginning on.
    #[derive(Default)]
    pub enum PolicyStage {
        /// The client's address is known.
        #[default]
        Connect = "connect",
        /// Its HELO or EHLO name too.
        Helo = "helo",
        /// And MAIL FROM.
        Mail = "mail",
        /// And one RCPT TO.
        Rcpt = "rcpt",
    }
}

labels! {
    /// Whether a rule's verdict is carried out.
    #[derive(Default)]
    pub enum RuleMode {
        #[default]
        Enforce = "enforce",
        /// Evaluated and recorded, not enforced.
        Shadow = "shadow",
    }
}

/// One `[[policy]]` rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRule {
    /// Shown in replies, logs and metrics.
    pub name: Arc<str>,
    /// From when on it can be decided: never before what it looks at is known.
    pub at: PolicyStage,
    pub when: When,
    /// Whom it leaves alone.
    pub exempt: Vec<Exemption>,
    /// It fires unless all of these hold; one without any fires always.
    pub require: Vec<Requirement>,
    pub otherwise: PolicyAction,
    /// When no requirement fails and one is unknown. Never [`PolicyAction::Reject`]. [`PolicyAction::Accept`] lets the rules after it
    /// decide.
    pub on_unknown: PolicyAction,
    pub mode: RuleMode,
    /// Where people read more; told in replies.
    pub url: Option<Arc<str>>,
}

/// What a rule may know of a session: what is not known yet is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    pub client: IpAddr,
    /// Where the client connected to.
    pub listener: SocketAddr,
    pub helo: Option<&'a str>,
    /// The reverse-path without brackets; empty for `<>`.
    pub sender: Option<&'a str>,
    pub recipient: Option<&'a str>,
    pub tls: bool,
    pub authenticated: bool,
}

/// A rule that fired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleMatch {
    pub rule: Arc<str>,
    pub action: PolicyAction,
    /// The requirement that did not hold; `None` for a rule without any.
    pub cause: Option<(FactName, Fact)>,
    pub url: Option<Arc<str>>,
}

impl RuleMatch {
    /// The requirement and why it does not hold, `fcrdns.no_ptr`; `None` for a rule without any.
    pub fn reason(&self) -> Option<String> {
        let (name, fact) = self.cause.as_ref()?;
        let reason = fact.reason.map_or(fact.state.as_str(), Reason::as_str);
        Some(format!("{}.{reason}", name.as_str()))
    }
}

/// What is decided so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// What the rules in force say; inner `None` is accept because none fired. Outer `None`: some of [`Self::need`] is
    /// wanted first.
    pub ruling: Option<Option<RuleMatch>>,
    /// What rules in shadow would have done, as far as that is known.
    pub shadow: Vec<RuleMatch>,
    /// What is to be looked up, each once. With a ruling it is only rules in shadow that want it.
    pub need: Vec<Lookup>,
}

/// The `[[policy]]` rules in file order, and what they all need to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyRules {
    rules: Vec<PolicyRule>,
    /// Our own addresses: mail that would come back to us reaches no sender.
    ours: Networks,
}

impl PolicyRules {
    pub fn new(rules: Vec<PolicyRule>, ours: Networks) -> Self {
        Self { rules, ours }
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &PolicyRule> {
        self.rules.iter()
    }

    /// Whether one of them may tag a message.
    pub fn tags(&self) -> bool {
        let tags =
            |rule: &PolicyRule| [rule.otherwise, rule.on_unknown].contains(&PolicyAction::Tag);
        self.rules.iter().any(|rule| rule.mode == RuleMode::Enforce && tags(rule))
    }

    /// The facts that the rules at `moment` build on, as far as they are known; a fact that several build on comes as often.
    pub fn facts<'a>(
        &'a self,
        moment: PolicyStage,
        subject: &'a Subject<'_>,
        known: &'a Answers,
    ) -> impl Iterator<Item = (FactName, Fact)> + 'a {
        let concerned = self.rules.iter().filter(move |rule| rule.concerns(moment, subject));
        let required = concerned.flat_map(|rule| &rule.require);
        required.filter_map(move |require| match require.step(subject, &self.ours, known) {
            Evaluation::Known(fact) => Some((require.fact, fact)),
            Evaluation::NeedsLookups(_) => None,
        })
    }

    /// What the rules that can be decided at `moment` say of `subject`.
    pub fn decide(&self, moment: PolicyStage, subject: &Subject<'_>, known: &Answers) -> Decision {
        let mut decision = Decision::default();
        let mut need = BTreeSet::new();
        let mut wanted = false;
        for rule in self.rules.iter().filter(|rule| rule.concerns(moment, subject)) {
            match rule.judge(subject, &self.ours, known) {
                Judged::Holds => {}
                Judged::Need(lookups) => {
                    need.extend(lookups);
                    wanted |= rule.mode == RuleMode::Enforce;
                }
                Judged::Fires(fired) if rule.mode == RuleMode::Shadow => {
                    decision.shadow.push(fired)
                }
                // What is asked for beyond this rule could change nothing.
                Judged::Fires(fired) => {
                    if !wanted {
                        decision.ruling = Some(Some(fired));
                    }
                    break;
                }
            }
        }
        if !wanted && decision.ruling.is_none() {
            decision.ruling = Some(None);
        }
        decision.need = need.into_iter().collect();
        decision
    }
}

/// What one rule makes of it.
enum Judged {
    Holds,
    Need(Vec<Lookup>),
    Fires(RuleMatch),
}

impl PolicyRule {
    fn concerns(&self, moment: PolicyStage, subject: &Subject<'_>) -> bool {
        self.at <= moment
            && self.when.matches(subject)
            && !self.exempt.iter().any(|exempt| exempt.covers(subject))
    }

    fn judge(&self, subject: &Subject<'_>, ours: &Networks, known: &Answers) -> Judged {
        if self.require.is_empty() {
            return Judged::Fires(self.fired(self.otherwise, None));
        }
        let mut need = Vec::new();
        let mut unknown = None;
        for require in &self.require {
            match require.step(subject, ours, known) {
                Evaluation::NeedsLookups(lookups) => need.extend(lookups),
                Evaluation::Known(fact) => match fact.state {
                    FactState::True => {}
                    // The first in the rule's order is the reason, whatever is known first.
                    FactState::False if !need.is_empty() => break,
                    FactState::False => {
                        return Judged::Fires(
                            self.fired(self.otherwise, Some((require.fact, fact))),
                        );
                    }
                    FactState::Unknown => {
                        unknown.get_or_insert((require.fact, fact));
                    }
                },
            }
        }
        match unknown {
            _ if !need.is_empty() => Judged::Need(need),
            Some(cause) if self.on_unknown != PolicyAction::Accept => {
                Judged::Fires(self.fired(self.on_unknown, Some(cause)))
            }
            _ => Judged::Holds,
        }
    }

    fn fired(&self, action: PolicyAction, cause: Option<(FactName, Fact)>) -> RuleMatch {
        RuleMatch { rule: Arc::clone(&self.name), action, cause, url: self.url.clone() }
    }
}

#[cfg(test)]
mod tests;
