//! The live relay: listeners, client identity, upstream connections, the pump, limits. Layer 4.

mod settings;

pub use settings::{Identity, Limits, Listen, Settings, TimeoutSets, Upstream};
