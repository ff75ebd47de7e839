//! Policy: facts in, verdict out, as pure functions.
//!
//! Layer 2: no clock, no socket, no resolver.

mod access;
pub mod door;
pub mod facts;
mod listener;
mod reply;
pub mod rules;

pub use access::{AccessRule, AccessRules, ClientArrival, PolicyAction, Verdict};
pub use listener::ListenerCondition;
pub use reply::{MAX_TEXT, reply};
