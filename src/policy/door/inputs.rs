//! The inputs of both doors at one moment: each family's signals need the state of the other family.

use super::inbound::FamilyEvidence;
use super::signals::{Alternatives, OtherFamily, ProbeResults, Signals};
use super::state::DoorSettings;
use crate::addr::Family;
use crate::policy::facts::{Answer, Reason};
use crate::time::Timestamp;

/// One family.
#[derive(Clone, Debug)]
pub struct FamilyInputs {
    /// Without alternatives.
    pub signals: Signals,
    pub settings: DoorSettings,
    /// The gateway has a listener.
    pub is_served: bool,
    /// Its door refuses sessions.
    pub is_closed: bool,
    /// Whether our MX has an address; `None` if unknown.
    pub mx_has_address: Option<bool>,
}

/// By position in [`Family::ALL`].
pub type DoorInputs = [FamilyInputs; Family::ALL.len()];

/// The signals of `family`, with the alternatives that the other family offers.
pub fn signals_of(family: Family, inputs: &DoorInputs, now: Timestamp) -> Signals {
    let [own, other] = [family, family.other()].map(|family| &inputs[family as usize]);
    let mut signals = own.with_other_messages(other);
    // Bad signals count, not only a closed door: where both families are bad, the door that is updated first would else
    // close because the other has not closed yet.
    let other_is_bad = other.with_other_messages(own).are_bad(&other.settings, now);
    signals.alternatives.other = if !other.is_served {
        OtherFamily::NotServed
    } else if other_is_bad || other.is_closed {
        OtherFamily::Down
    } else {
        OtherFamily::Up
    };
    signals
}

impl FamilyInputs {
    /// Complete but for the state of the other family.
    fn with_other_messages(&self, other: &Self) -> Signals {
        let alternatives = Alternatives {
            mx_in_other_family: other.mx_has_address,
            other: OtherFamily::default(),
            other_accepted: other.signals.arrived(),
        };
        Signals { alternatives, ..self.signals.clone() }
    }
}

/// What the relay's own sessions show; the rest is not known yet.
impl From<FamilyEvidence> for Signals {
    fn from(evidence: FamilyEvidence) -> Self {
        Self {
            accepted: evidence.accepted,
            received: evidence.received,
            envelope: evidence.envelope,
            encrypted: evidence.encrypted,
            encrypted_total: evidence.encrypted_total,
            upstream_down: evidence.upstream_down,
            stalled: evidence.stalled,
            ..Self::default()
        }
    }
}

/// One result of a vantage, over all of our domains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// Data passed in both directions.
    Reached {
        /// A large segment arrived (rule 15 of ARCHITECTURE.md).
        large: bool,
    },
    /// With the detail for people.
    NotReached(String),
    /// The vantage does not know.
    Unknown,
    /// The vantage could not be asked, and why.
    NoAnswer(String),
}

impl ProbeResult {
    /// The result for one domain, from the receive path that the vantage found; `None` for a domain without an address in
    /// the family, which no mail over that family can reach anyway.
    pub fn of_domain(
        receive_path: &Answer,
        large: bool,
        detail: impl FnOnce() -> String,
    ) -> Option<Self> {
        match receive_path {
            Answer::Yes(_) => Some(Self::Reached { large }),
            Answer::No(Reason::NoUsableAddress, _) => None,
            Answer::No(..) => Some(Self::NotReached(detail())),
            _ => Some(Self::Unknown),
        }
    }
}

impl ProbeResults {
    /// Adds a result that arrived at `at`. An unknown result proves nothing (rule 14 of ARCHITECTURE.md).
    pub fn with(before: Option<Self>, result: ProbeResult, at: Timestamp) -> Option<Self> {
        let (reached, large, detail) = match result {
            ProbeResult::Reached { large } => (true, large, None),
            ProbeResult::NotReached(detail) => (false, false, Some(detail)),
            ProbeResult::Unknown | ProbeResult::NoAnswer(_) => return before,
        };
        let same = before.as_ref().filter(|before| before.reached == reached);
        let in_a_row = same.map_or(1, |before| before.in_a_row.saturating_add(1));
        let (mut last_reached, mut last_large) =
            before.map(|before| (before.last_reached, before.last_large)).unwrap_or_default();
        if reached {
            last_reached = Some(at);
        }
        if large {
            last_large = Some(at);
        }
        Some(Self { last: at, reached, in_a_row, last_reached, last_large, detail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_results_are_counted_and_unknown_ones_are_not() {
        let at = Timestamp::from_nanos;
        let failed = || ProbeResult::NotReached("no_response".to_owned());
        let mut results = ProbeResults::with(None, ProbeResult::Unknown, at(1));
        assert_eq!(results, None);
        for (result, nanos) in [
            (ProbeResult::Reached { large: true }, 1),
            (ProbeResult::Reached { large: false }, 2),
            (failed(), 3),
            (ProbeResult::Unknown, 4),
            (ProbeResult::NoAnswer("timed out".to_owned()), 4),
            (failed(), 5),
        ] {
            results = ProbeResults::with(results, result, at(nanos));
        }
        let expected = ProbeResults {
            last: at(5),
            reached: false,
            in_a_row: 2,
            last_reached: Some(at(2)),
            last_large: Some(at(1)),
            detail: Some("no_response".to_owned()),
        };
        assert_eq!(results, Some(expected));
    }

    #[test]
    fn a_domain_without_an_address_has_no_result() {
        let of = |answer| ProbeResult::of_domain(&answer, true, || "mx no_response".to_owned());
        assert_eq!(of(Answer::Yes(None)), Some(ProbeResult::Reached { large: true }));
        assert_eq!(of(Answer::No(Reason::NoUsableAddress, None)), None);
        let not_reached = ProbeResult::NotReached("mx no_response".to_owned());
        assert_eq!(of(Answer::No(Reason::NotReached, None)), Some(not_reached));
        assert_eq!(of(Answer::Unknown(Reason::Timeout)), Some(ProbeResult::Unknown));
    }

    #[test]
    fn alternatives_come_from_the_other_family() {
        let family = |upstream_down| FamilyInputs {
            signals: Signals { upstream_down, ..Signals::default() },
            settings: DoorSettings::default(),
            is_served: true,
            is_closed: false,
            mx_has_address: Some(true),
        };
        let now = Timestamp::default();
        let other = |inputs: &DoorInputs| signals_of(Family::Ipv6, inputs, now).alternatives.other;
        let mut inputs = [family(false), family(true)];
        assert_eq!(other(&inputs), OtherFamily::Up);
        // Both are bad; neither is closed yet.
        inputs[Family::Ipv4 as usize] = family(true);
        assert_eq!(other(&inputs), OtherFamily::Down);
        inputs[Family::Ipv4 as usize] = FamilyInputs { is_closed: true, ..family(false) };
        assert_eq!(other(&inputs), OtherFamily::Down);
        inputs[Family::Ipv4 as usize].is_served = false;
        assert_eq!(other(&inputs), OtherFamily::NotServed);
    }
}
