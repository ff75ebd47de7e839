//! Our MTA's mail to other hosts: its attempts, what they prove about a host over each family, and which family is avoided.
//!
//! Layer 2: pure functions. The mail log (`postfix::mail_log`) and the watched traffic are the sources of attempts; `app` joins
//! them, and answers Postfix's questions from the result.

mod attempt;
mod finding;
mod host;
mod hosts;
mod outcome_counts;
mod path_health;
mod pins;
mod recent_map;
mod refusal;
mod refused_messages;
mod report;
mod settings;
#[cfg(test)]
mod tests;
mod wire;

pub use self::attempt::{Delays, Effect, OutboundAttempt, OutboundOutcome};
pub use self::finding::OutboundFinding;
pub use self::hosts::{Hosts, MAX_HOSTS};
pub use self::outcome_counts::OutcomeCounts;
pub use self::path_health::{Avoidance, SteeringDecision, TrialBy};
pub use self::pins::{Pin, Pins};
pub use self::refusal::{OTHER_TEXTS, POLICY_DETAILS, POLICY_TEXTS, is_policy_refusal};
pub use self::refused_messages::{MAX_REFUSALS, RefusedMessage, RefusedMessages};
pub use self::report::{
    AddressReport, CanaryPreference, FamilyReport, LastAttempt, OutboundHostReport, OutboundReport,
    OutboundResetReport,
};
pub use self::settings::SteeringSettings;
pub use self::wire::WorkingPath;
