//! Statistics of many flows: windows of counts by family and direction, evidence of the mail paths, and fallbacks from
//! IPv6 to IPv4.
//!
//! Layer 2. Flows, names and time are arguments; no clock, no resolver. The same flows in the same order give the same
//! windows and evidence, live and from a file. Memory is bounded: about 500 KiB of windows, and [`MAX_DESTINATIONS`]
//! destinations.

mod counts;
mod delivery_outcome;
mod direction;
mod evidence;
pub mod fallback;
mod flow_observer;
mod flow_summary;
mod histogram;
mod per;
mod response;
#[cfg(test)]
mod tests;
mod windows;

pub use self::counts::FlowCounts;
pub use self::delivery_outcome::DeliveryFacts;
pub use self::direction::MailDirection;
pub use self::evidence::{
    AcceptedCounts, Destination, DestinationKey, Evidence, FamilyResponses, MAX_DESTINATIONS,
    ReceivePathEvidence, ResponseCount, ReturnPathEvidence,
};
pub use self::flow_observer::FlowObserver;
pub use self::flow_summary::{FlowSummary, MessageCounts, StarttlsState};
pub use self::histogram::DurationHistogram;
pub use self::per::{PerDirection, PerFamily};
pub use self::response::{ConnectionResponse, PerResponse};
pub use self::windows::TrafficWindow;

use std::net::IpAddr;

use self::evidence::{Destinations, ReceiveTracker};
use self::fallback::Fallback;
use self::windows::Windows;
use crate::addr::{Family, Networks};
use crate::stream::FlowOutcome;
use crate::time::Timestamp;

/// Windows of up to an hour, and evidence since the start.
#[derive(Clone, Debug)]
pub struct Traffic {
    ours: Networks,
    exclude: Networks,
    now: Timestamp,
    windows: PerFamily<PerDirection<Windows<FlowCounts>>>,
    received: PerFamily<ReceiveTracker>,
    destinations: Destinations,
}

impl Traffic {
    /// `ours` are this host's addresses, or the networks whose mail is observed. If it is empty, all traffic counts as
    /// inbound and nothing is evidence.
    pub fn new(ours: Networks) -> Self {
        Self {
            ours,
            exclude: Networks::default(),
            now: Timestamp::default(),
            windows: PerFamily::default(),
            received: PerFamily::default(),
            destinations: Destinations::default(),
        }
    }

    /// Flows to or from `exclude` are not evidence: upstreams, smarthosts, monitoring.
    #[must_use]
    pub fn excluding(mut self, exclude: Networks) -> Self {
        self.exclude = exclude;
        self
    }

    /// From now on these are on our side.
    pub fn set_ours(&mut self, ours: Networks) {
        self.ours = ours;
    }

    pub const fn ours(&self) -> &Networks {
        &self.ours
    }

    pub fn direction(&self, client: IpAddr, server: IpAddr) -> MailDirection {
        MailDirection::of(client, server, &self.ours)
    }

    /// A finished flow counts at the time of its last packet, in every window that still covers it. An unanswered one is
    /// known only two minutes later and counts at that time, or the window of a minute would never include it.
    pub fn on_flow(&mut self, summary: &FlowSummary<'_>) {
        self.advance(summary.flow.end);
        let at = match summary.flow.outcome {
            FlowOutcome::Unanswered | FlowOutcome::Unknown => self.now,
            _ => summary.flow.end,
        };
        let windows = self.windows.of_mut(summary.family()).of_mut(summary.direction);
        windows.count_at(at, self.now, |counts| counts.add_flow(summary));
        self.add_evidence(summary);
    }

    /// A fallback counts at the start of its IPv4 attempt. It is certain only ten minutes later, so only the window of an
    /// hour includes it.
    pub fn on_fallback(&mut self, fallback: &Fallback) {
        self.advance(fallback.at);
        let windows = self.windows.of_mut(Family::Ipv6).of_mut(fallback.direction);
        windows.count_at(fallback.at, self.now, |counts| counts.add_fallback(fallback));
    }

    /// Sets the time. An earlier time than the present one is ignored.
    pub fn advance(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// The latest time of any input.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The counts of the last minute, ten minutes or hour, and of at most one slot more.
    pub fn counts(
        &self,
        window: TrafficWindow,
        family: Family,
        direction: MailDirection,
    ) -> FlowCounts {
        self.windows.of(family).of(direction).sum(window, self.now)
    }

    /// The evidence at the present time.
    pub fn evidence(&self) -> Evidence<'_> {
        Evidence {
            at: self.now,
            receive: PerFamily::each(|family| self.received.of(family).evidence(self.now)),
            return_path: self.destinations.evidence(),
        }
    }

    fn add_evidence(&mut self, summary: &FlowSummary<'_>) {
        let [client, server] = [summary.flow.start.client.ip(), summary.flow.start.server.ip()];
        let foreign = match summary.direction {
            MailDirection::Inbound if self.ours.contains(server) => client,
            MailDirection::Outbound => server,
            // Transit, or our own addresses are not known.
            MailDirection::Inbound => return,
        };
        if !evidence::counts(foreign, &self.ours, &self.exclude) {
            return;
        }
        match summary.direction {
            MailDirection::Inbound => {
                self.received.of_mut(summary.family()).add(summary, self.now);
            }
            MailDirection::Outbound => self.destinations.add(summary),
        }
    }
}
