//! States, reasons, settings and reports of a door.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::proof::PathProof;
use super::silence::SilenceSign;
use super::vantage::VantageStatus;
use crate::addr::Family;
use crate::label::labels;
use crate::time::Timestamp;

/// `[door.ipv6]`, `[door.ipv4]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorSettings {
    pub when_unproven: WhenUnproven,
    /// An older proof counts for nothing.
    pub proof_max_age: Duration,
    /// Failed probes in a row that are bad.
    pub failure_threshold: u32,
    /// Successful probes in a row that open a closed door.
    pub success_threshold: u32,
    /// Age at which the vantage's latest result counts for nothing.
    pub probe_max_age: Duration,
    /// Different networks of clients ([`crate::addr::NetworkKey`]) whose sessions must agree. At least 2: no network alone
    /// closes a door.
    pub agreeing_networks: u32,
    /// Stalled sessions, spread over at least `stall_duration`, that are bad.
    pub stall_threshold: u32,
    pub stall_duration: Duration,
    /// How long signals must be bad before the door closes.
    pub grace: Duration,
    /// The minimum time between an opening and a closing, or the reverse.
    pub min_hold: Duration,
    /// The wait before the first trial of a closed door, and the longest wait.
    pub retry: Duration,
    pub retry_max: Duration,
    pub spam_parity: SpamParity,
}

impl Default for DoorSettings {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            when_unproven: WhenUnproven::Open,
            proof_max_age: minutes(24 * 60),
            failure_threshold: 3,
            success_threshold: 2,
            probe_max_age: minutes(10),
            agreeing_networks: 3,
            stall_threshold: 3,
            stall_duration: minutes(10),
            grace: minutes(1),
            min_hold: minutes(5),
            retry: minutes(10),
            retry_max: minutes(120),
            spam_parity: SpamParity::default(),
        }
    }
}

impl DoorSettings {
    pub(super) fn closes_unproven(&self) -> bool {
        self.when_unproven == WhenUnproven::Close
    }

    pub(super) fn closes_filtered(&self) -> bool {
        self.spam_parity == SpamParity::Close
    }
}

/// The effect of having no recent proof and no bad signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnproven {
    #[default]
    Open,
    Close,
}

/// The effect of canaries that are filtered away over this family and not over the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpamParity {
    /// A sign.
    #[default]
    Warn,
    Close,
}

labels! {
    pub enum DoorState {
        Open = "open",
        /// Signals are bad; it still admits.
        Closing = "closing",
        Closed = "closed",
        /// On trial: it admits, and waits for a proof.
        Opening = "opening",
    }
}

impl DoorState {
    /// Whether new sessions are admitted.
    pub const fn admits(self) -> bool {
        !matches!(self, Self::Closed)
    }
}

labels! {
    /// The operator's setting.
    pub enum OperatorMode {
        Auto = "auto",
        Open = "open",
        Close = "close",
    }
}

labels! {
    /// Why a door is in its state.
    pub enum DoorReason {
        /// Nothing is proven since the start.
        Started = "started",
        Proven = "proven",
        /// The last proof is too old, or there is none.
        Unproven = "unproven",
        ProbesFailed = "probes_failed",
        UpstreamDown = "upstream_down",
        Stalled = "stalled",
        /// Canaries are accepted, and marked as spam or lost.
        Filtered = "filtered",
        /// Open to find out whether mail works again.
        Trial = "trial",
        Operator = "operator",
        /// Held open: our MX has no address in the other family.
        NoOtherAddress = "no_other_address",
        /// Held open: the other family does not work either, or its door is closed.
        OtherFamilyDown = "other_family_down",
        /// Held open: the gateway does not listen in the other family.
        OtherNotServed = "other_not_served",
    }
}

/// A transition from one state to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorTransition {
    pub from: DoorState,
    pub to: DoorState,
    pub at: Timestamp,
    pub reason: DoorReason,
    /// For people.
    pub detail: String,
}

/// The serde form is that of `gatepost door --format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorStatus {
    pub family: Family,
    pub state: DoorState,
    pub admits: bool,
    pub since: Timestamp,
    pub mode: OperatorMode,
    pub reason: DoorReason,
    /// The reason as text.
    pub detail: String,
    /// The latest; null if there is none.
    pub proof: Option<PathProof>,
    /// The condition of the next transition, as text.
    pub next: String,
    /// The earliest time of the next transition, if known.
    pub next_at: Option<Timestamp>,
    pub at: Timestamp,
}

/// One family's door in the JSON form of `gatepost door`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DoorReport {
    pub family: Family,
    /// Null if the family has no door: it is always admitted.
    pub status: Option<DoorStatus>,
    /// Where a closed door refuses: `syn`, in the kernel, or `smtp`, in the relay.
    pub refuses: String,
    /// Refused since the start.
    pub refused: u64,
    /// Null without a vantage.
    pub vantage: Option<VantageStatus>,
    /// Mail of the family is missing; null if none is.
    pub silence: Option<SilenceSign>,
    /// Mail of the family is filtered away, as canaries show: the detail; null if it is not.
    pub filtered: Option<String>,
    /// False while a closed door refuses nothing, because mail does not reach the gateway.
    pub enforced: bool,
}
