//! Settings of an analysis.

use std::sync::Arc;

use crate::engine::{ListenerProfiles, Observe};
use crate::stream::{FlowLimits, WatchedPorts};

#[derive(Clone)]
pub struct AnalyzerSettings {
    /// Policy evaluated in shadow; the default profiles accept everything.
    pub profiles: Arc<ListenerProfiles>,
    pub ports: WatchedPorts,
    pub limits: FlowLimits,
    /// Receives every event and every record, as in the live relay.
    pub observer: Arc<dyn Observe>,
    pub transcripts: Transcripts,
    /// Sessions in captures read before; numbering continues after it.
    pub numbered: u64,
}

/// Sessions whose whole dialogue is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transcripts {
    #[default]
    None,
    /// The session with this number.
    One(u64),
    All,
}

impl Default for AnalyzerSettings {
    fn default() -> Self {
        Self {
            profiles: Arc::default(),
            ports: WatchedPorts::default(),
            limits: FlowLimits::default(),
            observer: Arc::new(()),
            transcripts: Transcripts::None,
            numbered: 0,
        }
    }
}
