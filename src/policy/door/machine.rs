//! The state machine of a door.

use std::time::Duration;

use super::signals::{Assessment, Signals};
use super::state::{DoorReason, DoorSettings, DoorState, DoorStatus, DoorTransition, OperatorMode};
use crate::addr::Family;
use crate::humanize::{counted, duration};
use crate::time::Timestamp;

/// One family's door.
#[derive(Clone, Debug)]
pub struct Door {
    family: Family,
    settings: DoorSettings,
    mode: OperatorMode,
    state: DoorState,
    since: Timestamp,
    /// When it last began to admit, or to refuse.
    turned: Timestamp,
    reason: DoorReason,
    detail: String,
    /// Why it closed; `reason` may change while it is closed.
    cause: DoorReason,
    /// Closings without a proof in between.
    failed_trials: u32,
    /// Of the latest update.
    signals: Signals,
    /// Time of the latest update.
    now: Timestamp,
}

impl Door {
    /// A new door is on trial.
    pub fn new(family: Family, settings: DoorSettings, now: Timestamp) -> Self {
        Self {
            family,
            settings,
            mode: OperatorMode::Auto,
            state: DoorState::Opening,
            since: now,
            turned: now,
            reason: DoorReason::Started,
            detail: "no proof since the gateway started".to_owned(),
            cause: DoorReason::Started,
            failed_trials: 0,
            signals: Signals::default(),
            now,
        }
    }

    pub const fn family(&self) -> Family {
        self.family
    }

    pub const fn settings(&self) -> &DoorSettings {
        &self.settings
    }

    pub const fn state(&self) -> DoorState {
        self.state
    }

    pub const fn admits(&self) -> bool {
        self.state.admits()
    }

    /// Takes effect at the next [`Self::update`].
    pub fn set_mode(&mut self, mode: OperatorMode) {
        self.mode = mode;
    }

    /// Evaluates the signals. Makes at most one transition.
    pub fn update(&mut self, signals: &Signals, now: Timestamp) -> Option<DoorTransition> {
        self.now = self.now.max(now);
        self.signals = signals.clone();
        // Earlier stalls led to the present state; they must not end a trial.
        self.signals.stalled = signals.stalled.filter(|stalled| stalled.since >= self.turned);
        let (to, reason, detail) = match self.mode {
            OperatorMode::Open => {
                (DoorState::Open, DoorReason::Operator, "opened by an operator".to_owned())
            }
            OperatorMode::Close => {
                (DoorState::Closed, DoorReason::Operator, "closed by an operator".to_owned())
            }
            OperatorMode::Auto => self.evaluate(),
        };
        self.reason = reason;
        self.detail.clone_from(&detail);
        let from = self.state;
        (to != from).then(|| {
            self.enter(to);
            DoorTransition { from, to, at: self.now, reason, detail }
        })
    }

    fn enter(&mut self, to: DoorState) {
        if to.admits() != self.state.admits() {
            self.turned = self.now;
        }
        match to {
            DoorState::Closed => {
                self.failed_trials = self.failed_trials.saturating_add(1);
                self.cause = self.reason;
            }
            DoorState::Open => self.failed_trials = 0,
            DoorState::Closing | DoorState::Opening => {}
        }
        (self.state, self.since) = (to, self.now);
    }

    fn evaluate(&self) -> (DoorState, DoorReason, String) {
        let assessment = self.signals.assess(&self.settings, self.now);
        match self.state {
            DoorState::Closed => self.evaluate_closed(assessment),
            _ => self.evaluate_admitting(assessment),
        }
    }

    fn evaluate_admitting(&self, assessment: Assessment) -> (DoorState, DoorReason, String) {
        let (reason, detail) = match assessment {
            Assessment::Proven(proof) => {
                return (self.good(), DoorReason::Proven, proof.text(self.now));
            }
            Assessment::Unproven => {
                let detail = self.signals.unproven(self.now);
                let asks_in_vain = self.signals.vantage_is_mute(&self.settings, self.now);
                if !self.settings.closes_unproven() || asks_in_vain || !self.min_hold_is_over() {
                    // The reason for a trial remains while there is no news.
                    return match (self.state, self.reason) {
                        (DoorState::Opening, DoorReason::Started | DoorReason::Trial) => {
                            (DoorState::Opening, self.reason, self.detail.clone())
                        }
                        _ => (self.good(), DoorReason::Unproven, detail),
                    };
                }
                (DoorReason::Unproven, detail)
            }
            Assessment::Bad(reason, detail) => (reason, detail),
        };
        if let Some((held, why)) = self.signals.held_open() {
            let detail = format!("held open although {detail}: {why}");
            let to = if self.state == DoorState::Closing { self.good() } else { self.state };
            return (to, held, detail);
        }
        let confirmed = self.state == DoorState::Closing
            && self.now.since(self.since) >= self.settings.grace
            && self.min_hold_is_over();
        (if confirmed { DoorState::Closed } else { DoorState::Closing }, reason, detail)
    }

    /// The state without bad signals: open after a proof since it began to admit, else on trial.
    fn good(&self) -> DoorState {
        let proven = self.signals.proof().is_some_and(|proof| proof.at > self.turned);
        if proven || self.state == DoorState::Open { DoorState::Open } else { DoorState::Opening }
    }

    fn evaluate_closed(&self, assessment: Assessment) -> (DoorState, DoorReason, String) {
        if let Some((held, why)) = self.signals.held_open() {
            return (DoorState::Opening, held, format!("opened again: {why}"));
        }
        let stays = |reason, detail| (DoorState::Closed, reason, detail);
        let trial = |detail: String| (DoorState::Opening, DoorReason::Trial, detail);
        if let Assessment::Bad(reason, detail) = assessment {
            return stays(reason, detail);
        }
        if !self.min_hold_is_over() {
            return stays(self.reason, self.detail.clone());
        }
        if let Some(probes) = self.signals.current_probes(&self.settings, self.now) {
            let enough = probes.reached && probes.in_a_row >= self.settings.success_threshold;
            return if enough && probes.last > self.since {
                trial(match probes.in_a_row {
                    1 => "a probe reached us again".to_owned(),
                    many => format!("{many} probes in a row reached us"),
                })
            } else {
                stays(self.reason, self.detail.clone())
            };
        }
        let closed_for = self.now.since(self.since);
        match self.cause {
            DoorReason::UpstreamDown => trial("an upstream may accept mail again".to_owned()),
            DoorReason::Operator => trial("no longer closed by an operator".to_owned()),
            _ if closed_for >= self.retry_delay() => {
                trial(format!("trial after {} closed", duration(closed_for)))
            }
            _ => stays(self.reason, self.detail.clone()),
        }
    }

    fn min_hold_is_over(&self) -> bool {
        self.now.since(self.turned) >= self.settings.min_hold
    }

    /// How long it stays closed before the next trial.
    fn retry_delay(&self) -> Duration {
        let doublings = self.failed_trials.saturating_sub(1).min(16);
        let doubled = self.settings.retry.saturating_mul(1 << doublings);
        doubled.min(self.settings.retry_max).max(self.settings.min_hold)
    }

    pub fn status(&self, now: Timestamp) -> DoorStatus {
        let (next, next_at) = self.next();
        DoorStatus {
            family: self.family,
            state: self.state,
            admits: self.admits(),
            since: self.since,
            mode: self.mode,
            reason: self.reason,
            detail: self.detail.clone(),
            proof: self.signals.proof(),
            next,
            next_at,
            at: self.now.max(now),
        }
    }

    /// The condition of the next transition, and its earliest time.
    fn next(&self) -> (String, Option<Timestamp>) {
        if self.mode != OperatorMode::Auto {
            return (format!("stays until `gatepost door {} auto`", self.family), None);
        }
        let held_until = self.turned + self.settings.min_hold;
        match self.state {
            DoorState::Open => (format!("closes on {}", self.closing_conditions()), None),
            DoorState::Opening => {
                let probe = if self.signals.has_vantage { " or successful probe" } else { "" };
                let closes = self.closing_conditions();
                (format!("opens on the first accepted message{probe}; closes on {closes}"), None)
            }
            DoorState::Closing => {
                let confirmed = self.since + self.settings.grace;
                let text = "closes unless signals become good".to_owned();
                (text, Some(confirmed.max(held_until)))
            }
            DoorState::Closed => {
                if self.signals.current_probes(&self.settings, self.now).is_some() {
                    let text = match self.settings.success_threshold {
                        1 => "opens on trial after a successful probe".to_owned(),
                        many => format!("opens on trial after {many} successful probes in a row"),
                    };
                    (text, Some(held_until))
                } else if self.reason == DoorReason::UpstreamDown {
                    let text = "opens on trial when an upstream accepts connections".to_owned();
                    (text, Some(held_until))
                } else {
                    ("opens on trial".to_owned(), Some(self.since + self.retry_delay()))
                }
            }
        }
    }

    fn closing_conditions(&self) -> String {
        let DoorSettings {
            failure_threshold,
            stall_threshold,
            agreeing_networks,
            proof_max_age,
            ..
        } = self.settings;
        let mut conditions = Vec::new();
        if self.signals.has_vantage {
            conditions.push(match failure_threshold {
                1 => "a failed probe".to_owned(),
                many => format!("{many} failed probes in a row"),
            });
        }
        conditions.push("upstream failure".to_owned());
        if self.settings.closes_unproven() {
            conditions.push(format!("{} without a proof", duration(proof_max_age)));
        }
        let stalls = counted(stall_threshold.into(), "stalled session");
        format!("{} or {stalls} from {agreeing_networks} networks", conditions.join(", "))
    }
}
