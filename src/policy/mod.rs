//! Policy: facts in, verdict out, as pure functions.
//!
//! Layer 2. Nothing here asks a clock, a socket or a resolver.

mod access;
pub mod door;
pub mod facts;
mod reply;
pub mod rules;

pub use access::{AccessRule, AccessRules, Action, Verdict};
pub use reply::{MAX_TEXT, reply};
