//! `[[policy]]` rules: facts to a verdict, in file order, the first that fires wins.
//!
//! [`Rules::decide`] is pure. What it lacks it asks for, and it is asked again with the answers; so the relay, which waits
//! for them, and a replay, which has them, run the same rules.
//!
//! A rule looks at a session from its [`PolicyStage`] on. A refusal is told at RCPT, where the envelope is known and the
//! exemptions too, unless `smtp.refuse_at` or STARTTLS make it come earlier.

mod require;
mod when;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use self::require::{FactName, Require};
pub use self::when::{Domains, Exempt, When};
use super::Action;
use super::facts::{Answers, Fact, Lookup, Reason, State, Step};
use crate::addr::Networks;

/// How far a session is, from its beginning on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PolicyStage {
    /// The client's address is known.
    #[default]
    Connect,
    /// Its HELO or EHLO name too.
    Helo,
    /// And MAIL FROM.
    Mail,
    /// And one RCPT TO.
    Rcpt,
}

impl PolicyStage {
    pub const ALL: [Self; 4] = [Self::Connect, Self::Helo, Self::Mail, Self::Rcpt];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Helo => "helo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
        }
    }
}

/// Whether a rule's verdict is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    #[default]
    Enforce,
    /// Decided and recorded only.
    Shadow,
}

/// One `[[policy]]` rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Shown in replies, logs and metrics.
    pub name: Arc<str>,
    /// From when on it can be decided: never before what it looks at is known.
    pub at: PolicyStage,
    pub when: When,
    /// Whom it leaves alone.
    pub exempt: Vec<Exempt>,
    /// It fires unless all of these hold; one without any fires always.
    pub require: Vec<Require>,
    pub otherwise: Action,
    /// When no requirement fails and one is unknown. Never [`Action::Reject`]. [`Action::Accept`] lets the rules after it
    /// decide.
    pub on_unknown: Action,
    pub mode: Mode,
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
    pub action: Action,
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
pub struct Rules {
    rules: Vec<Rule>,
    /// Our own addresses: mail that would come back to us reaches no sender.
    ours: Networks,
}

impl Rules {
    pub fn new(rules: Vec<Rule>, ours: Networks) -> Self {
        Self { rules, ours }
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter()
    }

    /// Whether one of them may tag a message.
    pub fn tags(&self) -> bool {
        let tags = |rule: &Rule| [rule.otherwise, rule.on_unknown].contains(&Action::Tag);
        self.rules.iter().any(|rule| rule.mode == Mode::Enforce && tags(rule))
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
            Step::Fact(fact) => Some((require.fact, fact)),
            Step::Need(_) => None,
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
                    wanted |= rule.mode == Mode::Enforce;
                }
                Judged::Fires(fired) if rule.mode == Mode::Shadow => decision.shadow.push(fired),
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

impl Rule {
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
                Step::Need(lookups) => need.extend(lookups),
                Step::Fact(fact) => match fact.state {
                    State::True => {}
                    // The first in the rule's order is the reason, whatever is known first.
                    State::False if !need.is_empty() => break,
                    State::False => {
                        return Judged::Fires(
                            self.fired(self.otherwise, Some((require.fact, fact))),
                        );
                    }
                    State::Unknown => {
                        unknown.get_or_insert((require.fact, fact));
                    }
                },
            }
        }
        match unknown {
            _ if !need.is_empty() => Judged::Need(need),
            Some(cause) if self.on_unknown != Action::Accept => {
                Judged::Fires(self.fired(self.on_unknown, Some(cause)))
            }
            _ => Judged::Holds,
        }
    }

    fn fired(&self, action: Action, cause: Option<(FactName, Fact)>) -> RuleMatch {
        RuleMatch { rule: Arc::clone(&self.name), action, cause, url: self.url.clone() }
    }
}

#[cfg(test)]
mod tests;
