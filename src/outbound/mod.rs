//! Our MTA's mail to other hosts: its attempts, what they prove about a host over each family, and which family is avoided.
//!
//! Layer 2: pure functions. The mail log (`postfix::mail_log`) and the watched traffic are the sources of attempts; `app` joins
//! them, and answers Postfix's questions from the result.

mod attempt;
mod refusal;

pub use self::attempt::{Attempt, AttemptOutcome, Delays};
pub use self::refusal::is_policy_refusal;
