//! Packets to sessions: joins the decoder, the flow table and a witness for each flow.
//!
//! Layer 4, and yet without socket and clock: whoever has packets, from a file or from the wire, gives them to
//! [`Analyzer::packet`] and takes what came of them with [`Analyzer::sessions`].

mod counts;
mod heard;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::counts::Counts;
use self::heard::{Heard, Held};
use crate::addr::Family;
use crate::engine::{Observe, Profile, SessionRecord, TcpFacts, TranscriptEntry};
use crate::smtp::{Reply, ReplyParse};
use crate::stream::{
    self, FlowFacts, FlowStart, FlowTable, Limits, Opening, Ports, Sink, SocketFacts,
};
use crate::time::Timestamp;
use crate::wire::{Datagram, Decoded, Decoder, Packet};

/// Where DNS servers answer from.
const DNS: u16 = 53;

/// How packets are looked at.
#[derive(Clone)]
pub struct Settings {
    /// Whose policy is applied in shadow; the default one accepts everything.
    pub profile: Arc<Profile>,
    pub ports: Ports,
    pub limits: Limits,
    /// Told of every event and every record, as in the live relay.
    pub observer: Arc<dyn Observe>,
    pub transcripts: Transcripts,
}

/// Of which sessions the whole dialogue is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transcripts {
    #[default]
    None,
    /// Of the one with this number.
    One(u64),
    All,
}

/// A session that is over.
#[derive(Debug)]
pub struct Session {
    /// From 1, in the order of the first packets.
    pub number: u64,
    /// What its segments showed.
    pub flow: FlowFacts,
    pub record: SessionRecord,
    /// Empty unless asked for.
    pub transcript: Vec<TranscriptEntry>,
}

/// Reads packets, tells sessions.
pub struct Analyzer {
    decoder: Decoder,
    flows: FlowTable<Heard>,
    desk: Desk,
    counts: Counts,
}

impl Analyzer {
    pub fn new(settings: Settings) -> Self {
        Self {
            decoder: Decoder::new(),
            flows: FlowTable::new(settings.limits, settings.ports.clone()),
            desk: Desk {
                settings,
                held: Held::default(),
                open: Default::default(),
                over: Vec::new(),
            },
            counts: Counts::default(),
        }
    }

    /// The next packet. Returns what a DNS server said, if that is what it holds.
    pub fn packet<'a>(&'a mut self, packet: &Packet<'a>) -> Option<Datagram<'a>> {
        let decoded = self.decoder.decode(packet);
        self.counts.count(packet, &decoded);
        match decoded {
            Decoded::Tcp(segment) => self.flows.segment(&segment, &mut self.desk),
            Decoded::Icmp(error) => self.flows.icmp(&error, &mut self.desk),
            Decoded::Udp(datagram) if datagram.src.port() == DNS => return Some(datagram),
            Decoded::Udp(_) | Decoded::Fragment | Decoded::Other | Decoded::Damaged(_) => {}
        }
        None
    }

    /// It is `at`, and no packet came: what waits for one does not wait for ever.
    pub fn tick(&mut self, at: Timestamp) {
        self.flows.tick(at, &mut self.desk);
    }

    /// What a kernel said of a socket; see [`FlowTable::socket`].
    pub fn socket(&mut self, facts: &SocketFacts) {
        self.flows.socket(facts, &mut self.desk);
    }

    /// No more packets come: whatever is open ends here.
    pub fn finish(&mut self) {
        self.flows.finish(&mut self.desk);
    }

    /// The sessions that ended since this was asked last.
    pub fn sessions(&mut self) -> impl Iterator<Item = Session> {
        self.desk.over.drain(..)
    }

    /// What the flow table has seen and lost.
    pub const fn given_up(&self) -> &stream::Counts {
        self.flows.counts()
    }

    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Sessions that began and are not over, by position in [`Family::ALL`]. Of them [`Self::opening`] are those that
    /// nobody has answered.
    pub const fn open_sessions(&self) -> [usize; Family::ALL.len()] {
        self.desk.open
    }

    /// What waits for its first answer now, by position in [`Family::ALL`]; see [`FlowTable::opening`].
    pub fn opening(&self) -> [Opening; Family::ALL.len()] {
        self.flows.opening()
    }

    /// Flows that are remembered; at most [`Limits::flows`].
    pub fn flows(&self) -> usize {
        self.flows.flows()
    }

    /// Octets that wait for others: before a witness hears them, and before it can understand them. Each at most
    /// [`Limits::held`].
    pub fn held(&self) -> [usize; 2] {
        [self.flows.held(), self.desk.held.octets()]
    }
}

/// Opens a witness for each flow, and closes its record.
struct Desk {
    settings: Settings,
    held: Held,
    open: [usize; Family::ALL.len()],
    over: Vec<Session>,
}

impl Desk {
    fn open_of(&mut self, start: &FlowStart) -> Option<&mut usize> {
        self.open.get_mut(Family::of(start.client.ip()) as usize)
    }
}

impl Sink<Heard> for Desk {
    fn open(&mut self, start: &FlowStart) -> Heard {
        if let Some(open) = self.open_of(start) {
            *open += 1;
        }
        let keep = match self.settings.transcripts {
            Transcripts::None => false,
            Transcripts::One(number) => number == start.number,
            Transcripts::All => true,
        };
        Heard::new(start, &self.settings, self.held.clone(), keep)
    }

    fn greets(&self, octets: &[u8]) -> Option<bool> {
        match Reply::parse(octets) {
            ReplyParse::Complete(reply) => Some(heard::is_greeting(&reply)),
            ReplyParse::Incomplete => None,
            ReplyParse::Malformed => Some(false),
        }
    }

    fn over(&mut self, facts: FlowFacts, heard: Heard) {
        let number = facts.start.number;
        if let Some(open) = self.open_of(&facts.start) {
            *open -= 1;
        }
        let (record, transcript) = heard.finish(TcpFacts::from(&facts), facts.end);
        self.settings.observer.session(&record);
        self.over.push(Session { number, flow: facts, record, transcript });
    }
}
