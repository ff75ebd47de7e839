//! What the policy rules know of a session, what they still want to know, and what they say.
//!
//! Lookups are asked for as soon as the session is far enough, and run while the dialogue goes on. A [`Question`] is what
//! the dialogue waits for: what the rules say where a verdict has to be told. An answer that comes after its question was
//! given up changes nothing, so that one session is judged by one set of answers.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::mem::take;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::envelope::Envelope;
use super::tagging::Tagging;
use super::{Action, Event, Output, PolicyOutcome, Profile, VerdictRecord};
use crate::addr::{ClientAddr, OriginalDst};
use crate::policy;
use crate::policy::facts::{
    Answer, Answers, Fact, FactState, Facts, Lookup, LookupResult, Reason, Source,
};
use crate::policy::rules::{
    Decision, FactName, PolicyRules, PolicyStage, RuleMatch, RuleMode, Subject,
};
use crate::smtp::{ExpectedReply, Keyword};
use crate::time::Timestamp;

/// How long a verdict waits for answers. Whoever answers has a deadline of its own, and a shorter one.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Answers that a session keeps. With more of them it begins anew, and asks again.
const MAX_KNOWN: usize = 512;
/// Moments at which rules in shadow still want to know something, kept for when they do.
const MAX_OPEN: usize = 32;

/// What a verdict is wanted of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct About {
    moment: PolicyStage,
    helo: Option<String>,
    sender: Option<String>,
    recipient: Option<String>,
    authenticated: bool,
}

/// A verdict that is wanted.
#[derive(Debug)]
struct Question {
    /// Verdicts that were wanted before.
    number: u64,
    about: About,
    /// Outer `None`: not known yet.
    ruling: Option<Option<RuleMatch>>,
    /// Since when the question is open, if it is.
    since: Timestamp,
    /// Since when the client waits for it.
    felt: Option<Timestamp>,
}

#[derive(Debug)]
pub(super) struct Inquiry {
    profile: Arc<Profile>,
    client: IpAddr,
    listener: SocketAddr,
    pub(super) envelope: Envelope,
    authenticated: bool,
    helo: Option<String>,
    /// How far the session is.
    moment: PolicyStage,
    known: Answers,
    count: usize,
    asked: BTreeSet<Lookup>,
    question: Option<Question>,
    questions: u64,
    /// What rules in shadow want to know more about.
    open: Vec<(u64, About)>,
    /// What they would have done: the question's number, the rule's, and the ruling; each rule and action once.
    shadow: Vec<(u64, u16, RuleMatch)>,
    rulings: PolicyOutcome,
    pub(super) tagging: Tagging,
    /// Rules and actions that were told as events.
    told: Vec<(u16, policy::PolicyAction, RuleMode)>,
    /// Facts that were, by [`bit`].
    facts_told: u128,
    facts: Facts,
    /// The questions that those came from.
    facts_from: [u64; FactName::ALL.len()],
    waited: Duration,
    /// What is hidden from EHLO: for rules that tag, more than the configuration says.
    pub(super) hidden: Option<Vec<Keyword>>,
}

impl Inquiry {
    /// `None` without rules.
    pub(super) fn new(
        profile: &Arc<Profile>,
        client: ClientAddr,
        destination: OriginalDst,
    ) -> Option<Box<Self>> {
        if profile.rules.is_empty() {
            return None;
        }
        // A chunk's size is told before it: nothing can be added to it, or taken out of it.
        let hidden = profile.rules.may_tag().then(|| {
            let chunks = [Keyword::Chunking, Keyword::BinaryMime];
            profile.smtp.hide.iter().copied().chain(chunks).collect()
        });
        Some(Box::new(Self {
            profile: Arc::clone(profile),
            client: client.ip(),
            listener: destination.socket(),
            envelope: Envelope::default(),
            authenticated: false,
            helo: None,
            moment: PolicyStage::Connect,
            known: Answers::default(),
            count: 0,
            asked: BTreeSet::new(),
            question: None,
            questions: 0,
            open: Vec::new(),
            shadow: Vec::new(),
            rulings: PolicyOutcome::default(),
            tagging: Tagging::default(),
            told: Vec::new(),
            facts_told: 0,
            facts: Facts::default(),
            facts_from: [0; FactName::ALL.len()],
            waited: Duration::ZERO,
            hidden,
        }))
    }

    /// The client named itself.
    pub(super) fn helo(&mut self, name: String, out: &mut Output) {
        self.helo = Some(name);
        self.reached(PolicyStage::Helo, out);
    }

    /// MAIL was forwarded.
    pub(super) fn mail(&mut self, path: String, transaction: usize, out: &mut Output) {
        self.envelope.mail(path, transaction);
        if !self.envelope.is_in_doubt() {
            self.untag();
        }
        self.reached(PolicyStage::Mail, out);
    }

    /// Upstream answered what it was asked.
    pub(super) fn replied(&mut self, asked: ExpectedReply, code: u16) {
        self.authenticated |= asked == ExpectedReply::Auth && code == 235;
        if self.envelope.replied(asked, code < 400) {
            self.untag();
        }
    }

    /// Asks for what the rules at `moment` want to know.
    pub(super) fn reached(&mut self, moment: PolicyStage, out: &mut Output) {
        self.moment = self.moment.max(moment);
        self.ask_ahead(out);
    }

    fn ask_ahead(&mut self, out: &mut Output) {
        let about = self.about(self.moment, None);
        let need = self.decide(&about).need;
        self.need(need, out);
    }

    /// A verdict is wanted. Returns whether it is there; asked again for the same, it is the same.
    pub(super) fn wants(
        &mut self,
        moment: PolicyStage,
        recipient: Option<&str>,
        at: Timestamp,
        out: &mut Output,
    ) -> bool {
        let about = self.about(moment, recipient);
        if self.question.as_ref().is_none_or(|question| question.about != about) {
            self.make_room();
            let number = self.questions;
            self.questions += 1;
            self.question = Some(Question { number, about, ruling: None, since: at, felt: None });
            self.consider(at, out);
        }
        self.question.as_ref().is_some_and(|question| question.ruling.is_some())
    }

    /// The verdict that was wanted is there, and is a refusal.
    pub(super) fn refuses(&self) -> bool {
        let ruling = self.question.as_ref().and_then(|question| question.ruling.as_ref());
        let fired = ruling.and_then(Option::as_ref);
        fired.is_some_and(|fired| fired.action >= policy::PolicyAction::Tempfail)
    }

    /// The client waits for the verdict that is wanted.
    pub(super) fn felt(&mut self, at: Timestamp) {
        if let Some(question) = self.question.as_mut().filter(|question| question.ruling.is_none())
        {
            question.felt.get_or_insert(at);
        }
    }

    /// The verdict that was wanted, once it is there; inner `None` is accept because no rule fired.
    pub(super) fn ruling(&mut self, out: &mut Output) -> Option<Option<RuleMatch>> {
        let question = self.question.take_if(|question| question.ruling.is_some())?;
        self.tell_facts(question.number, &question.about, out);
        question.ruling
    }

    /// The client is treated as `fired` says.
    pub(super) fn carried_out(&mut self, fired: &RuleMatch, out: &mut Output) {
        self.rulings.told(fired);
        self.tell_rule(fired, RuleMode::Enforce, out);
    }

    /// Answers came. What they lead to is asked for.
    pub(super) fn hear(
        &mut self,
        answers: Vec<(Lookup, LookupResult)>,
        at: Timestamp,
        out: &mut Output,
    ) {
        for (lookup, answered) in answers {
            if self.asked.remove(&lookup) {
                self.learn(lookup, answered);
            }
        }
        for (number, about) in take(&mut self.open) {
            let decision = self.decide(&about);
            self.tell_facts(number, &about, out);
            self.in_shadow(number, &about, decision, out);
        }
        if self.question.is_some() {
            self.consider(at, out);
        } else {
            self.ask_ahead(out);
        }
    }

    /// When the question that is open is given up.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        let question = self.question.as_ref().filter(|question| question.ruling.is_none())?;
        Some(question.since + PATIENCE)
    }

    /// Whatever is not answered is unknown from here on.
    pub(super) fn give_up(&mut self, at: Timestamp, out: &mut Output) {
        let mut missing = take(&mut self.asked);
        // Each round settles what the one before asked for: exchanges, their addresses, connections to these.
        while !missing.is_empty() {
            for lookup in missing {
                let answer = Answer::Unknown(Reason::Timeout);
                self.learn(lookup, LookupResult { answer, source: Source::None, at: Some(at) });
            }
            let Some(question) = &self.question else { break };
            let decision = self.decide(&question.about);
            missing = if decision.enforced.is_none() {
                decision.need.into_iter().collect()
            } else {
                BTreeSet::new()
            };
        }
        self.consider(at, out);
    }

    pub(super) const fn answers(&self) -> &Answers {
        &self.known
    }

    /// What the rules made of a session of which everything else made `verdict`, and the facts that they went by.
    pub(super) fn finish(
        &mut self,
        verdict: VerdictRecord,
        out: &mut Output,
    ) -> (VerdictRecord, Option<Facts>) {
        if self.waited > Duration::ZERO {
            out.event(Event::Waited(self.waited));
        }
        self.shadow.sort_by_key(|&(question, rule, _)| (question, rule));
        for (_, _, fired) in &self.shadow {
            self.rulings.in_shadow(fired);
        }
        let facts = take(&mut self.facts);
        (self.rulings.onto(verdict), (self.facts_told != 0).then_some(facts))
    }

    /// The session as `fired` is told of it.
    pub(super) fn subject<'a>(&'a self, recipient: Option<&'a str>) -> Subject<'a> {
        Subject {
            client: self.client,
            listener: self.listener,
            helo: self.helo.as_deref(),
            sender: self.envelope.sender(),
            recipient,
            tls: false,
            authenticated: self.authenticated,
        }
    }

    fn about(&self, moment: PolicyStage, recipient: Option<&str>) -> About {
        let sender = self.envelope.sender().filter(|_| moment >= PolicyStage::Mail);
        About {
            moment,
            helo: self.helo.clone(),
            sender: sender.map(str::to_owned),
            recipient: recipient.map(str::to_owned),
            authenticated: self.authenticated,
        }
    }

    fn rules(&self) -> &PolicyRules {
        &self.profile.rules
    }

    fn subject_of<'a>(&self, about: &'a About) -> Subject<'a> {
        Subject {
            client: self.client,
            listener: self.listener,
            helo: about.helo.as_deref(),
            sender: about.sender.as_deref(),
            recipient: about.recipient.as_deref(),
            tls: false,
            authenticated: about.authenticated,
        }
    }

    fn decide(&self, about: &About) -> Decision {
        self.rules().decide(about.moment, &self.subject_of(about), &self.known)
    }

    /// Looks whether the question can be answered with what is known.
    fn consider(&mut self, at: Timestamp, out: &mut Output) {
        let Some(mut question) = self.question.take_if(|question| question.ruling.is_none()) else {
            return;
        };
        let mut decision = self.decide(&question.about);
        match decision.enforced.take() {
            None => self.need(decision.need, out),
            Some(ruling) => {
                question.ruling = Some(ruling.map(cautious));
                if let Some(felt) = question.felt {
                    self.waited += at - felt;
                }
                self.in_shadow(question.number, &question.about, decision, out);
            }
        }
        self.question = Some(question);
    }

    /// What rules in shadow would have done; those that cannot say yet are asked again.
    fn in_shadow(&mut self, number: u64, about: &About, decision: Decision, out: &mut Output) {
        for fired in decision.shadow {
            let fired = cautious(fired);
            let Some(rule) = self.number(&fired) else { continue };
            self.tell_rule(&fired, RuleMode::Shadow, out);
            let known = self.shadow.iter_mut();
            let mut known = known.filter(|(_, r, f)| *r == rule && f.action == fired.action);
            match known.next() {
                Some(known) if number < known.0 => *known = (number, rule, fired),
                Some(_) => {}
                None => self.shadow.push((number, rule, fired)),
            }
        }
        if !decision.need.is_empty() && self.open.len() < MAX_OPEN {
            self.open.push((number, about.clone()));
            self.need(decision.need, out);
        }
    }

    fn need(&mut self, lookups: Vec<Lookup>, out: &mut Output) {
        let fresh = |lookup: &Lookup| self.asked.insert(lookup.clone());
        let lookups: Vec<Lookup> = lookups.into_iter().filter(fresh).collect();
        if !lookups.is_empty() {
            out.act(Action::Need(lookups));
        }
    }

    fn learn(&mut self, lookup: Lookup, answered: LookupResult) {
        self.known.insert(lookup, answered);
        self.count += 1;
    }

    fn make_room(&mut self) {
        if self.count + self.asked.len() > MAX_KNOWN {
            (self.known, self.count) = (Answers::default(), 0);
            self.asked.clear();
            self.open.clear();
        }
    }

    fn number(&self, fired: &RuleMatch) -> Option<u16> {
        let position = self.rules().iter().position(|rule| rule.name == fired.rule)?;
        u16::try_from(position).ok()
    }

    fn tell_rule(&mut self, fired: &RuleMatch, mode: RuleMode, out: &mut Output) {
        let Some(rule) = self.number(fired) else { return };
        let told = (rule, fired.action, mode);
        if !self.told.contains(&told) {
            self.told.push(told);
            out.event(Event::Policy { rule, action: fired.action, mode });
        }
    }

    /// The facts that a verdict rests on.
    fn tell_facts(&mut self, number: u64, about: &About, out: &mut Output) {
        let subject = self.subject_of(about);
        for (name, fact) in self.profile.rules.facts(about.moment, &subject, &self.known) {
            let bit = bit(name, &fact);
            if self.facts_told & bit == 0 {
                self.facts_told |= bit;
                out.event(Event::Fact { name, state: fact.state, source: fact.source });
            }
            let (place, from) = (place(&mut self.facts, name), &mut self.facts_from[name as usize]);
            // Of several the worst, and of those the first, whenever it came to be known.
            let order = |fact: &Fact, number| (weight(fact), Reverse(number));
            if place.as_ref().is_none_or(|known| order(&fact, number) > order(known, *from)) {
                (*place, *from) = (Some(fact), number);
            }
        }
    }
}

/// What is unknown is never refused for good, whatever a rule says.
pub(super) fn cautious(mut fired: RuleMatch) -> RuleMatch {
    let unknown = |(_, fact): &(FactName, Fact)| fact.state == FactState::Unknown;
    if fired.cause.as_ref().is_some_and(unknown) {
        fired.action = fired.action.min(policy::PolicyAction::Tempfail);
    }
    fired
}

/// What counts more of several facts of one name.
pub(super) const fn weight(fact: &Fact) -> u8 {
    match fact.state {
        FactState::True => 0,
        FactState::Unknown => 1,
        FactState::False => 2,
    }
}

pub(super) const fn place(facts: &mut Facts, name: FactName) -> &mut Option<Fact> {
    match name {
        FactName::ReverseName => &mut facts.reverse_name,
        FactName::Fcrdns => &mut facts.fcrdns,
        FactName::HeloResolves => &mut facts.helo_resolves,
        FactName::ReturnPath => &mut facts.return_path,
        FactName::Recipient => &mut facts.recipient,
        FactName::ReceivePath => &mut facts.receive_path,
    }
}

/// A bit for each name, state and source: 6 × 3 × 7 of them.
const fn bit(name: FactName, fact: &Fact) -> u128 {
    let states = (name as u32) * 3 + fact.state as u32;
    1 << (states * 7 + fact.source as u32)
}
