//! Signals about a family's receive path, and their assessment.

use super::proof::{PathProof, ProofSource};
use super::state::{DoorReason, DoorSettings, SpamParity};
use crate::humanize::{counted, duration};
use crate::policy::facts::{self, Answer};
use crate::time::Timestamp;

/// The present signals of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// End of the latest session from outside in which a message got its 250.
    pub accepted: Option<Timestamp>,
    /// End of the latest session from outside in which a message arrived in full, by the mail server's question at its end.
    pub received: Option<Timestamp>,
    /// End of the latest completed encrypted session from outside in which recipients were accepted, by its question at DATA.
    pub envelope: Option<Timestamp>,
    /// End of the latest completed encrypted session from outside.
    pub encrypted: Option<Timestamp>,
    /// All of these since the start.
    pub encrypted_total: u64,
    /// Results of the vantage; `None` before the first, and without a vantage.
    pub probes: Option<ProbeResults>,
    /// A vantage is configured.
    pub has_vantage: bool,
    /// No upstream accepts sessions of this family.
    pub upstream_down: bool,
    /// Sessions that stalled since the latest session in which large segments passed.
    pub stalled: Option<StalledSessions>,
    /// Mail of this family is accepted and then marked as spam or lost, as canaries show, that of the other family is not: the
    /// detail, for people.
    pub filtered: Option<String>,
    pub alternatives: Alternatives,
}

/// Results of a vantage. A failure to reach the vantage is not a result (rule 14 of ARCHITECTURE.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResults {
    /// Time of the latest result.
    pub last: Timestamp,
    pub reached: bool,
    /// The latest results that are equal to the last.
    pub in_a_row: u32,
    pub last_reached: Option<Timestamp>,
    /// The latest result of a probe whose large segment arrived.
    pub last_large: Option<Timestamp>,
    /// The vantage's detail of the latest result, for people.
    pub detail: Option<String>,
}

/// Sessions from outside that reached DATA and went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StalledSessions {
    /// A network's sessions count only up to its part of [`DoorSettings::stall_threshold`].
    pub sessions: u32,
    /// The networks that they came from.
    pub networks: u32,
    /// Begin of the first session.
    pub since: Timestamp,
    /// End of the last session.
    pub last: Timestamp,
}

/// Where mail could go if the door were closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alternatives {
    /// Whether our MX has an address in the other family; `None` if unknown.
    pub mx_in_other_family: Option<bool>,
    pub other: OtherFamily,
    /// When mail last arrived over the other family.
    pub other_accepted: Option<Timestamp>,
}

/// State of the other family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OtherFamily {
    /// No bad signals.
    #[default]
    Up,
    /// Its signals are bad, or its door is closed.
    Down,
    /// The gateway has no listener there.
    NotServed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Assessment {
    Proven(PathProof),
    Unproven,
    Bad(DoorReason, String),
}

impl Signals {
    pub fn proof(&self) -> Option<PathProof> {
        let proof = |at, by| PathProof { at, by, under_tls: self.encrypted_total };
        let mail = [
            (self.encrypted, ProofSource::Session),
            (self.envelope, ProofSource::Envelope),
            (self.received, ProofSource::Received),
            (self.accepted, ProofSource::Message),
        ];
        let mail = mail.into_iter().filter_map(|(at, by)| Some(proof(at?, by)));
        let reached = self.probes.as_ref().and_then(|probes| probes.last_reached);
        let probe = reached.map(|at| proof(at, ProofSource::Probe));
        // Of several at the same time the last, which proves most.
        mail.chain(probe).max_by_key(|proof| proof.at)
    }

    pub fn are_bad(&self, settings: &DoorSettings, now: Timestamp) -> bool {
        matches!(self.assess(settings, now), Assessment::Bad(..))
    }

    pub(super) fn assess(&self, settings: &DoorSettings, now: Timestamp) -> Assessment {
        if self.upstream_down {
            let detail = "no upstream accepts its sessions".to_owned();
            return Assessment::Bad(DoorReason::UpstreamDown, detail);
        }
        if let Some(detail) = self.failed_probes(settings, now) {
            return Assessment::Bad(DoorReason::ProbesFailed, detail);
        }
        if let Some(detail) = self.stalls(settings, now) {
            return Assessment::Bad(DoorReason::Stalled, detail);
        }
        if let Some(detail) = self.filtered.as_ref().filter(|_| settings.closes_filtered()) {
            return Assessment::Bad(DoorReason::Filtered, detail.clone());
        }
        match self.proof() {
            Some(proof) if now.since(proof.at) <= settings.proof_max_age => {
                Assessment::Proven(proof)
            }
            _ => Assessment::Unproven,
        }
    }

    fn failed_probes(&self, settings: &DoorSettings, now: Timestamp) -> Option<String> {
        let probes = self.current_probes(settings, now)?;
        if probes.reached || probes.in_a_row < settings.failure_threshold {
            return None;
        }
        // Mail arrives, so it is the vantage's own path that fails.
        if self.arrived().is_some_and(|arrived| now.since(arrived) < settings.min_hold) {
            return None;
        }
        let detail = probes.detail.as_deref().map_or_else(String::new, |text| format!(": {text}"));
        let failed = match probes.in_a_row {
            1 => "1 probe".to_owned(),
            many => format!("{many} probes in a row"),
        };
        Some(format!("{failed} did not reach us{detail}"))
    }

    /// The latest mail, as far as it can be seen.
    pub fn arrived(&self) -> Option<Timestamp> {
        self.accepted.max(self.received).max(self.encrypted)
    }

    /// The vantage's results, unless it no longer responds.
    pub(super) fn current_probes(
        &self,
        settings: &DoorSettings,
        now: Timestamp,
    ) -> Option<&ProbeResults> {
        self.probes.as_ref().filter(|probes| now.since(probes.last) < settings.probe_max_age)
    }

    /// There is a vantage, which gives no results: for want of a proof it would have to be asked.
    pub(super) fn vantage_is_mute(&self, settings: &DoorSettings, now: Timestamp) -> bool {
        self.has_vantage && self.current_probes(settings, now).is_none()
    }

    /// The vantage's last probe passed, with a large segment.
    fn large_probe_passes(&self, settings: &DoorSettings, now: Timestamp) -> bool {
        let probes = self.current_probes(settings, now).filter(|probes| probes.reached);
        let passed = probes.and_then(|probes| probes.last_large);
        passed.is_some_and(|at| now.since(at) < settings.probe_max_age)
    }

    fn stalls(&self, settings: &DoorSettings, now: Timestamp) -> Option<String> {
        let stalled = self.stalled?;
        let span = stalled.last.since(stalled.since);
        let other_accepts = self.alternatives.other_accepted.is_some_and(|at| at > stalled.since);
        (stalled.networks >= settings.agreeing_networks.max(2)
            && stalled.sessions >= settings.stall_threshold
            && span >= settings.stall_duration
            && other_accepts
            && !self.large_probe_passes(settings, now))
            .then(|| {
                format!(
                    "{} from {} in {} stalled where the message is due and no large message arrived, while the other \
                     family accepts mail: large packets may be lost on the path (PMTU)",
                    counted(stalled.sessions.into(), "session"),
                    counted(stalled.networks.into(), "network"),
                    duration(span)
                )
            })
    }

    /// Why the door must not close.
    pub(super) const fn held_open(&self) -> Option<(DoorReason, &'static str)> {
        match (self.alternatives.mx_in_other_family, self.alternatives.other) {
            (Some(false), _) => Some((
                DoorReason::NoOtherAddress,
                "our MX has no address in the other family for senders to use",
            )),
            (_, OtherFamily::NotServed) => Some((
                DoorReason::OtherNotServed,
                "the gateway does not listen in the other family",
            )),
            (_, OtherFamily::Down) => {
                Some((DoorReason::OtherFamilyDown, "the other family does not accept mail either"))
            }
            (_, OtherFamily::Up) => None,
        }
    }

    pub(super) fn unproven(&self, now: Timestamp) -> String {
        match self.proof() {
            Some(proof) => format!("no proof for {}", duration(now.since(proof.at))),
            None => "no proof yet".to_owned(),
        }
    }
}

/// Whether mail from the Internet reaches us: the answer to [`facts::Lookup::ReceivePath`].
pub fn receive_path(signals: &Signals, settings: &DoorSettings, now: Timestamp) -> Answer {
    // Mail that a filter takes away has reached us.
    let settings = &DoorSettings { spam_parity: SpamParity::Warn, ..settings.clone() };
    match signals.assess(settings, now) {
        Assessment::Proven(proof) => Answer::Yes(Some(proof.text(now))),
        Assessment::Unproven => Answer::Unknown(facts::Reason::NoProof),
        Assessment::Bad(reason, detail) => {
            let reason = match reason {
                DoorReason::UpstreamDown => facts::Reason::UpstreamDown,
                DoorReason::Stalled => facts::Reason::EstablishedButStalled,
                _ => facts::Reason::NotReached,
            };
            Answer::No(reason, Some(detail))
        }
    }
}
