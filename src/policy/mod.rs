//! Policy: facts in, verdict out, as pure functions.
//!
//! Layer 2: no clock, no socket, no resolver.

mod access;
pub mod door;
pub mod facts;
mod reply;
pub mod rules;

pub use access::{AccessRule, AccessRules, PolicyAction, Verdict};
pub use reply::{MAX_TEXT, reply};
