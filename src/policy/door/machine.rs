//! The states of a door and what leads from one to another.

use std::time::Duration;

use super::signs::{Judgment, Signs};
use super::words::{counted, spoken};
use super::{Change, Mode, Reason, Settings, State, Status};
use crate::addr::Family;
use crate::time::Timestamp;

/// One family's door.
#[derive(Clone, Debug)]
pub struct Door {
    family: Family,
    settings: Settings,
    mode: Mode,
    state: State,
    since: Timestamp,
    /// Since when it admits, or refuses.
    turned: Timestamp,
    reason: Reason,
    detail: String,
    /// Why it closed: a reason may go, and another come, while it is closed.
    cause: Reason,
    /// How often it closed without a proof in between.
    trials: u32,
    /// What was looked at last, and when.
    signs: Signs,
    at: Timestamp,
}

impl Door {
    /// A door that begins at `at`, on trial.
    pub fn new(family: Family, settings: Settings, at: Timestamp) -> Self {
        Self {
            family,
            settings,
            mode: Mode::Auto,
            state: State::Opening,
            since: at,
            turned: at,
            reason: Reason::Started,
            detail: "nothing has proved it since the gateway started".to_owned(),
            cause: Reason::Started,
            trials: 0,
            signs: Signs::default(),
            at,
        }
    }

    pub const fn family(&self) -> Family {
        self.family
    }

    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub const fn state(&self) -> State {
        self.state
    }

    pub const fn admits(&self) -> bool {
        self.state.admits()
    }

    /// What the operator wants; it holds from the next [`Self::look`] on.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// It is `at`, and these are the signs. At most one state further.
    pub fn look(&mut self, signs: &Signs, at: Timestamp) -> Option<Change> {
        self.at = self.at.max(at);
        self.signs = signs.clone();
        // What stalled before it turned was judged then; a trial is not to end by it.
        self.signs.stalled = signs.stalled.filter(|stalled| stalled.since >= self.turned);
        let (to, reason, detail) = match self.mode {
            Mode::Open => (State::Open, Reason::Operator, "an operator opened it".to_owned()),
            Mode::Close => (State::Closed, Reason::Operator, "an operator closed it".to_owned()),
            Mode::Auto => self.auto(),
        };
        self.reason = reason;
        self.detail.clone_from(&detail);
        let from = self.state;
        (to != from).then(|| {
            self.go(to);
            Change { from, to, at: self.at, reason, detail }
        })
    }

    fn go(&mut self, to: State) {
        if to.admits() != self.state.admits() {
            self.turned = self.at;
        }
        match to {
            State::Closed => {
                self.trials = self.trials.saturating_add(1);
                self.cause = self.reason;
            }
            State::Open => self.trials = 0,
            State::Closing | State::Opening => {}
        }
        (self.state, self.since) = (to, self.at);
    }

    fn auto(&self) -> (State, Reason, String) {
        let judgment = self.signs.judge(&self.settings, self.at);
        if self.state == State::Closed { self.closed(judgment) } else { self.admitting(judgment) }
    }

    fn admitting(&self, judgment: Judgment) -> (State, Reason, String) {
        let (reason, detail) = match judgment {
            Judgment::Proven(proof) => {
                return (self.good(), Reason::Proven, proof.words(self.at));
            }
            Judgment::Unproven => {
                let detail = self.signs.unproven(self.at);
                if !self.settings.closes_unproven() || !self.dwelt() {
                    // What it is on trial for is still what is to be said.
                    return match (self.state, self.reason) {
                        (State::Opening, Reason::Started | Reason::Trial) => {
                            (State::Opening, self.reason, self.detail.clone())
                        }
                        _ => (self.good(), Reason::Unproven, detail),
                    };
                }
                (Reason::Unproven, detail)
            }
            Judgment::Bad(reason, detail) => (reason, detail),
        };
        if let Some((held, why)) = self.signs.held() {
            let detail = format!("held open though {detail}: {why}");
            let to = if self.state == State::Closing { self.good() } else { self.state };
            return (to, held, detail);
        }
        let confirmed = self.state == State::Closing
            && self.at.since(self.since) >= self.settings.confirm
            && self.dwelt();
        (if confirmed { State::Closed } else { State::Closing }, reason, detail)
    }

    /// The state that nothing tells against: open with a proof since it began to admit.
    fn good(&self) -> State {
        let proven = self.signs.proof().is_some_and(|proof| proof.at > self.turned);
        if proven || self.state == State::Open { State::Open } else { State::Opening }
    }

    fn closed(&self, judgment: Judgment) -> (State, Reason, String) {
        if let Some((held, why)) = self.signs.held() {
            return (State::Opening, held, format!("opened again: {why}"));
        }
        let stays = |reason, detail| (State::Closed, reason, detail);
        if let Judgment::Bad(reason, detail) = judgment {
            return stays(reason, detail);
        }
        if !self.dwelt() {
            return stays(self.reason, self.detail.clone());
        }
        if let Some(probes) = self.signs.answering(&self.settings, self.at) {
            let enough = probes.reached && probes.in_a_row >= self.settings.successes;
            return if enough && probes.last > self.since {
                let (one, many) = ("a probe reaches us again", "probes in a row reach us again");
                let words = counted(probes.in_a_row, one, many);
                (State::Opening, Reason::Trial, words)
            } else {
                stays(self.reason, self.detail.clone())
            };
        }
        match self.cause {
            Reason::UpstreamDown => {
                (State::Opening, Reason::Trial, "an upstream may take mail again".to_owned())
            }
            Reason::Operator => {
                (State::Opening, Reason::Trial, "no longer closed by an operator".to_owned())
            }
            _ if self.at.since(self.since) >= self.patience() => {
                let words = format!("closed for {}, to see", spoken(self.at.since(self.since)));
                (State::Opening, Reason::Trial, words)
            }
            _ => stays(self.reason, self.detail.clone()),
        }
    }

    fn dwelt(&self) -> bool {
        self.at.since(self.turned) >= self.settings.dwell
    }

    /// How long it stays closed before the next trial.
    fn patience(&self) -> Duration {
        let doublings = self.trials.saturating_sub(1).min(16);
        let doubled = self.settings.retry.saturating_mul(1 << doublings);
        doubled.min(self.settings.retry_longest).max(self.settings.dwell)
    }

    pub fn status(&self, at: Timestamp) -> Status {
        let (next, next_at) = self.next();
        Status {
            family: self.family,
            state: self.state,
            admits: self.admits(),
            since: self.since,
            mode: self.mode,
            reason: self.reason,
            detail: self.detail.clone(),
            proof: self.signs.proof(),
            next,
            next_at,
            at: self.at.max(at),
        }
    }

    /// What would change the state, and when at the earliest.
    fn next(&self) -> (String, Option<Timestamp>) {
        let Settings { failures, successes, stalls, .. } = self.settings;
        if self.mode != Mode::Auto {
            return (format!("`gatepost door {} auto`, and the signs then", self.family), None);
        }
        let closes = || {
            let probes = if self.signs.has_vantage {
                counted(failures, "a probe fails, ", "probes in a row fail, ")
            } else {
                String::new()
            };
            let unproven = if self.settings.closes_unproven() {
                format!(", or after {} without a proof", spoken(self.settings.fresh))
            } else {
                String::new()
            };
            let stalls = counted(stalls, "a session stalls", "sessions stall");
            format!("closes when {probes}no upstream answers or {stalls}{unproven}")
        };
        match self.state {
            State::Open => (closes(), None),
            State::Opening => {
                let proof = if self.signs.has_vantage { "message or probe" } else { "message" };
                let words =
                    format!("opens with the first {proof} that comes through; {}", closes());
                (words, None)
            }
            State::Closing => {
                let confirmed = self.since + self.settings.confirm;
                let dwelt = self.turned + self.settings.dwell;
                ("closes, unless the signs turn good before".to_owned(), Some(confirmed.max(dwelt)))
            }
            State::Closed => {
                let dwelt = self.turned + self.settings.dwell;
                if self.signs.answering(&self.settings, self.at).is_some() {
                    let (one, many) = ("a probe that reaches us", "probes in a row that reach us");
                    let words = format!("opens on trial after {}", counted(successes, one, many));
                    (words, Some(dwelt))
                } else if self.reason == Reason::UpstreamDown {
                    ("opens on trial when an upstream takes connections".to_owned(), Some(dwelt))
                } else {
                    let trial = self.since + self.patience();
                    ("opens on trial, to see".to_owned(), Some(trial))
                }
            }
        }
    }
}
