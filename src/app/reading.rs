//! Packets on their way through the analyst, and what is made of its sessions: the same for a capture and for the wire.

use std::cell::LazyCell;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::passed::{attempt, passed};
use crate::addr::Networks;
use crate::analyzer::{Analyzer, AnalyzerSettings, FinishedSession};
use crate::lookup::PassiveDns;
use crate::metrics::Metrics;
use crate::stream::{self, SocketEvent};
use crate::time::Timestamp;
use crate::traffic::fallback::{Fallback, FallbackDetector};
use crate::traffic::{FlowSummary, MailDirection, Traffic};
use crate::wire::Packet;

/// How often, in the packets' time, fall-backs are looked for.
const LOOK: Duration = Duration::from_secs(60);

/// How often the metrics learn what was lost.
const COUNT: Duration = Duration::from_secs(1);

/// Who hears of flows.
pub(super) type Told = Arc<dyn Fn(&FlowSummary<'_>) + Send + Sync>;

/// One capture, or the wire, from its first packet on.
pub(super) struct Reading {
    analyst: Analyzer,
    /// What DNS servers said in it.
    dns: PassiveDns,
    pairs: FallbackDetector,
    traffic: Traffic,
    metrics: Option<Arc<Metrics>>,
    /// Told of every flow.
    told: Option<Told>,
    /// What the metrics know of the flow table.
    counted: stream::StreamCounters,
    next_count: Timestamp,
    over: Vec<FinishedSession>,
    found: Vec<Fallback>,
    next_look: Timestamp,
}

impl Reading {
    /// `ours` are the addresses of our own side.
    pub(super) fn new(settings: AnalyzerSettings, ours: Networks) -> Self {
        Self::further(settings, Traffic::new(ours))
    }

    /// One more capture: what passed in it is added to `traffic`.
    pub(super) fn further(settings: AnalyzerSettings, traffic: Traffic) -> Self {
        Self {
            analyst: Analyzer::new(settings),
            dns: PassiveDns::default(),
            pairs: FallbackDetector::new(),
            traffic,
            metrics: None,
            told: None,
            counted: stream::StreamCounters::default(),
            next_count: Timestamp::default(),
            over: Vec::new(),
            found: Vec::new(),
            next_look: Timestamp::default(),
        }
    }

    /// Counts flows, fall-backs and what the flow table lost in `metrics`, too.
    #[must_use]
    pub(super) fn counting(mut self, metrics: Option<Arc<Metrics>>) -> Self {
        self.metrics = metrics;
        self
    }

    /// Tells `told` of every flow that is over, too.
    #[must_use]
    pub(super) fn telling(mut self, told: Option<Told>) -> Self {
        self.told = told;
        self
    }

    pub(super) fn packet(&mut self, packet: &Packet<'_>) {
        if let Some(datagram) = self.analyst.packet(packet) {
            self.dns.on_datagram(&datagram);
        }
        self.at(packet.at);
    }

    /// What the kernel said of a socket of this host.
    pub(super) fn socket(&mut self, facts: &SocketEvent) {
        self.analyst.socket(facts);
        self.at(facts.at);
    }

    /// It is `at`, and no packet came.
    pub(super) fn tick(&mut self, at: Timestamp) {
        self.analyst.tick(at);
        self.at(at);
    }

    /// The sessions that ended since this was asked last, in the order in which they ended.
    pub(super) fn sessions(&mut self) -> Vec<FinishedSession> {
        std::mem::take(&mut self.over)
    }

    /// The fall-backs that became certain since this was asked last; their sessions have been told before.
    pub(super) fn fall_backs(&mut self) -> Vec<Fallback> {
        std::mem::take(&mut self.found)
    }

    /// No more packets come: whatever is open ends here.
    pub(super) fn finish(&mut self) {
        self.analyst.finish();
        self.take();
        self.look(None);
        self.count();
    }

    pub(super) const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub(super) fn into_traffic(self) -> Traffic {
        self.traffic
    }

    pub(super) const fn dns(&self) -> &PassiveDns {
        &self.dns
    }

    pub(super) const fn analyst(&self) -> &Analyzer {
        &self.analyst
    }

    fn at(&mut self, at: Timestamp) {
        self.traffic.advance(at);
        self.take();
        if at > self.next_count {
            self.next_count = at + COUNT;
            self.count();
        }
        if at > self.next_look {
            self.next_look = at + LOOK;
            self.look(Some(at));
        }
    }

    /// Tells the metrics what reassembly lost.
    fn count(&mut self) {
        if let Some(metrics) = &self.metrics {
            let now = *self.analyst.stream_counts();
            metrics.on_stream_counts(&self.counted, &now);
            self.counted = now;
        }
    }

    /// Takes over the sessions that the analyst has finished.
    fn take(&mut self) {
        for session in self.analyst.sessions() {
            let [client, server] = [session.flow.start.client.ip(), session.flow.start.server.ip()];
            let direction = self.traffic.direction(client, server);
            // Others' names are asked for when mail goes to them.
            let name = match direction {
                MailDirection::Inbound => None,
                MailDirection::Outbound => self.dns.host(server).map(ToString::to_string),
            };
            let passed = passed(&session, direction, name);
            self.traffic.on_flow(&passed);
            if let Some(metrics) = &self.metrics {
                metrics.on_flow(&passed);
            }
            if let Some(told) = &self.told {
                told(&passed);
            }
            self.pairs.push(attempt(&session, &passed));
            self.over.push(session);
        }
    }

    /// Finds the fall-backs that are certain by `now`, or all at the end.
    fn look(&mut self, now: Option<Timestamp>) {
        let names = LazyCell::new(|| self.dns.server_names());
        let share = |one: IpAddr, other: IpAddr| {
            let known = names.of(one).next().is_some() && names.of(other).next().is_some();
            known.then(|| names.common(one, other).is_some())
        };
        let before = self.found.len();
        let mut found = |pair| self.found.push(pair);
        match now {
            Some(now) => self.pairs.advance(now, &share, &mut found),
            None => self.pairs.finish(&share, &mut found),
        }
        for pair in self.found.iter().skip(before) {
            self.traffic.on_fallback(pair);
            if let Some(metrics) = &self.metrics {
                metrics.on_fallback(pair);
            }
        }
    }
}
