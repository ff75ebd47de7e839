//! Packets to sessions, traffic and fallbacks: the same for a capture file and for an interface.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::sessions::{Analyzer, FinishedSession};
use super::settings::AnalyzerSettings;
use crate::addr::Networks;
use crate::stream::{SocketEvent, StreamCounters};
use crate::time::Timestamp;
use crate::traffic::fallback::{Fallback, FallbackDetector};
use crate::traffic::{FlowObserver, MailDirection, Traffic};
use crate::wire::{Datagram, Packet};

/// Interval, in packet time, of the search for fallbacks. A fallback is certain some minutes after it began, so a shorter
/// interval reports none earlier.
const DETECT_EVERY: Duration = Duration::from_secs(60);

/// Interval, in packet time, at which observers receive the flow table's counters.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// Names of addresses, from the DNS answers in the same packets.
pub trait NameSource: Default {
    fn on_datagram(&mut self, datagram: &Datagram<'_>);

    /// The host name of an address.
    fn host(&self, ip: IpAddr) -> Option<String>;

    /// Whether one name leads to both addresses; `None` if one of them has no name.
    fn shares_name(&self) -> impl Fn(IpAddr, IpAddr) -> Option<bool>;
}

/// The analysis of one packet source from its first packet on.
pub struct Pipeline<N> {
    analyzer: Analyzer,
    dns: N,
    detector: FallbackDetector,
    traffic: Traffic,
    observers: Vec<Arc<dyn FlowObserver>>,
    /// Counters that the observers have received.
    counted: StreamCounters,
    next_count: Timestamp,
    sessions: Vec<FinishedSession>,
    fallbacks: Vec<Fallback>,
    next_detection: Timestamp,
}

impl<N: NameSource> Pipeline<N> {
    /// Adds to `traffic`, which may come from an earlier source.
    pub fn new(
        settings: AnalyzerSettings,
        traffic: Traffic,
        observers: Vec<Arc<dyn FlowObserver>>,
    ) -> Self {
        Self {
            analyzer: Analyzer::new(settings),
            dns: N::default(),
            detector: FallbackDetector::new(),
            traffic,
            observers,
            counted: StreamCounters::default(),
            next_count: Timestamp::default(),
            sessions: Vec::new(),
            fallbacks: Vec::new(),
            next_detection: Timestamp::default(),
        }
    }

    pub fn packet(&mut self, packet: &Packet<'_>) {
        if let Some(datagram) = self.analyzer.packet(packet) {
            self.dns.on_datagram(&datagram);
        }
        self.advance(packet.at);
    }

    /// A kernel event about a socket of this host.
    pub fn socket(&mut self, event: &SocketEvent) {
        self.analyzer.socket(event);
        self.advance(event.at);
    }

    /// The source lost packets before `until`: what is missing in a connection that was open proves nothing.
    pub fn on_loss(&mut self, until: Timestamp) {
        self.analyzer.on_loss(until);
    }

    /// From now on these are on our side.
    pub fn set_ours(&mut self, ours: Networks) {
        self.traffic.set_ours(ours);
    }

    /// Advances the time without a packet.
    pub fn tick(&mut self, at: Timestamp) {
        self.analyzer.tick(at);
        self.advance(at);
    }

    /// The sessions that ended since the last call, in the order of their ends.
    pub fn sessions(&mut self) -> Vec<FinishedSession> {
        std::mem::take(&mut self.sessions)
    }

    /// The fallbacks that became certain since the last call; [`Self::sessions`] returned their sessions before.
    pub fn fallbacks(&mut self) -> Vec<Fallback> {
        std::mem::take(&mut self.fallbacks)
    }

    /// Ends every open session: no more packets follow.
    pub fn finish(&mut self) {
        self.analyzer.finish();
        self.take_sessions();
        self.detect_fallbacks(None);
        self.publish_counts();
    }

    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    pub fn into_traffic(self) -> Traffic {
        self.traffic
    }

    pub const fn dns(&self) -> &N {
        &self.dns
    }

    pub const fn analyzer(&self) -> &Analyzer {
        &self.analyzer
    }

    fn advance(&mut self, at: Timestamp) {
        self.traffic.advance(at);
        self.take_sessions();
        if at > self.next_count {
            self.next_count = at + COUNT_EVERY;
            self.publish_counts();
        }
        if at > self.next_detection {
            self.next_detection = at + DETECT_EVERY;
            self.detect_fallbacks(Some(at));
        }
    }

    fn publish_counts(&mut self) {
        let now = *self.analyzer.stream_counts();
        self.observers.iter().for_each(|observer| observer.on_stream_counts(&self.counted, &now));
        self.counted = now;
    }

    fn take_sessions(&mut self) {
        for session in self.analyzer.sessions() {
            let [client, server] = [session.flow.start.client.ip(), session.flow.start.server.ip()];
            let direction = self.traffic.direction(client, server);
            // Before it sends mail an MTA looks up the server's name, so outbound names are in the same packets.
            let name = match direction {
                MailDirection::Inbound => None,
                MailDirection::Outbound => self.dns.host(server),
            };
            let summary = session.summary(direction, name);
            self.traffic.on_flow(&summary);
            self.observers.iter().for_each(|observer| observer.on_flow(&summary));
            self.detector.push(session.attempt(&summary));
            self.sessions.push(session);
        }
    }

    /// Detects the fallbacks that are certain by `now`, or all at the end.
    fn detect_fallbacks(&mut self, now: Option<Timestamp>) {
        let shares_name = self.dns.shares_name();
        let before = self.fallbacks.len();
        let mut found = |fallback| self.fallbacks.push(fallback);
        match now {
            Some(now) => self.detector.advance(now, &shares_name, &mut found),
            None => self.detector.finish(&shares_name, &mut found),
        }
        for fallback in self.fallbacks.iter().skip(before) {
            self.traffic.on_fallback(fallback);
            self.observers.iter().for_each(|observer| observer.on_fallback(fallback));
        }
    }
}
