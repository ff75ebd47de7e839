//! Flows as scripts: `C syn; S synack; C data 0..10; S ack 10; +2s; C fin`.
//!
//! A step takes a millisecond, `+TIME` more. Positions count each side's bytes from 0; byte `n` of a side is always the
//! same. A step acknowledges what its peer has said in the script so far, or `ack N`.

mod ends;
mod forgetting;
mod interfaces;
mod ordering;
mod path;
mod random;
mod roles;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::wire::{IcmpError, IcmpKind, Segment};

/// What the conversation of one flow was told, in words: `C 0..10`, `S gap 0..200`, `C end`.
pub(super) struct Heard {
    number: u64,
    told: [u64; 2],
    at: Timestamp,
    log: Log,
}

type Log = Rc<RefCell<Vec<(Timestamp, String)>>>;

fn letter(side: Side) -> char {
    if side == Side::Client { 'C' } else { 'S' }
}

/// Byte `position` of `side`.
fn byte(side: Side, position: u64) -> u8 {
    let first = if side == Side::Client { b'a' } else { b'A' };
    first + (position % 23) as u8
}

fn bytes(side: Side, range: Range<u64>) -> Vec<u8> {
    range.map(|position| byte(side, position)).collect()
}

impl Heard {
    fn note(&mut self, what: String, at: Timestamp) {
        assert!(at >= self.at, "time goes backward at {what}");
        self.at = at;
        let flow = if self.number == 1 { String::new() } else { format!("#{} ", self.number) };
        self.log.borrow_mut().push((at, flow + &what));
    }
}

impl FlowHandler for Heard {
    fn on_data(&mut self, from: Side, said: &[u8], at: Timestamp) {
        assert!(!said.is_empty());
        let first = self.told[from.index()];
        let next = first + said.len() as u64;
        let differs = if said == bytes(from, first..next) { "" } else { " differs" };
        self.told[from.index()] = next;
        self.note(format!("{} {first}..{next}{differs}", letter(from)), at);
    }

    fn on_gap(&mut self, from: Side, length: u64, at: Timestamp) {
        assert!(length > 0);
        let first = self.told[from.index()];
        self.told[from.index()] += length;
        self.note(format!("{} gap {first}..{}", letter(from), first + length), at);
    }

    fn on_omitted(&mut self, from: Side, length: u64, at: Timestamp) {
        assert!(length > 0);
        let first = self.told[from.index()];
        self.told[from.index()] += length;
        self.note(format!("{} omitted {first}..{}", letter(from), first + length), at);
    }

    fn on_close(&mut self, from: Side, at: Timestamp) {
        self.note(format!("{} end", letter(from)), at);
    }
}

#[derive(Default)]
pub(super) struct Ears {
    log: Log,
    pub(super) starts: Vec<FlowStart>,
    pub(super) over: Vec<FlowFacts>,
}

impl FlowSink<Heard> for Ears {
    fn on_start(&mut self, start: &FlowStart) -> Heard {
        self.starts.push(*start);
        Heard {
            number: start.number,
            told: [0; 2],
            at: Timestamp::default(),
            log: self.log.clone(),
        }
    }

    /// Bytes of a server in the script begin with `ABC`.
    fn is_greeting(&self, first: &[u8]) -> Option<bool> {
        let due = b"ABC";
        if due.starts_with(first) && first.len() < due.len() {
            return None;
        }
        Some(first.starts_with(due))
    }

    fn on_end(&mut self, facts: FlowFacts, conversation: Heard) {
        assert_eq!(facts.start.number, conversation.number);
        assert_eq!(facts.bytes, conversation.told, "what was told adds up");
        self.over.push(facts);
    }
}

/// When scripts begin.
const START: u64 = 1_767_323_045_000_000_000;

/// Two hosts and a table that sees their segments.
pub(super) struct Scene {
    pub(super) table: FlowTable<Heard>,
    pub(super) ears: Ears,
    pub(super) addresses: [SocketAddr; 2],
    pub(super) isn: [u32; 2],
    /// Behind the last byte said in the script.
    said: [u32; 2],
    nanos: u64,
    /// Where errors are seen.
    pub(super) interface: u32,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with(FlowLimits::default())
    }

    pub(super) fn with(limits: FlowLimits) -> Self {
        Self {
            table: FlowTable::new(limits, WatchedPorts::default()),
            ears: Ears::default(),
            addresses: ["[2001:db8::1]:40000", "[2001:db8::25]:25"].map(|a| a.parse().unwrap()),
            isn: [1000, u32::MAX - 3],
            said: [0; 2],
            nanos: START,
            interface: 0,
        }
    }

    pub(super) fn between(mut self, client: &str, server: &str) -> Self {
        self.addresses = [client, server].map(|a| a.parse().unwrap());
        self
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.nanos)
    }

    /// The same hosts, another connection.
    pub(super) fn anew(&mut self, isn: [u32; 2]) {
        (self.isn, self.said) = (isn, [0; 2]);
    }

    fn seq(&self, side: Side, position: i64) -> u32 {
        self.isn[side.index()].wrapping_add(1).wrapping_add(position as u32)
    }

    pub(super) fn play(&mut self, script: &str) -> &mut Self {
        for step in script.split([';', '\n']).map(str::trim).filter(|step| !step.is_empty()) {
            if let Some(time) = step.strip_prefix('+') {
                self.nanos += humantime::parse_duration(time).unwrap().as_nanos() as u64;
                self.table.tick(Timestamp::from_nanos(self.nanos), &mut self.ears);
            } else {
                self.nanos += 1_000_000;
                self.step(step);
            }
        }
        self
    }

    fn step(&mut self, step: &str) {
        let mut words = step.split_whitespace();
        let side = match words.next() {
            Some("C") => Side::Client,
            Some("S") => Side::Server,
            _ => panic!("{step}: neither C nor S"),
        };
        let peer = side.other();
        let (src, dst) = (self.addresses[side.index()], self.addresses[peer.index()]);
        let mut payload = Vec::new();
        let end = i64::from(self.said[side.index()]);
        let mut segment = Segment {
            at: self.now(),
            src,
            dst,
            seq: self.seq(side, end),
            ack: Some(self.seq(peer, i64::from(self.said[peer.index()]))),
            syn: false,
            fin: false,
            rst: false,
            window: 1000,
            mss: None,
            omitted: 0,
            payload: &[],
            len: 0,
            interface: 0,
        };
        let number = |words: &mut std::str::SplitWhitespace<'_>| {
            words.next().unwrap().parse::<i64>().unwrap()
        };
        while let Some(word) = words.next() {
            match word {
                "syn" => (segment.syn, segment.ack, segment.seq) = (true, None, self.seq(side, -1)),
                "synack" => (segment.syn, segment.seq) = (true, self.seq(side, -1)),
                "ack" => {
                    if words.clone().next().is_some_and(|word| word.parse::<i64>().is_ok()) {
                        segment.ack = Some(self.seq(peer, number(&mut words)));
                    }
                }
                "data" => {
                    let (from, to) = words.next().unwrap().split_once("..").unwrap();
                    let (from, to): (i64, i64) = (from.parse().unwrap(), to.parse().unwrap());
                    payload = (from..to).map(|at| byte(side, at.max(0) as u64)).collect();
                    segment.seq = self.seq(side, from);
                    segment.len = (to - from) as u32;
                    self.said[side.index()] = self.said[side.index()].max(to.max(0) as u32);
                }
                // The source left out so many at the beginning.
                "omit" => {
                    let count = number(&mut words) as usize;
                    payload.drain(..count);
                    segment.omitted = count as u32;
                }
                // The snap length left so many.
                "cut" => payload.truncate(number(&mut words) as usize),
                "junk" => payload.fill(b'?'),
                "fin" => segment.fin = true,
                "rst" => segment.rst = true,
                "at" => segment.seq = self.seq(side, number(&mut words)),
                "window" => segment.window = number(&mut words) as u16,
                "mss" => segment.mss = Some(number(&mut words) as u16),
                "noack" => segment.ack = None,
                "on" => segment.interface = number(&mut words) as u32,
                other => panic!("{step}: what is {other}?"),
            }
        }
        segment.payload = &payload;
        self.table.on_segment(&segment, &mut self.ears);
    }

    /// An ICMP error about the segment of `side` at `position`.
    pub(super) fn error(&mut self, kind: IcmpKind, side: Side, position: i64) -> &mut Self {
        self.nanos += 1_000_000;
        let error = IcmpError {
            at: self.now(),
            from: "2001:db8::ff".parse().unwrap(),
            kind,
            src: self.addresses[side.index()],
            dst: self.addresses[side.other().index()],
            seq: self.seq(side, position),
            interface: self.interface,
        };
        self.table.on_icmp_error(&error, &mut self.ears);
        self
    }

    /// What the client's kernel says of its socket now.
    pub(super) fn socket(&mut self, rtt: Option<Duration>, closed: bool) -> &mut Self {
        self.nanos += 1_000_000;
        let [local, peer] = self.addresses;
        let facts = SocketEvent { at: self.now(), local, peer, rtt, retransmits: 0, closed };
        self.table.on_socket_event(&facts, &mut self.ears);
        self
    }

    /// What was told since the last time, in words.
    pub(super) fn heard(&self) -> String {
        let told: Vec<_> = self.ears.log.take().into_iter().map(|(_, what)| what).collect();
        told.join("; ")
    }

    /// The same, with the time since the script began.
    pub(super) fn heard_when(&self) -> String {
        let told = self.ears.log.take().into_iter();
        let timed = |(at, what): (Timestamp, String)| {
            format!("{}ms {what}", at.since(Timestamp::from_nanos(START)).as_millis())
        };
        told.map(timed).collect::<Vec<_>>().join("; ")
    }

    /// Ends the capture; the facts of all flows.
    pub(super) fn facts(&mut self) -> Vec<FlowFacts> {
        self.table.finish(&mut self.ears);
        assert_eq!((self.table.flows(), self.table.held()), (0, 0));
        std::mem::take(&mut self.ears.over)
    }

    /// The same, of the only one.
    pub(super) fn fact(&mut self) -> FlowFacts {
        let mut facts = self.facts();
        assert_eq!(facts.len(), 1, "{facts:?}");
        facts.remove(0)
    }
}

/// What is told of `script` after the handshake.
pub(super) fn told(script: &str) -> String {
    let mut scene = Scene::new();
    scene.play("C syn; S synack; C ack").play(script);
    scene.heard()
}

pub(super) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
