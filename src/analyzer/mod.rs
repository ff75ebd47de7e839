//! Packets to sessions: joins the decoder, the flow table and a passive observer for each flow ([`Analyzer`]). [`Pipeline`]
//! adds the names of servers, traffic and fallbacks.
//!
//! Layer 3, without socket and clock. The caller passes packets of a file or of an interface and collects the sessions that
//! ended.

#![warn(clippy::indexing_slicing)]

mod flow_session;
mod packet_counts;
mod pipeline;
mod sessions;
mod settings;
mod summary;
#[cfg(test)]
mod tests;

pub use self::packet_counts::PacketCounts;
pub use self::pipeline::{NameSource, Pipeline};
pub use self::sessions::{Analyzer, FinishedSession};
pub use self::settings::{AnalyzerSettings, Transcripts};
