//! The engine under every segmentation of every dialogue: see `engine/dialogue.rs` for the language.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests end by panicking"
)]

#[path = "engine/content.rs"]
mod content;
#[path = "engine/dialogue.rs"]
mod dialogue;
#[path = "engine/driver.rs"]
mod driver;
#[path = "engine/ends.rs"]
mod ends;
#[path = "engine/hostile.rs"]
mod hostile;
#[path = "engine/identity.rs"]
mod identity;
#[path = "engine/model.rs"]
mod model;
#[path = "engine/policy.rs"]
mod policy;
#[path = "engine/policy_model.rs"]
mod policy_model;
#[path = "engine/refusals.rs"]
mod refusals;
#[path = "engine/sessions.rs"]
mod sessions;
#[path = "engine/witness/mod.rs"]
mod witness;
