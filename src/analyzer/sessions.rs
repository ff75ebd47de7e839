//! The analyzer: a decoder, a flow table, and an SMTP session for each flow.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::flow_session::{FlowSession, HeldBytes, is_greeting};
use super::packet_counts::PacketCounts;
use super::settings::{AnalyzerSettings, Transcripts};
use crate::addr::{Family, canonical};
use crate::engine::{SessionRecord, TcpFacts, TranscriptEntry};
use crate::smtp::{Reply, ReplyParse};
use crate::stream::{
    FlowFacts, FlowSink, FlowStart, FlowTable, PendingFlows, SocketEvent, StreamCounters,
};
use crate::time::Timestamp;
use crate::wire::{Datagram, Decoded, Decoder, Packet, PacketNote};

/// Source port of DNS answers.
const DNS: u16 = 53;

/// Notes of sessions that are still open. A recorder writes a note with the last packets of its session, so few wait at
/// any time.
const MAX_NOTES: usize = 256;

/// A session that is over.
#[derive(Debug)]
pub struct FinishedSession {
    /// In the order of the first packets, starting after [`AnalyzerSettings::numbered`].
    pub number: u64,
    /// TCP facts from its segments.
    pub flow: FlowFacts,
    pub record: SessionRecord,
    /// Empty unless [`AnalyzerSettings::transcripts`] includes this session.
    pub transcript: Vec<TranscriptEntry>,
    /// The lookup answers that the recorder noted, in JSON.
    pub answers: Option<String>,
}

/// Turns packets into sessions.
pub struct Analyzer {
    decoder: Decoder,
    flows: FlowTable<FlowSession>,
    sessions: SessionSink,
    packets: PacketCounts,
}

impl Analyzer {
    pub fn new(settings: AnalyzerSettings) -> Self {
        Self {
            decoder: Decoder::new(),
            flows: FlowTable::new(settings.limits, settings.ports.clone()),
            sessions: SessionSink {
                last_number: settings.numbered,
                settings,
                held: HeldBytes::default(),
                open: Default::default(),
                over: Vec::new(),
                answers: HashMap::new(),
                listeners: HashMap::new(),
            },
            packets: PacketCounts::default(),
        }
    }

    /// Processes the next packet. Returns it if it is a datagram from a DNS server.
    pub fn packet<'a>(&'a mut self, packet: &Packet<'a>) -> Option<Datagram<'a>> {
        let decoded = self.decoder.decode(packet);
        self.packets.count(packet, &decoded);
        match decoded {
            Decoded::Tcp(segment) => {
                if let Some(note) = packet.note {
                    self.sessions.note(segment.src, segment.dst, note);
                }
                self.flows.on_segment(&segment, &mut self.sessions);
            }
            Decoded::Icmp(error) => self.flows.on_icmp_error(&error, &mut self.sessions),
            Decoded::Udp(datagram) if datagram.src.port() == DNS => return Some(datagram),
            Decoded::Udp(_) | Decoded::Fragment | Decoded::Other | Decoded::Error(_) => {}
        }
        None
    }

    /// Advances the time to `at` without a packet, so that timeouts expire on an idle link.
    pub fn tick(&mut self, at: Timestamp) {
        self.flows.tick(at, &mut self.sessions);
    }

    /// Facts about a socket from the kernel; see [`FlowTable::on_socket_event`].
    pub fn socket(&mut self, facts: &SocketEvent) {
        self.flows.on_socket_event(facts, &mut self.sessions);
    }

    /// The source lost packets before `until`; see [`FlowTable::on_loss`].
    pub fn on_loss(&mut self, until: Timestamp) {
        self.flows.on_loss(until);
    }

    /// Ends every open session: no more packets follow.
    pub fn finish(&mut self) {
        self.flows.finish(&mut self.sessions);
    }

    /// The sessions that ended since the last call.
    pub fn sessions(&mut self) -> impl Iterator<Item = FinishedSession> {
        self.sessions.over.drain(..)
    }

    /// Flows and bytes that the flow table counted and gave up.
    pub const fn stream_counts(&self) -> &StreamCounters {
        self.flows.counters()
    }

    pub const fn packet_counts(&self) -> &PacketCounts {
        &self.packets
    }

    /// The highest session number so far.
    pub const fn last_number(&self) -> u64 {
        self.sessions.last_number
    }

    /// Open sessions by position in [`Family::ALL`], including those without an answer to their SYN ([`Self::opening`]).
    pub const fn open_sessions(&self) -> [usize; Family::ALL.len()] {
        self.sessions.open
    }

    /// Connections that wait for the first answer, by position in [`Family::ALL`]; see [`FlowTable::pending_flows`].
    pub fn opening(&self) -> [PendingFlows; Family::ALL.len()] {
        self.flows.pending_flows()
    }

    /// Flows in memory; at most [`crate::stream::FlowLimits::flows`].
    pub fn flows(&self) -> usize {
        self.flows.flows()
    }

    /// Bytes held by reassembly, and bytes held by the observers. Each is at most [`crate::stream::FlowLimits::held`].
    pub fn held(&self) -> [usize; 2] {
        [self.flows.held(), self.sessions.held.total()]
    }
}

/// Opens a [`FlowSession`] for each flow and collects its record at the end.
struct SessionSink {
    settings: AnalyzerSettings,
    held: HeldBytes,
    open: [usize; Family::ALL.len()],
    over: Vec<FinishedSession>,
    /// By the two ends of the connection.
    answers: HashMap<[SocketAddr; 2], String>,
    /// The same, of connections that begin with the next segment.
    listeners: HashMap<[SocketAddr; 2], String>,
    last_number: u64,
}

impl SessionSink {
    fn open_count(&mut self, start: &FlowStart) -> Option<&mut usize> {
        self.open.get_mut(Family::of(start.client.ip()) as usize)
    }

    #[cold]
    fn note(&mut self, src: SocketAddr, dst: SocketAddr, note: PacketNote<'_>) {
        let (notes, text) = match note {
            PacketNote::Answers(json) => (&mut self.answers, json),
            PacketNote::Listener(name) => (&mut self.listeners, name),
        };
        if notes.len() < MAX_NOTES {
            notes.insert(ends(src, dst), text.to_owned());
        }
    }
}

impl FlowSink<FlowSession> for SessionSink {
    fn on_start(&mut self, start: &FlowStart) -> FlowSession {
        if let Some(open) = self.open_count(start) {
            *open += 1;
        }
        let keep_transcript = match self.settings.transcripts {
            Transcripts::None => false,
            Transcripts::One(number) => number == self.settings.numbered + start.number,
            Transcripts::All => true,
        };
        let listener = match self.listeners.is_empty() {
            true => None,
            false => self.listeners.remove(&ends(start.client, start.server)),
        };
        let held = self.held.clone();
        FlowSession::new(start, listener.as_deref(), &self.settings, held, keep_transcript)
    }

    fn is_greeting(&self, bytes: &[u8]) -> Option<bool> {
        match Reply::parse(bytes) {
            ReplyParse::Complete(reply) => Some(is_greeting(&reply)),
            ReplyParse::Incomplete => None,
            ReplyParse::Malformed => Some(false),
        }
    }

    fn on_end(&mut self, facts: FlowFacts, session: FlowSession) {
        let number = self.settings.numbered + facts.start.number;
        self.last_number = self.last_number.max(number);
        if let Some(open) = self.open_count(&facts.start) {
            *open -= 1;
        }
        let (record, transcript) = session.finish(TcpFacts::from(&facts), facts.end);
        self.settings.observer.session(&record);
        let answers = match self.answers.is_empty() {
            true => None,
            false => self.answers.remove(&ends(facts.start.client, facts.start.server)),
        };
        self.over.push(FinishedSession { number, flow: facts, record, transcript, answers });
    }
}

/// The two ends of a connection, the same for either direction.
fn ends(one: SocketAddr, other: SocketAddr) -> [SocketAddr; 2] {
    let (one, other) = (canonical(one), canonical(other));
    [one.min(other), one.max(other)]
}
