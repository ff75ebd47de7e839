//! Receivers of finished flows: metrics, and lookups that use them as hints.

use super::FlowSummary;
use super::fallback::Fallback;
use crate::stream::StreamCounters;

pub trait FlowObserver: Send + Sync {
    /// A flow ended.
    fn on_flow(&self, flow: &FlowSummary<'_>);

    /// A client fell back from IPv6 to IPv4. [`Self::on_flow`] has received both flows before.
    fn on_fallback(&self, _fallback: &Fallback) {}

    /// The flow table's counters at the last call and now.
    fn on_stream_counts(&self, _before: &StreamCounters, _now: &StreamCounters) {}
}
