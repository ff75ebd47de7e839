//! Collects the evidence of the relay's own sessions for the doors.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::addr::{Family, NetworkKey, Networks};
use crate::engine::{Event, MessageProgress, Observe, Outcome, SessionRecord, TransactionRecord};
use crate::policy::door::{
    DoorSettings, FamilyEvidence, InboundEvidence, InboundSession, SilenceDetector, SilenceSign,
    UpstreamContact,
};
use crate::relay::{RelaySettings, UpstreamTarget};
use crate::smtp::Verb;
use crate::time::Timestamp;

/// Written by the relay's workers, read by the door controller.
#[derive(Debug)]
pub(in crate::app) struct SharedEvidence {
    collected: Mutex<CollectedEvidence>,
    /// Ports of the gateway's own listeners, where it relays to original destinations: a client that connects to one of them
    /// reaches no upstream.
    own_ports: Vec<u16>,
    /// By the name of the listener: the configured addresses of the upstream; empty where the original destination is the upstream.
    upstreams: Vec<(Arc<str>, Vec<SocketAddr>)>,
}

#[derive(Debug)]
pub(super) struct CollectedEvidence {
    inbound: InboundEvidence,
    silence: [SilenceDetector; Family::ALL.len()],
}

impl SharedEvidence {
    /// Sessions of `exempt` clients are not evidence.
    pub(in crate::app) fn new(exempt: Networks, relay: &RelaySettings) -> Self {
        let upstreams = relay.listeners.iter().map(|listener| {
            let targets = listener.upstream.addresses.iter();
            let literal = targets.filter_map(UpstreamTarget::address).collect();
            (Arc::clone(&listener.name), literal)
        });
        let upstreams = upstreams.collect();
        let to_destinations =
            relay.listeners.iter().filter(|listener| listener.upstream.addresses.is_empty());
        let own_ports = to_destinations
            .flat_map(|listener| listener.addresses.iter().map(SocketAddr::port))
            .collect();
        let inbound = InboundEvidence::new(exempt);
        let silence = Family::ALL.map(SilenceDetector::new);
        let collected = Mutex::new(CollectedEvidence { inbound, silence });
        Self { collected, own_ports, upstreams }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, CollectedEvidence> {
        // Evidence is consistent between any two changes.
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CollectedEvidence {
    pub(super) fn of(
        &self,
        family: Family,
        settings: &DoorSettings,
        now: Timestamp,
    ) -> FamilyEvidence {
        self.inbound.of(family, settings, now)
    }

    pub(super) fn upstream_checks(&self, family: Family, now: Timestamp) -> Vec<SocketAddr> {
        self.inbound.upstream_checks(family, now)
    }

    pub(super) fn on_upstream_check(
        &mut self,
        family: Family,
        upstream: SocketAddr,
        reached: bool,
        at: Timestamp,
    ) {
        self.inbound.on_upstream_check(family, upstream, reached, at);
    }

    /// The door of `family` changed at `at`.
    pub(super) fn clear_stalled(&mut self, family: Family, at: Timestamp) {
        self.inbound.clear_stalled(family, at);
    }

    /// The sign that mail of `family` is missing. `admits`: its door admits sessions.
    pub(super) fn silence(
        &mut self,
        family: Family,
        admits: bool,
        now: Timestamp,
    ) -> Option<SilenceSign> {
        let detector = &mut self.silence[family as usize];
        if !admits {
            detector.on_refused(now);
        }
        detector.sign(now)
    }

    fn on_session(&mut self, session: &InboundSession) {
        if self.inbound.on_session(session) {
            let (family, network) = (Family::of(session.client), NetworkKey::of(session.client));
            for detector in &mut self.silence {
                detector.on_arrival(family, network, session.end);
            }
        }
    }
}

impl Observe for SharedEvidence {
    fn event(&self, _: Family, _: Event) {}

    fn session(&self, record: &SessionRecord) {
        let mut session = inbound(record, &self.own_ports);
        // The address that was tried; of several, one of the client's family.
        let family = Family::of(record.client.address);
        let of_listener =
            self.upstreams.iter().find(|(name, _)| record.listener.as_ref() == Some(name));
        let mut configured = of_listener.into_iter().flat_map(|(_, addresses)| addresses);
        let configured = configured.find(|address| Family::of(address.ip()) == family);
        let upstream = record.upstream.map(SocketAddr::from).or(configured.copied());
        session.destination = upstream.unwrap_or(session.destination);
        self.lock().on_session(&session);
    }
}

fn inbound(record: &SessionRecord, own_ports: &[u16]) -> InboundSession {
    let smtp = &record.smtp;
    let accepted = smtp
        .transactions
        .iter()
        .filter(|transaction| transaction.data_code.is_some_and(|code| code / 100 == 2));
    // The question at the end has the true size.
    let progress = |wanted| {
        let of_it = move |one: &&TransactionRecord| one.progress_if_accepted() >= Some(wanted);
        smtp.transactions.iter().filter(of_it)
    };
    let sent_bdat = smtp.commands.get(&Verb::Bdat).is_some_and(|count| *count > 0);
    let end = record.start + record.duration;
    InboundSession {
        client: record.client.address,
        destination: record.server.into(),
        start: record.start,
        end,
        accepted: accepted.map(|transaction| transaction.bytes).max(),
        received: progress(MessageProgress::Received).map(|message| message.bytes).max(),
        has_envelope: progress(MessageProgress::ContentDue).next().is_some(),
        content_started: smtp.replies.contains_key(&354) || sent_bdat,
        content_complete: smtp.phases.data.is_some(),
        client_bytes: record.tcp.client_bytes,
        ended_by: record.ended_by(),
        last_transaction: smtp.transactions.last().map(|last| last.deciding_code()),
        encrypted: record.encrypted_exchange(),
        upstream: upstream(record, own_ports),
    }
}

fn upstream(record: &SessionRecord, own_ports: &[u16]) -> UpstreamContact {
    // Of a Unix socket there is only the name.
    if record.upstream.is_some() || record.upstream_name.is_some() {
        UpstreamContact::Connected
    } else if record.outcome == Outcome::UpstreamUnavailable
        && !own_ports.contains(&record.server.port)
    {
        UpstreamContact::Failed
    } else {
        UpstreamContact::Unknown
    }
}
