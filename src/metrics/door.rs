//! Doors: current state, changes, refused sessions, age of the last proof, signs; the vantage.

use prometheus::{Gauge, IntCounter, IntGauge};

use super::families::Families;
use super::{Metrics, MetricsError, array};
use crate::addr::Family;
use crate::policy::door::{DoorState, DoorStatus, DoorTransition};

/// Values of the label `method`.
const METHODS: [&str; 2] = ["syn", "smtp"];

/// The handles of one family's series.
pub(super) struct DoorSeries {
    /// By [`DoorState::index`].
    state: [IntGauge; DoorState::ALL.len()],
    changes: [IntCounter; DoorState::ALL.len()],
    /// In the order of [`METHODS`].
    refused: [IntCounter; METHODS.len()],
    enforced: IntGauge,
    proof_age: Gauge,
    silence: IntGauge,
}

impl DoorSeries {
    pub(super) fn resolve(families: &Families, family: Family) -> Result<Self, MetricsError> {
        let family = family.as_str();
        Ok(Self {
            enforced: families.door_enforced.get_metric_with_label_values(&[family])?,
            state: array(DoorState::ALL.iter().map(|state| {
                families.door_state.get_metric_with_label_values(&[family, state.as_str()])
            }))?,
            changes: array(DoorState::ALL.iter().map(|state| {
                families.door_changes.get_metric_with_label_values(&[family, state.as_str()])
            }))?,
            refused: array(METHODS.iter().map(|method| {
                families.door_refused.get_metric_with_label_values(&[family, method])
            }))?,
            proof_age: families.door_proof_age.get_metric_with_label_values(&[family])?,
            silence: families.mail_missing.get_metric_with_label_values(&[family])?,
        })
    }
}

impl Metrics {
    /// The current state and proof of a door.
    pub fn set_door(&self, status: &DoorStatus) {
        let door = &self.doors[status.family as usize];
        for (gauge, state) in door.state.iter().zip(DoorState::ALL) {
            gauge.set(i64::from(state == status.state));
        }
        let age = status.proof.map(|proof| status.at.since(proof.at).as_secs_f64());
        door.proof_age.set(age.unwrap_or(-1.0));
    }

    /// Whether mail of this family is missing.
    pub fn set_silence(&self, family: Family, is_silent: bool) {
        self.doors[family as usize].silence.set(i64::from(is_silent));
    }

    /// Whether the vantage answered the latest request; `None` without a vantage.
    pub fn set_vantage_up(&self, up: Option<bool>) {
        self.vantage_up.set(up.map_or(-1, i64::from));
    }

    /// This family has no door.
    pub fn clear_door(&self, family: Family) {
        self.doors[family as usize].state.iter().for_each(|gauge| gauge.set(0));
    }

    /// Whether the state of a door is enforced; `None` without a door.
    pub fn set_door_enforced(&self, family: Family, enforced: Option<bool>) {
        self.doors[family as usize].enforced.set(enforced.map_or(-1, i64::from));
    }

    pub fn on_door_change(&self, family: Family, change: &DoorTransition) {
        self.doors[family as usize].changes[change.to.index()].inc();
    }

    /// New connections that the kernel refused since the last call.
    pub fn add_syn_refusals(&self, family: Family, more: u64) {
        let [syn, _] = &self.doors[family as usize].refused;
        syn.inc_by(more);
    }

    /// The relay refused a session with 421.
    pub(super) fn on_smtp_door_refusal(&self, family: Family) {
        let [_, smtp] = &self.doors[family as usize].refused;
        smtp.inc();
    }

    /// Sessions that the relay refused with 421.
    pub fn smtp_door_refusals(&self, family: Family) -> u64 {
        let [_, smtp] = &self.doors[family as usize].refused;
        smtp.get()
    }
}
