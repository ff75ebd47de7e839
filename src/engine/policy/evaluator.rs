//! The policy rules in a live session: which lookups they need, and their decisions.
//!
//! Lookups start as soon as the session allows, and run while the dialogue goes on. A decision is requested where a reply
//! depends on it; [`PolicyQuestion`] holds all that it depends on. Answers that arrive after a decision was given up change
//! nothing, so that one session is decided by one set of answers.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::outcome::PolicyOutcome;
use super::{capped, fact_slot, weight};
use crate::addr::{ClientAddr, OriginalDst};
use crate::engine::event::Event;
use crate::engine::options::Profile;
use crate::engine::output::{Action, Output};
use crate::engine::record::{PolicyQuestion, VerdictRecord};
use crate::policy::facts::{
    Answer, Answers, ClientCertificate, Fact, FactState, Facts, Lookup, LookupResult,
    PresentedCertificate, Reason, Source,
};
use crate::policy::rules::{Decision, FactName, PolicyRules, PolicyStage, RuleMatch, RuleMode};
use crate::policy::{self, ClientArrival};
use crate::smtp::EnhancedCode;
use crate::time::Timestamp;

/// How long a decision waits for answers. The resolver's own deadline is shorter.
const DECISION_TIMEOUT: Duration = Duration::from_secs(30);
/// Answers that a session keeps. Beyond it the evaluator starts over and requests them again.
const MAX_ANSWERS: usize = 512;
/// Questions that rules in shadow mode still need answers for.
const MAX_OPEN: usize = 32;

/// A decision that is requested.
#[derive(Debug)]
struct PendingDecision {
    /// Decisions requested before it.
    number: u64,
    question: PolicyQuestion,
    decision: Option<Decision>,
    requested_at: Timestamp,
    /// Since when the client waits for it.
    client_waits_since: Option<Timestamp>,
}

/// A decision on one question.
#[derive(Debug)]
pub(in crate::engine) struct Decided {
    pub(in crate::engine) question: PolicyQuestion,
    /// `None`: accepted because no rule matched.
    pub(in crate::engine) matched: Option<RuleMatch>,
}

impl Decided {
    /// The rule that rejects, for good or for now.
    pub(in crate::engine) fn rejection(&self) -> Option<&RuleMatch> {
        self.matched.as_ref().filter(|matched| rejects(matched))
    }
}

fn arrival(profile: &Profile, client: IpAddr, destination: SocketAddr) -> ClientArrival<'_> {
    ClientArrival { client, listener: profile.listener.as_deref(), destination }
}

fn rejects(matched: &RuleMatch) -> bool {
    matched.action >= policy::PolicyAction::Tempfail
}

#[derive(Debug)]
pub(in crate::engine) struct PolicyEvaluator {
    profile: Arc<Profile>,
    client: IpAddr,
    destination: SocketAddr,
    /// The latest stage that the session reached, for lookups ahead of a decision.
    reached: PolicyQuestion,
    known: Answers,
    known_count: usize,
    requested: BTreeSet<Lookup>,
    pending: Option<PendingDecision>,
    decisions: u64,
    /// Decided questions for which rules in shadow mode still need answers, with their numbers.
    open: Vec<(u64, PolicyQuestion)>,
    /// Matches in shadow mode: the question's number, the rule's, and the match; each rule and action once.
    shadow: Vec<(u64, u16, RuleMatch)>,
    outcome: PolicyOutcome,
    /// Rules and actions that were reported as events.
    reported: Vec<(u16, policy::PolicyAction, RuleMode)>,
    /// Facts that were, each state and source once: a few.
    reported_facts: Vec<(FactName, FactState, Source)>,
    facts: Facts,
    /// The numbers of the questions that those came from.
    fact_questions: [u64; FactName::ALL.len()],
    waited: Duration,
}

impl PolicyEvaluator {
    fn arrival(&self) -> ClientArrival<'_> {
        arrival(&self.profile, self.client, self.destination)
    }

    /// `None` without rules.
    pub(in crate::engine) fn new(
        profile: &Arc<Profile>,
        client: ClientAddr,
        destination: OriginalDst,
    ) -> Option<Box<Self>> {
        if profile.rules.is_empty() {
            return None;
        }
        Some(Box::new(Self {
            profile: Arc::clone(profile),
            client: client.ip(),
            destination: destination.socket(),
            reached: PolicyQuestion::at_connect(),
            known: Answers::default(),
            known_count: 0,
            requested: BTreeSet::new(),
            pending: None,
            decisions: 0,
            open: Vec::new(),
            shadow: Vec::new(),
            outcome: PolicyOutcome::default(),
            reported: Vec::new(),
            reported_facts: Vec::new(),
            facts: Facts::default(),
            fact_questions: [0; FactName::ALL.len()],
            waited: Duration::ZERO,
        }))
    }

    /// Starts the lookups that rules need at a stage, before a decision is requested there. The stage never goes back.
    pub(in crate::engine) fn look_ahead(&mut self, mut question: PolicyQuestion, out: &mut Output) {
        question.stage = question.stage.max(self.reached.stage);
        self.reached = question;
        self.request_ahead(out);
    }

    fn request_ahead(&mut self, out: &mut Output) {
        let mut need = self.decide(&self.reached).need;
        // Probes start at RCPT (rule 12 of ARCHITECTURE.md): a client that sends no more than MAIL causes none.
        if self.reached.stage < PolicyStage::Rcpt {
            need.retain(|lookup| !lookup.is_probe());
        }
        self.request_lookups(need, out);
    }

    /// Requests a decision. Returns whether it is there; the same question again has the same decision.
    pub(in crate::engine) fn request(
        &mut self,
        question: PolicyQuestion,
        at: Timestamp,
        out: &mut Output,
    ) -> bool {
        if self.pending.as_ref().is_none_or(|pending| pending.question != question) {
            self.limit_answers();
            let number = self.decisions;
            self.decisions += 1;
            self.pending = Some(PendingDecision {
                number,
                question,
                decision: None,
                requested_at: at,
                client_waits_since: None,
            });
            self.try_decide(at, out);
        }
        self.pending.as_ref().is_some_and(|pending| pending.decision.is_some())
    }

    /// The client waits for the pending decision.
    pub(in crate::engine) fn on_client_waiting(&mut self, at: Timestamp) {
        let undecided = self.pending.as_mut().filter(|pending| pending.decision.is_none());
        if let Some(pending) = undecided {
            pending.client_waits_since.get_or_insert(at);
        }
    }

    /// A decision was requested and is not there.
    pub(in crate::engine) fn is_undecided(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.decision.is_none())
    }

    /// Takes the pending decision, once it is there.
    pub(in crate::engine) fn take_decision(&mut self, out: &mut Output) -> Option<Decided> {
        let pending = self.pending.take_if(|pending| pending.decision.is_some())?;
        let PendingDecision { number, question, decision, .. } = pending;
        let mut decision = decision?;
        let matched = decision.enforced.take()?;
        self.on_shadow(number, &question, decision, out);
        self.report_facts(number, &question, out);
        Some(Decided { question, matched: matched.map(capped) })
    }

    /// The client is treated as `matched` demands.
    pub(in crate::engine) fn on_enforced(&mut self, matched: &RuleMatch, out: &mut Output) {
        self.outcome.enforced(matched);
        self.report_rule(matched, RuleMode::Enforce, out);
    }

    /// The reply of a rejection: code, enhanced code and text.
    pub(in crate::engine) fn reply(
        &self,
        matched: &RuleMatch,
        question: &PolicyQuestion,
    ) -> (u16, EnhancedCode, String) {
        policy::reply(matched, &question.subject(self.arrival()))
    }

    /// TLS that the gateway ends was established, with or without a certificate of the client.
    pub(in crate::engine) fn on_client_certificate(
        &mut self,
        presented: Option<&ClientCertificate>,
    ) {
        if presented.is_some() || self.rules().use_client_certificate() {
            self.known.set_client_certificate(PresentedCertificate::of(presented));
        }
    }

    /// A mail server that asks reported the TLS of its client.
    pub(in crate::engine) fn on_reported_certificate(&mut self, presented: &PresentedCertificate) {
        if self.known.client_certificate() != presented {
            self.known.set_client_certificate(presented.clone());
        }
    }

    /// The rules in shadow mode that match, as far as is known.
    pub(in crate::engine) fn shadow_matches(&self, question: &PolicyQuestion) -> Vec<RuleMatch> {
        self.decide(question).shadow.into_iter().map(capped).collect()
    }

    /// Whether decided questions still need answers for rules in shadow mode.
    pub(in crate::engine) const fn awaits_shadow(&self) -> bool {
        !self.open.is_empty()
    }

    /// Answers arrived. The lookups that they lead to are requested.
    pub(in crate::engine) fn on_answers(
        &mut self,
        answers: Vec<(Lookup, LookupResult)>,
        at: Timestamp,
        out: &mut Output,
    ) {
        for (lookup, result) in answers {
            if self.requested.remove(&lookup) {
                self.insert(lookup, result);
            }
        }
        self.decide_open(out);
        if self.pending.is_some() {
            self.try_decide(at, out);
        } else {
            self.request_ahead(out);
        }
    }

    /// Decided questions, again for the rules in shadow mode.
    fn decide_open(&mut self, out: &mut Output) {
        for (number, question) in take(&mut self.open) {
            let decision = self.decide(&question);
            self.report_facts(number, &question, out);
            self.on_shadow(number, &question, decision, out);
        }
    }

    /// When the pending decision is given up.
    pub(in crate::engine) fn deadline(&self) -> Option<Timestamp> {
        let pending = self.pending.as_ref().filter(|pending| pending.decision.is_none())?;
        Some(pending.requested_at + DECISION_TIMEOUT)
    }

    /// Whatever is not answered counts as unknown from here on.
    pub(in crate::engine) fn on_timeout(&mut self, at: Timestamp, out: &mut Output) {
        let mut missing = take(&mut self.requested);
        // Each round settles the lookups that the round before led to: exchanges, their addresses, connections to these.
        while !missing.is_empty() {
            for lookup in missing {
                let answer = Answer::Unknown(Reason::Timeout);
                let source = if lookup.is_probe() { Source::Probe } else { Source::None };
                self.insert(lookup, LookupResult { answer, source, at: Some(at) });
            }
            let Some(pending) = &self.pending else { break };
            let decision = self.decide(&pending.question);
            missing = if decision.enforced.is_none() {
                decision.need.into_iter().collect()
            } else {
                BTreeSet::new()
            };
        }
        self.decide_open(out);
        self.try_decide(at, out);
    }

    pub(in crate::engine) const fn answers(&self) -> &Answers {
        &self.known
    }

    /// The verdict of the session, where `verdict` is that of everything but the rules, and the facts behind it.
    pub(in crate::engine) fn finish(
        &mut self,
        verdict: VerdictRecord,
        out: &mut Output,
    ) -> (VerdictRecord, Option<Facts>) {
        if self.waited > Duration::ZERO {
            out.event(Event::Waited(self.waited));
        }
        self.shadow.sort_by_key(|&(question, rule, _)| (question, rule));
        for (_, _, matched) in &self.shadow {
            self.outcome.in_shadow(matched);
        }
        let facts = take(&mut self.facts);
        (self.outcome.apply_to(verdict), (!self.reported_facts.is_empty()).then_some(facts))
    }

    fn rules(&self) -> &PolicyRules {
        &self.profile.rules
    }

    fn decide(&self, question: &PolicyQuestion) -> Decision {
        let subject = question.subject(self.arrival());
        self.rules().decide(question.stage, &subject, &self.known)
    }

    /// Decides the pending question if the answers suffice.
    fn try_decide(&mut self, at: Timestamp, out: &mut Output) {
        let Some(mut pending) = self.pending.take_if(|pending| pending.decision.is_none()) else {
            return;
        };
        let decision = self.decide(&pending.question);
        if decision.enforced.is_none() {
            self.request_lookups(decision.need, out);
        } else {
            if let Some(since) = pending.client_waits_since {
                self.waited += at - since;
            }
            pending.decision = Some(decision);
        }
        self.pending = Some(pending);
    }

    /// Matches of rules in shadow mode; those that still need answers are evaluated again.
    fn on_shadow(
        &mut self,
        number: u64,
        question: &PolicyQuestion,
        decision: Decision,
        out: &mut Output,
    ) {
        for matched in decision.shadow {
            let matched = capped(matched);
            let Some(rule) = self.rule_number(&matched) else { continue };
            self.report_rule(&matched, RuleMode::Shadow, out);
            let mut known = self.shadow.iter_mut();
            match known.find(|(_, r, m)| *r == rule && m.action == matched.action) {
                Some(known) if number < known.0 => *known = (number, rule, matched),
                Some(_) => {}
                None => self.shadow.push((number, rule, matched)),
            }
        }
        if !decision.need.is_empty() && self.open.len() < MAX_OPEN {
            self.open.push((number, question.clone()));
            self.request_lookups(decision.need, out);
        }
    }

    /// Requests lookups, each once.
    pub(in crate::engine) fn request_lookups(&mut self, lookups: Vec<Lookup>, out: &mut Output) {
        let is_new = |lookup: &Lookup| self.requested.insert(lookup.clone());
        let lookups: Vec<Lookup> = lookups.into_iter().filter(is_new).collect();
        if !lookups.is_empty() {
            out.act(Action::Need(lookups));
        }
    }

    fn insert(&mut self, lookup: Lookup, result: LookupResult) {
        self.known.insert(lookup, result);
        self.known_count += 1;
    }

    fn limit_answers(&mut self) {
        if self.known_count + self.requested.len() > MAX_ANSWERS {
            self.known.clear_lookups();
            self.known_count = 0;
            self.requested.clear();
            self.open.clear();
        }
    }

    fn rule_number(&self, matched: &RuleMatch) -> Option<u16> {
        let position = self.rules().iter().position(|rule| rule.name == matched.rule)?;
        u16::try_from(position).ok()
    }

    fn report_rule(&mut self, matched: &RuleMatch, mode: RuleMode, out: &mut Output) {
        let Some(rule) = self.rule_number(matched) else { return };
        let key = (rule, matched.action, mode);
        if !self.reported.contains(&key) {
            self.reported.push(key);
            out.event(Event::Policy { rule, action: matched.action, mode });
        }
    }

    /// Reports the facts that a decision rests on.
    fn report_facts(&mut self, number: u64, question: &PolicyQuestion, out: &mut Output) {
        let profile = Arc::clone(&self.profile);
        let subject = question.subject(arrival(&profile, self.client, self.destination));
        for (name, fact) in profile.rules.facts(question.stage, &subject, &self.known) {
            let key = (name, fact.state, fact.source);
            if !self.reported_facts.contains(&key) {
                self.reported_facts.push(key);
                out.event(Event::Fact { name, state: fact.state, source: fact.source });
            }
            let slot = fact_slot(&mut self.facts, name);
            let from = &mut self.fact_questions[name as usize];
            // Of several the heaviest, and of those the first question's, whenever it came to be known.
            let order = |fact: &Fact, number| (weight(fact), Reverse(number));
            if slot.as_ref().is_none_or(|known| order(&fact, number) > order(known, *from)) {
                (*slot, *from) = (Some(fact), number);
            }
        }
    }
}
