//! Losses of a capture.

use serde::Serialize;

/// Packets and bytes missing from a live capture, by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CaptureLosses {
    /// Client SYNs that the source could not deliver: possibly sessions that were never seen.
    #[serde(rename = "openings")]
    pub syns: u64,
    /// Other packets that it could not deliver.
    pub packets: u64,
    /// Directions of interfaces in which other software may hide packets from the source.
    pub hidden: u64,
    /// Bytes missing after reassembly: never captured, truncated by a snap length, not waited for, still missing when the
    /// flow ended.
    pub not_captured: u64,
    #[serde(rename = "cut")]
    pub truncated: u64,
    pub given_up: u64,
    #[serde(rename = "unfinished")]
    pub flow_ended: u64,
    /// Losses of parser synchronisation.
    pub desyncs: u64,
    /// Lines that are not in the output, because its reader was too slow; the metrics have their sessions.
    pub lines: u64,
}

impl CaptureLosses {
    /// Bytes missing after reassembly.
    pub(super) fn missing_bytes(&self) -> u64 {
        let causes = [self.not_captured, self.truncated, self.given_up, self.flow_ended];
        causes.into_iter().fold(0, u64::saturating_add)
    }
}
