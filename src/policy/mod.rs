//! Policy: facts in, verdict out, as pure functions.
//!
//! Layer 2. Nothing here asks a clock, a socket or a resolver.

mod access;
pub mod facts;

pub use access::{AccessRule, AccessRules, Action, Verdict};
