//! What many flows tell together: windows of counts by family and direction, what they prove of the ways that mail takes,
//! and the families compared.
//!
//! Layer 2. Flows, names and time come in as arguments; nothing here asks a clock or a resolver. The same flows in the
//! same order give the same windows and the same evidence, live and from a file. Memory is bounded: some 500 KiB of
//! windows, and [`MAX_DESTINATIONS`] destinations.

mod counts;
mod delivery_outcome;
mod direction;
mod evidence;
pub mod fallback;
mod flow_observer;
mod flow_summary;
mod histogram;
mod per;
mod windows;

#[cfg(test)]
mod tests;

pub use self::counts::FlowCounts;
pub use self::delivery_outcome::DeliveryFacts;
pub use self::direction::MailDirection;
pub use self::evidence::{
    AcceptedCounts, Destination, DestinationKey, Evidence, FamilyResponses, MAX_DESTINATIONS,
    ReceivePathEvidence, ResponseCount, ResponseTotals, ReturnPathEvidence, ServerResponse,
};
pub use self::flow_observer::FlowObserver;
pub use self::flow_summary::{FlowSummary, MessageCounts, StarttlsState};
pub use self::histogram::DurationHistogram;
pub use self::per::{PerDirection, PerFamily};
pub use self::windows::TrafficWindow;

use std::net::IpAddr;

use self::evidence::{Destinations, Received};
use self::fallback::Fallback;
use self::windows::Windows;
use crate::addr::{Family, Networks};
use crate::stream::FlowOutcome;
use crate::time::Timestamp;

/// What passed, as far back as an hour, and what it proves.
#[derive(Clone, Debug)]
pub struct Traffic {
    ours: Networks,
    exclude: Networks,
    now: Timestamp,
    windows: PerFamily<PerDirection<Windows<FlowCounts>>>,
    received: PerFamily<Received>,
    destinations: Destinations,
}

impl Traffic {
    /// `ours` are the addresses of our own side: this host's, or those of the networks whose mail is looked at. Without
    /// any, all traffic counts as inbound and nothing is evidence.
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

    /// Leaves out of the evidence what goes to or comes from `exclude`: upstreams, smarthosts, monitoring.
    #[must_use]
    pub fn excluding(mut self, exclude: Networks) -> Self {
        self.exclude = exclude;
        self
    }

    pub const fn ours(&self) -> &Networks {
        &self.ours
    }

    /// Which way a connection goes.
    pub fn direction(&self, client: IpAddr, server: IpAddr) -> MailDirection {
        MailDirection::of(client, server, &self.ours)
    }

    /// A flow is over. It counts at the time of its last packet, in every window that still reaches back so far; one that
    /// nobody answered when that is known, two minutes later: else the window of a minute would never show it.
    pub fn on_flow(&mut self, passed: &FlowSummary<'_>) {
        self.advance(passed.flow.end);
        let at = match passed.flow.outcome {
            FlowOutcome::Unanswered => self.now,
            _ => passed.flow.end,
        };
        let windows = self.windows.of_mut(passed.family()).of_mut(passed.direction);
        windows.at(at, self.now, |tally| tally.passed(passed));
        self.evidence_of(passed);
    }

    /// A client left IPv6 for IPv4. It counts at the time when it tried IPv4; what is certain of it is known ten minutes
    /// later, so only the window of an hour has it.
    pub fn on_fallback(&mut self, told: &Fallback) {
        self.advance(told.at);
        let windows = self.windows.of_mut(Family::Ipv6).of_mut(told.direction);
        windows.at(told.at, self.now, |tally| tally.fall_back(told));
    }

    /// It is `at`. Time does not go back: what is earlier is ignored.
    pub fn advance(&mut self, at: Timestamp) {
        self.now = self.now.max(at);
    }

    /// The latest time that this was told of.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// What passed in the last minute, ten minutes, hour, and at most a slot of the window more.
    pub fn tally(
        &self,
        window: TrafficWindow,
        family: Family,
        direction: MailDirection,
    ) -> FlowCounts {
        self.windows.of(family).of(direction).sum(window, self.now)
    }

    /// What all of it proves by now.
    pub fn evidence(&self) -> Evidence<'_> {
        Evidence {
            at: self.now,
            receive: PerFamily::each(|family| self.received.of(family).told(self.now)),
            return_path: self.destinations.told(),
        }
    }

    fn evidence_of(&mut self, passed: &FlowSummary<'_>) {
        let [client, server] = [passed.flow.start.client.ip(), passed.flow.start.server.ip()];
        let foreign = match passed.direction {
            MailDirection::Inbound if self.ours.contains(server) => client,
            MailDirection::Outbound => server,
            // Passing through, or from no side of ours.
            MailDirection::Inbound => return,
        };
        if !evidence::counts(foreign, &self.ours, &self.exclude) {
            return;
        }
        match passed.direction {
            MailDirection::Inbound => {
                self.received.of_mut(passed.family()).passed(passed, self.now)
            }
            MailDirection::Outbound => self.destinations.passed(passed),
        }
    }
}
