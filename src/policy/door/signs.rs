//! What is known of a family's way in, and what it means.

use serde::{Deserialize, Serialize};

use super::words::{ago, counted, spoken};
use super::{Reason, Settings, WhenUnproven};
use crate::policy::facts::{self, Answer};
use crate::time::Timestamp;

/// What is known of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// When the latest session from outside ended in which a message got its 250.
    pub accepted: Option<Timestamp>,
    /// What a prober elsewhere found; `None` before it answered first, and without one.
    pub probes: Option<Probes>,
    /// A prober elsewhere is configured.
    pub has_vantage: bool,
    /// No upstream takes sessions of this family.
    pub upstream_down: bool,
    /// Sessions that stalled since the latest message.
    pub stalled: Option<Stalled>,
    pub around: Around,
}

/// What a prober elsewhere found. That it could not be asked is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probes {
    /// When its last result came, which is the same as that of so many before it.
    pub last: Timestamp,
    pub reached: bool,
    pub in_a_row: u32,
    pub last_reached: Option<Timestamp>,
    /// What it said of the last, for people.
    pub detail: Option<String>,
}

/// Sessions from outside that reached DATA and went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    pub sessions: u32,
    /// When the first of them began, and the last ended.
    pub since: Timestamp,
    pub last: Timestamp,
}

/// What would be left if the door closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// Whether our MX has an address in the other family; `None` while that is not known.
    pub mx_elsewhere: Option<bool>,
    pub other: Other,
    /// When the other family last took a message.
    pub other_accepted: Option<Timestamp>,
}

/// The other family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Other {
    /// Nothing tells against it.
    #[default]
    Takes,
    /// Its signs are bad, or its door is closed.
    Down,
    /// The gateway has no listener there.
    NotServed,
}

/// What proved a way last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    pub at: Timestamp,
    pub by: ProofBy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProofBy {
    /// A message that was taken.
    Message,
    /// A prober elsewhere.
    Probe,
}

/// What signs say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Judgment {
    Proven(Proof),
    Unproven,
    Bad(Reason, String),
}

impl Signs {
    pub fn proof(&self) -> Option<Proof> {
        let message = self.accepted.map(|at| Proof { at, by: ProofBy::Message });
        let reached = self.probes.as_ref().and_then(|probes| probes.last_reached);
        let probe = reached.map(|at| Proof { at, by: ProofBy::Probe });
        [message, probe].into_iter().flatten().max_by_key(|proof| proof.at)
    }

    /// Something tells against the way.
    pub fn is_bad(&self, settings: &Settings, at: Timestamp) -> bool {
        matches!(self.judge(settings, at), Judgment::Bad(..))
    }

    pub(super) fn judge(&self, settings: &Settings, at: Timestamp) -> Judgment {
        if self.upstream_down {
            let words = "no upstream takes connections for it".to_owned();
            return Judgment::Bad(Reason::UpstreamDown, words);
        }
        if let Some(words) = self.probes_failed(settings, at) {
            return Judgment::Bad(Reason::ProbesFailed, words);
        }
        if let Some(words) = self.stalls(settings) {
            return Judgment::Bad(Reason::Stalled, words);
        }
        match self.proof() {
            Some(proof) if at.since(proof.at) <= settings.fresh => Judgment::Proven(proof),
            _ => Judgment::Unproven,
        }
    }

    fn probes_failed(&self, settings: &Settings, at: Timestamp) -> Option<String> {
        let probes = self.answering(settings, at)?;
        if probes.reached || probes.in_a_row < settings.failures {
            return None;
        }
        // Somebody's mail comes through, so it is the prober's way that is broken.
        if self.accepted.is_some_and(|accepted| at.since(accepted) < settings.dwell) {
            return None;
        }
        let said = probes.detail.as_deref().map_or_else(String::new, |said| format!(": {said}"));
        let probes = counted(probes.in_a_row, "a probe", "probes in a row");
        Some(format!("{probes} did not reach us{said}"))
    }

    /// The prober's results, unless it has fallen silent.
    pub(super) fn answering(&self, settings: &Settings, at: Timestamp) -> Option<&Probes> {
        self.probes.as_ref().filter(|probes| at.since(probes.last) < settings.retry)
    }

    fn stalls(&self, settings: &Settings) -> Option<String> {
        let stalled = self.stalled?;
        let long = stalled.last.since(stalled.since) >= settings.stalled_for;
        let none_since = self.accepted.is_none_or(|accepted| accepted < stalled.since);
        let others_do = self.around.other_accepted.is_some_and(|other| other > stalled.since);
        (stalled.sessions >= settings.stalls && long && none_since && others_do).then(|| {
            format!(
                "{} sessions in {} stalled after DATA and none brought a message, while the other \
                 family takes mail: large packets may be lost on the way (PMTU)",
                stalled.sessions,
                spoken(stalled.last.since(stalled.since))
            )
        })
    }

    /// Why the door must not close.
    pub(super) const fn held(&self) -> Option<(Reason, &'static str)> {
        match (self.around.mx_elsewhere, self.around.other) {
            (Some(false), _) => Some((
                Reason::NoOtherAddress,
                "our MX has no address in the other family, to which senders could go",
            )),
            (_, Other::NotServed) => Some((
                Reason::OtherNotServed,
                "the gateway does not listen in the other family, to which senders could go",
            )),
            (_, Other::Down) => {
                Some((Reason::OtherFamilyDown, "the other family does not take mail either"))
            }
            (_, Other::Takes) => None,
        }
    }

    pub(super) fn unproven(&self, at: Timestamp) -> String {
        match self.proof() {
            Some(proof) => format!("not proven for {}", spoken(at.since(proof.at))),
            None => "nothing has proved it yet".to_owned(),
        }
    }
}

impl Settings {
    pub(super) fn closes_unproven(&self) -> bool {
        self.when_unproven == WhenUnproven::Close
    }
}

impl Proof {
    /// `a message 5 min ago`
    pub(super) fn words(self, at: Timestamp) -> String {
        let what = match self.by {
            ProofBy::Message => "a message was taken",
            ProofBy::Probe => "a probe reached us",
        };
        format!("{what} {}", ago(at.since(self.at)))
    }
}

/// Whether mail from the world reaches us: the answer to [`facts::Lookup::ReceivePath`].
pub fn receive_path(signs: &Signs, settings: &Settings, at: Timestamp) -> Answer {
    match signs.judge(settings, at) {
        Judgment::Proven(proof) => Answer::Yes(Some(proof.words(at))),
        Judgment::Unproven => Answer::Unknown(facts::Reason::NoProof),
        Judgment::Bad(reason, detail) => {
            let reason = match reason {
                Reason::UpstreamDown => facts::Reason::UpstreamDown,
                Reason::Stalled => facts::Reason::Stalled,
                _ => facts::Reason::NotReached,
            };
            Answer::No(reason, Some(detail))
        }
    }
}
