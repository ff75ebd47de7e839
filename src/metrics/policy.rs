//! Verdicts of the policy rules, the facts behind them, and client waits.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::families::Families;
use super::{Metrics, MetricsError};
use crate::addr::Family;
use crate::policy::PolicyAction;
use crate::policy::facts::{FactState, Source};
use crate::policy::rules::{FactName, PolicyRule, PolicyRules, RuleMode};

/// In the order of their discriminants.
const STATES: [FactState; 3] = [FactState::True, FactState::False, FactState::Unknown];
const SOURCES: usize = 7;
const FACTS: usize = FactName::ALL.len() * STATES.len() * SOURCES;

/// The sources that a fact of a running gateway may have: only these have series. Answers of the DNS in a capture or a master
/// file count as those of a resolver.
const fn sources(name: FactName) -> &'static [Source] {
    use Source::{Dns, None, Probe, Traffic, Upstream};
    match name {
        FactName::ReverseName
        | FactName::Fcrdns
        | FactName::HeloResolves
        | FactName::Spf
        | FactName::Dkim
        | FactName::Dmarc
        | FactName::Authenticated => &[Dns, None],
        FactName::ReturnPath => &[Dns, Traffic, Probe, None],
        FactName::Recipient => &[Upstream, None],
        FactName::ReceivePath => &[Traffic, Probe, None],
    }
}

/// The handles of one address family's series.
pub(super) struct PolicySeries {
    /// By [`slot`].
    facts: [Option<IntCounter>; FACTS],
    wait: Histogram,
}

impl PolicySeries {
    /// Creates every series of `family`, at zero.
    pub(super) fn resolve(families: &Families, family: Family) -> Result<Self, MetricsError> {
        let family = family.as_str();
        let mut facts = [const { None }; FACTS];
        for name in FactName::ALL {
            for state in STATES {
                for &source in sources(name) {
                    let labels = [family, name.as_str(), state.as_str(), source.as_str()];
                    let counter = families.policy_facts.get_metric_with_label_values(&labels)?;
                    facts[slot(name, state, source)] = Some(counter);
                }
            }
        }
        let wait = families.policy_wait.get_metric_with_label_values(&[family])?;
        Ok(Self { facts, wait })
    }

    pub(super) fn on_fact(&self, name: FactName, state: FactState, source: Source) {
        let source = match source {
            Source::Capture | Source::Zone => Source::Dns,
            source if sources(name).contains(&source) => source,
            _ => Source::None,
        };
        if let Some(counter) = &self.facts[slot(name, state, source)] {
            counter.inc();
        }
    }

    pub(super) fn on_wait(&self, seconds: f64) {
        self.wait.observe(seconds);
    }
}

const fn slot(name: FactName, state: FactState, source: Source) -> usize {
    (name as usize * STATES.len() + state as usize) * SOURCES + source as usize
}

/// One action of a rule in one family.
struct RuleSeries {
    family: Family,
    action: PolicyAction,
    mode: RuleMode,
    counter: IntCounter,
}

/// The series of the active rules, by rule name: the only label whose values come from the configuration (64 rules at most).
pub(super) struct VerdictSeries {
    vec: IntCounterVec,
    rules: ArcSwap<HashMap<Arc<str>, Vec<RuleSeries>>>,
}

impl VerdictSeries {
    pub(super) fn new(vec: IntCounterVec) -> Self {
        Self { vec, rules: ArcSwap::default() }
    }

    fn set_rules(&self, rules: &PolicyRules) -> Result<(), MetricsError> {
        let mut new: HashMap<Arc<str>, Vec<RuleSeries>> = HashMap::new();
        for rule in rules.iter() {
            let all = Family::ALL.into_iter().flat_map(|f| actions(rule).map(move |a| (f, a)));
            let series = all.map(|(family, action)| {
                let labels = labels(family, &rule.name, action, rule.mode);
                let counter = self.vec.get_metric_with_label_values(&labels)?;
                Ok(RuleSeries { family, action, mode: rule.mode, counter })
            });
            let series = series.collect::<prometheus::Result<_>>()?;
            new.insert(Arc::clone(&rule.name), series);
        }
        let new = Arc::new(new);
        let old = self.rules.swap(Arc::clone(&new));
        for (name, series) in old.iter() {
            let kept = |old: &RuleSeries| {
                let same = |new: &RuleSeries| {
                    (new.family, new.action, new.mode) == (old.family, old.action, old.mode)
                };
                new.get(name).is_some_and(|series| series.iter().any(same))
            };
            for gone in series.iter().filter(|series| !kept(series)) {
                let labels = labels(gone.family, name, gone.action, gone.mode);
                self.vec.remove_label_values(&labels)?;
            }
        }
        Ok(())
    }

    /// Creates every series that a rule may have, for the catalogue.
    pub(super) fn create_all(&self) -> Result<(), MetricsError> {
        for family in Family::ALL {
            for action in PolicyAction::ALL {
                for mode in [RuleMode::Enforce, RuleMode::Shadow] {
                    self.vec.get_metric_with_label_values(&labels(family, "", action, mode))?;
                }
            }
        }
        Ok(())
    }

    /// Ignores a rule that is no longer active.
    pub(super) fn on_verdict(
        &self,
        family: Family,
        rule: &str,
        action: PolicyAction,
        mode: RuleMode,
    ) {
        let rules = self.rules.load();
        let mut series = rules.get(rule).into_iter().flatten();
        let same = |s: &&RuleSeries| (s.family, s.action, s.mode) == (family, action, mode);
        if let Some(series) = series.find(same) {
            series.counter.inc();
        }
    }
}

impl Metrics {
    /// Creates the series of these rules and removes those of all others.
    ///
    /// # Errors
    /// Only if this module defines a family's labels wrongly.
    pub fn set_rules(&self, rules: &PolicyRules) -> Result<(), MetricsError> {
        self.verdicts.set_rules(rules)
    }
}

/// The distinct actions of a rule.
fn actions(rule: &PolicyRule) -> impl Iterator<Item = PolicyAction> + use<> {
    let unknown = Some(rule.on_unknown)
        .filter(|&action| !rule.require.is_empty() && action != PolicyAction::Accept)
        .filter(|&action| action != rule.otherwise);
    [Some(rule.otherwise), unknown].into_iter().flatten()
}

const fn labels(family: Family, rule: &str, action: PolicyAction, mode: RuleMode) -> [&str; 4] {
    let mode = match mode {
        RuleMode::Enforce => "enforce",
        RuleMode::Shadow => "shadow",
    };
    [family.as_str(), rule, action.as_str(), mode]
}
