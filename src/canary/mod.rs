//! Canaries: a pair of ordinary, identical messages, one over each family, and the comparison of what became of them.
//!
//! Layer 2, pure: no socket, no clock, no file. [`CanaryToken`] is the Message-ID by which only the owner of a key makes or
//! recognises a canary; [`MarkRules`] is the table of what spam filters write into a message; [`CanaryPairs`] collects the
//! reports about both messages of a pair and compares them. Nothing that was not measured counts as good: a message without
//! a report is unknown until its time is over, and then lost.

#![warn(clippy::indexing_slicing)]

mod compose;
mod daily_limit;
mod delivery;
mod judgement;
mod marks;
mod monitor;
mod outcome;
mod pairs;
mod pattern;
mod report;
mod saved;
mod token;

pub use self::compose::{CanaryAddresses, compose, subject};
pub use self::daily_limit::DailyLimit;
pub use self::delivery::{CanaryDelivery, DeliveryStage};
pub use self::judgement::HeaderJudgement;
pub use self::marks::{Mark, MarkRules, SpamFilter, SpamScore};
pub use self::monitor::{CanaryMonitor, CanaryStatus};
pub use self::outcome::{CanaryOutcome, Comparison};
pub use self::pairs::{CanaryPair, CanaryPairs, MarkedWhere, PairHalf, PairResult};
pub use self::pattern::{MarkPattern, MarkPatternError};
pub use self::report::{CanaryReport, MAX_REPORT, PassedMessage};
pub use self::saved::{SavedCanaries, SavedDirection, SavedPairs};
pub use self::token::{CanaryDirection, CanaryToken, MAX_AGE, NotACanary, PairId};

#[cfg(test)]
mod tests;
