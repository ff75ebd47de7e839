//! Flows as scripts: `C syn; S synack; C data 0..10; S ack 10; +2s; C fin`.
//!
//! A step takes a millisecond; `+TIME` adds more. Positions count each side's bytes from 0; byte `n` of a side is always the
//! same. A step acknowledges all bytes that its peer has sent in the script, or those before N with `ack N`.

mod ends;
mod eviction;
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

/// Logs the deliveries of one flow: `C 0..10`, `S gap 0..200`, `C end`.
pub(super) struct LoggedFlow {
    number: u64,
    delivered: [u64; 2],
    at: Timestamp,
    log: Log,
}

type Log = Rc<RefCell<Vec<(Timestamp, String)>>>;

fn letter(side: Side) -> char {
    if side == Side::Client { 'C' } else { 'S' }
}

/// The byte at `position` of `side`.
fn byte(side: Side, position: u64) -> u8 {
    let first = if side == Side::Client { b'a' } else { b'A' };
    first + (position % 23) as u8
}

fn bytes(side: Side, range: Range<u64>) -> Vec<u8> {
    range.map(|position| byte(side, position)).collect()
}

impl LoggedFlow {
    fn log(&mut self, entry: String, at: Timestamp) {
        assert!(at >= self.at, "time goes back at {entry}");
        self.at = at;
        let flow = if self.number == 1 { String::new() } else { format!("#{} ", self.number) };
        self.log.borrow_mut().push((at, flow + &entry));
    }
}

impl FlowHandler for LoggedFlow {
    fn on_data(&mut self, from: Side, data: &[u8], at: Timestamp) {
        assert!(!data.is_empty());
        let first = self.delivered[from.index()];
        let next = first + data.len() as u64;
        let differs = if data == bytes(from, first..next) { "" } else { " differs" };
        self.delivered[from.index()] = next;
        self.log(format!("{} {first}..{next}{differs}", letter(from)), at);
    }

    fn on_gap(&mut self, from: Side, length: u64, at: Timestamp) {
        assert!(length > 0);
        let first = self.delivered[from.index()];
        self.delivered[from.index()] += length;
        self.log(format!("{} gap {first}..{}", letter(from), first + length), at);
    }

    fn on_omitted(&mut self, from: Side, length: u64, at: Timestamp) {
        assert!(length > 0);
        let first = self.delivered[from.index()];
        self.delivered[from.index()] += length;
        self.log(format!("{} omitted {first}..{}", letter(from), first + length), at);
    }

    fn on_close(&mut self, from: Side, at: Timestamp) {
        self.log(format!("{} end", letter(from)), at);
    }
}

#[derive(Default)]
pub(super) struct FlowLog {
    log: Log,
    pub(super) starts: Vec<FlowStart>,
    pub(super) over: Vec<FlowFacts>,
}

impl FlowSink<LoggedFlow> for FlowLog {
    fn on_start(&mut self, start: &FlowStart) -> LoggedFlow {
        self.starts.push(*start);
        LoggedFlow {
            number: start.number,
            delivered: [0; 2],
            at: Timestamp::default(),
            log: self.log.clone(),
        }
    }

    /// A server's bytes in a script start with `ABC`.
    fn is_greeting(&self, first: &[u8]) -> Option<bool> {
        let greeting = b"ABC";
        if greeting.starts_with(first) && first.len() < greeting.len() {
            return None;
        }
        Some(first.starts_with(greeting))
    }

    fn on_end(&mut self, facts: FlowFacts, flow: LoggedFlow) {
        assert_eq!(facts.start.number, flow.number);
        assert_eq!(facts.bytes, flow.delivered, "all bytes are delivered");
        self.over.push(facts);
    }
}

/// Start time of scripts.
const START: u64 = 1_767_323_045_000_000_000;

/// Two hosts and a table that receives their segments.
pub(super) struct Simulation {
    pub(super) table: FlowTable<LoggedFlow>,
    pub(super) flows: FlowLog,
    pub(super) addresses: [SocketAddr; 2],
    pub(super) isn: [u32; 2],
    /// After the last byte sent in the script.
    sent: [u32; 2],
    nanos: u64,
    /// Interface that captures the errors.
    pub(super) interface: u32,
}

impl Simulation {
    pub(super) fn new() -> Self {
        Self::with(FlowLimits::default())
    }

    pub(super) fn with(limits: FlowLimits) -> Self {
        Self {
            table: FlowTable::new(limits, WatchedPorts::default()),
            flows: FlowLog::default(),
            addresses: ["[2001:db8::1]:40000", "[2001:db8::25]:25"].map(|a| a.parse().unwrap()),
            isn: [1000, u32::MAX - 3],
            sent: [0; 2],
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

    /// Starts another connection of the same hosts.
    pub(super) fn new_connection(&mut self, isn: [u32; 2]) {
        (self.isn, self.sent) = (isn, [0; 2]);
    }

    fn seq(&self, side: Side, position: i64) -> u32 {
        self.isn[side.index()].wrapping_add(1).wrapping_add(position as u32)
    }

    pub(super) fn play(&mut self, script: &str) -> &mut Self {
        for step in script.split([';', '\n']).map(str::trim).filter(|step| !step.is_empty()) {
            if let Some(time) = step.strip_prefix('+') {
                self.nanos += humantime::parse_duration(time).unwrap().as_nanos() as u64;
                self.table.tick(Timestamp::from_nanos(self.nanos), &mut self.flows);
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
        let end = i64::from(self.sent[side.index()]);
        let mut segment = Segment {
            at: self.now(),
            src,
            dst,
            seq: self.seq(side, end),
            ack: Some(self.seq(peer, i64::from(self.sent[peer.index()]))),
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
                    self.sent[side.index()] = self.sent[side.index()].max(to.max(0) as u32);
                }
                // Bytes skipped by the source at the start.
                "omit" => {
                    let count = number(&mut words) as usize;
                    payload.drain(..count);
                    segment.omitted = count as u32;
                }
                // Bytes left by the snap length.
                "cut" => payload.truncate(number(&mut words) as usize),
                "junk" => payload.fill(b'?'),
                "fin" => segment.fin = true,
                "rst" => segment.rst = true,
                "at" => segment.seq = self.seq(side, number(&mut words)),
                "window" => segment.window = number(&mut words) as u16,
                "mss" => segment.mss = Some(number(&mut words) as u16),
                "noack" => segment.ack = None,
                "on" => segment.interface = number(&mut words) as u32,
                other => panic!("{step}: unknown word {other}"),
            }
        }
        segment.payload = &payload;
        self.table.on_segment(&segment, &mut self.flows);
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
        self.table.on_icmp_error(&error, &mut self.flows);
        self
    }

    /// A socket event of the client's kernel.
    pub(super) fn socket(&mut self, rtt: Option<Duration>, closed: bool) -> &mut Self {
        self.nanos += 1_000_000;
        let [local, peer] = self.addresses;
        let event = SocketEvent { at: self.now(), local, peer, rtt, retransmits: 0, closed };
        self.table.on_socket_event(&event, &mut self.flows);
        self
    }

    /// The deliveries since the last call.
    pub(super) fn delivered(&self) -> String {
        let entries: Vec<_> = self.flows.log.take().into_iter().map(|(_, entry)| entry).collect();
        entries.join("; ")
    }

    /// The deliveries since the last call, with the time since the start of the script.
    pub(super) fn delivered_with_times(&self) -> String {
        let entries = self.flows.log.take().into_iter();
        let timed = |(at, entry): (Timestamp, String)| {
            format!("{}ms {entry}", at.since(Timestamp::from_nanos(START)).as_millis())
        };
        entries.map(timed).collect::<Vec<_>>().join("; ")
    }

    /// Ends the capture and returns the facts of all flows.
    pub(super) fn facts(&mut self) -> Vec<FlowFacts> {
        self.table.finish(&mut self.flows);
        assert_eq!((self.table.flows(), self.table.held()), (0, 0));
        std::mem::take(&mut self.flows.over)
    }

    /// Ends the capture and returns the facts of the only flow.
    pub(super) fn only_facts(&mut self) -> FlowFacts {
        let mut facts = self.facts();
        assert_eq!(facts.len(), 1, "{facts:?}");
        facts.remove(0)
    }
}

/// The deliveries of `script` after a handshake.
pub(super) fn deliver(script: &str) -> String {
    let mut simulation = Simulation::new();
    simulation.play("C syn; S synack; C ack").play(script);
    simulation.delivered()
}

pub(super) const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
