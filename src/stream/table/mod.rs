//! The flow table: finds the flow of a segment, begins and ends flows, forgets them in time and under pressure.
//!
//! One hash lookup a segment. Flows stand in lists by the time of their last packet, one list for each time limit, so
//! that expiry and eviction are O(1) a flow; a flow moves to the back of its list once a second at most, so it may live
//! that much longer than its limit.

mod ageing;

use std::collections::HashMap;

use self::ageing::STEP;
use crate::addr::{Family, Side};
use crate::stream::flow::{Flow, FlowStatus, Phase};
use crate::stream::flow_key::FlowKey;
use crate::stream::interface_pin::InterfacePin;
use crate::stream::limits::{FlowLimits, StreamCounters, WatchedPorts};
use crate::stream::lru_lists::LruLists;
use crate::stream::reassembly::{Consumer, PATIENCE};
use crate::stream::syn_candidates::Match;
use crate::stream::{FlowHandler, FlowSink, PendingConnections, SocketEvent};
use crate::time::Timestamp;
use crate::wire::{IcmpError, Segment};

/// What a flow that is not known to be SMTP may hold: 4 KiB and what stands around them.
const CANDIDATE_HELD: usize = 8 << 10;
/// Flows that are looked at to tell what waits.
const LOOK: usize = 4096;

/// Lists by age. Under pressure flows go in this order; those from [`Class::Ending`] on by their last packet alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    Ignored,
    Over,
    Candidate,
    Ending,
    Connecting,
    Open,
}

impl Class {
    const ALL: [Self; 6] =
        [Self::Ignored, Self::Over, Self::Candidate, Self::Ending, Self::Connecting, Self::Open];

    const fn of(phase: Phase) -> Self {
        match phase {
            Phase::Connecting => Self::Connecting,
            Phase::Open => Self::Open,
            Phase::Ending => Self::Ending,
        }
    }

    const fn list(self) -> u8 {
        self as u8
    }
}

#[derive(Debug)]
struct Slot<C> {
    key: FlowKey,
    /// The last segment.
    last: Timestamp,
    /// When it was placed in its list.
    placed: Timestamp,
    class: Class,
    /// Of what it holds.
    cost: usize,
    /// The number of its wait for bytes that were acknowledged, and since when.
    waits: Option<(u64, Timestamp)>,
    /// Where each direction is seen: of the higher endpoint, then of the lower.
    pins: [InterfacePin; 2],
    stage: Stage<C>,
}

#[derive(Debug)]
enum Stage<C> {
    Vacant,
    /// No SMTP.
    Ignored(Past),
    /// Told about, and over.
    Over(Past),
    /// May become SMTP when the server speaks.
    Candidate(Box<Flow>),
    Told(Box<Flow>, Box<C>),
}

/// Sequence numbers of the SYNs of a flow that is not followed any more.
#[derive(Clone, Copy, Debug)]
struct Past {
    client: Option<u32>,
    server: Option<u32>,
}

impl Past {
    const fn of(flow: &Flow) -> Self {
        let (client, server) = flow.isns();
        Self { client, server }
    }

    /// Whether `segment`, which has SYN set, begins another flow.
    fn is_past(self, segment: &Segment<'_>) -> bool {
        match segment.ack {
            None => self.client == Some(segment.seq) || self.server == Some(segment.seq),
            Some(ack) => {
                self.server == Some(segment.seq) || self.client == Some(ack.wrapping_sub(1))
            }
        }
    }
}

/// All flows of a source of packets.
#[derive(Debug)]
pub struct FlowTable<C> {
    limits: FlowLimits,
    ports: WatchedPorts,
    index: HashMap<FlowKey, u32>,
    slots: Vec<Slot<C>>,
    vacant: Vec<u32>,
    by_age: LruLists,
    waiting: LruLists,
    holding: LruLists,
    /// Sum of the slots' costs.
    held: usize,
    now: Timestamp,
    swept: Timestamp,
    counters: StreamCounters,
}

impl<C: FlowHandler> FlowTable<C> {
    pub fn new(limits: FlowLimits, ports: WatchedPorts) -> Self {
        Self {
            limits: FlowLimits { flows: limits.flows.clamp(1, u32::MAX as usize - 1), ..limits },
            ports,
            index: HashMap::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            by_age: LruLists::new(6),
            waiting: LruLists::new(1),
            holding: LruLists::new(1),
            held: 0,
            now: Timestamp::default(),
            swept: Timestamp::default(),
            counters: StreamCounters::default(),
        }
    }

    pub const fn counters(&self) -> &StreamCounters {
        &self.counters
    }

    /// Flows of any kind that are remembered; at most [`FlowLimits::flows`].
    pub fn flows(&self) -> usize {
        self.index.len()
    }

    /// Bytes held, with what stands around them; at most [`FlowLimits::held`].
    pub const fn held(&self) -> usize {
        self.held
    }

    /// What is told about and waits for its first answer, by position in [`Family::ALL`]; of more than 4,096 flows those
    /// alone of which nothing was seen for longest.
    pub fn pending_connections(&self) -> [PendingConnections; Family::ALL.len()] {
        let mut all = [PendingConnections::default(); Family::ALL.len()];
        for id in self.by_age.iter(Class::Connecting.list()).take(LOOK) {
            let Some(Stage::Told(flow, _)) = self.slot(id).map(|slot| &slot.stage) else {
                continue;
            };
            let family = Family::of(flow.start.client.ip());
            if let Some((since, syns)) = flow.opening()
                && let Some(opening) = all.get_mut(family as usize)
            {
                opening.flows += 1;
                opening.again += usize::from(syns > 1);
                opening.since = Some(opening.since.map_or(since, |oldest| oldest.min(since)));
            }
        }
        all
    }

    /// The next segment of the capture. Its time is also the table's, unless it is older than one before.
    pub fn on_segment(&mut self, segment: &Segment<'_>, sink: &mut impl FlowSink<C>) {
        self.tick(segment.at, sink);
        self.counters.segments += 1;
        self.sort(segment, sink);
    }

    /// Finds or begins the flow of `segment` and gives it to that one.
    fn sort(&mut self, segment: &Segment<'_>, sink: &mut impl FlowSink<C>) {
        let (key, from_low) = FlowKey::of(segment.src, segment.dst);
        while let Some(&id) = self.index.get(&key) {
            if !self.takes(id, from_low, segment) {
                self.counters.elsewhere += 1;
                return;
            }
            match self.judge(id, from_low, segment) {
                Match::ToThisFlow => return self.follow(id, from_low, segment, sink),
                Match::ToANewFlow => self.end(id, sink),
                Match::Nowhere => {
                    self.counters.out_of_window += 1;
                    return;
                }
            }
        }
        match self.begin(key, from_low, segment, sink) {
            Some(id) => self.follow(id, from_low, segment, sink),
            None => self.counters.stray += 1,
        }
    }

    /// An ICMP error: tied to the flow that sent what it quotes.
    pub fn on_icmp_error(&mut self, error: &IcmpError, sink: &mut impl FlowSink<C>) {
        self.tick(error.at, sink);
        let (key, from_low) = FlowKey::of(error.src, error.dst);
        let slot = self.index.get(&key).and_then(|&id| self.slots.get_mut(id as usize));
        let tied = match slot.map(|slot| &mut slot.stage) {
            Some(Stage::Candidate(flow) | Stage::Told(flow, _)) => {
                let from = flow.side(from_low);
                if !flow.takes_icmp(from, error, self.now) {
                    self.counters.elsewhere += 1;
                    return;
                }
                flow.icmp(from, error)
            }
            _ => false,
        };
        self.counters.stray_icmp += u64::from(!tied);
    }

    /// What a kernel said of a socket, in the order of time among the segments as far as the source can tell. A flow whose
    /// SYN was not answered is over when its socket is; one that was just sent or answered goes on, since what a kernel
    /// says may overtake the packets that made it say so.
    pub fn on_socket_event(&mut self, facts: &SocketEvent, sink: &mut impl FlowSink<C>) {
        self.tick(facts.at, sink);
        let (key, _) = FlowKey::of(facts.local, facts.peer);
        let Some(&id) = self.index.get(&key) else { return };
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if let Stage::Candidate(flow) | Stage::Told(flow, _) = &mut slot.stage
            && flow.socket(facts)
        {
            self.over(id, sink);
        }
    }

    /// Time passes without packets.
    pub fn tick(&mut self, at: Timestamp, sink: &mut impl FlowSink<C>) {
        self.now = self.now.max(at);
        while let Some(id) = self.waiting.front(0) {
            let wait = self.slot(id).and_then(|slot| slot.waits);
            if wait.is_some_and(|(_, since)| self.now < since + PATIENCE) {
                break;
            }
            self.patience_ended(id, sink);
        }
        if self.now.since(self.swept) >= STEP {
            self.swept = self.now;
            self.sweep(sink);
        }
    }

    /// The source has ended: so have all flows, in the order of their numbers.
    pub fn finish(&mut self, sink: &mut impl FlowSink<C>) {
        let known = |slot: &Slot<C>| match &slot.stage {
            Stage::Vacant => None,
            Stage::Told(flow, _) => Some(flow.start.number),
            _ => Some(u64::MAX),
        };
        // Twice, if SYNs in the middle of one flow begin another.
        while !self.index.is_empty() {
            let mut left: Vec<(u64, u32)> = (0u32..)
                .zip(&self.slots)
                .filter_map(|(id, slot)| known(slot).map(|number| (number, id)))
                .collect();
            left.sort_unstable();
            for (_, id) in left {
                self.end(id, sink);
            }
        }
    }

    fn slot(&self, id: u32) -> Option<&Slot<C>> {
        self.slots.get(id as usize)
    }

    /// Whether `segment` is taken from where it was seen. A new flow may come another way than the last one did.
    #[inline]
    fn takes(&mut self, id: u32, from_low: bool, segment: &Segment<'_>) -> bool {
        let Some(slot) = self.slots.get_mut(id as usize) else { return false };
        let [high, low] = &mut slot.pins;
        let pin = if from_low { low } else { high };
        pin.takes(segment.interface, self.now)
            || segment.syn
                && matches!(slot.stage, Stage::Ignored(past) | Stage::Over(past) if !past.is_past(segment))
    }

    fn judge(&mut self, id: u32, from_low: bool, segment: &Segment<'_>) -> Match {
        match self.slots.get_mut(id as usize).map(|slot| &mut slot.stage) {
            Some(Stage::Candidate(flow) | Stage::Told(flow, _))
                if segment.syn || flow.is_challenged() =>
            {
                flow.judge(flow.side(from_low), segment)
            }
            Some(Stage::Ignored(past) | Stage::Over(past))
                if segment.syn && !past.is_past(segment) =>
            {
                Match::ToANewFlow
            }
            _ => Match::ToThisFlow,
        }
    }

    /// A flow that begins with `segment`, unless none does.
    fn begin(
        &mut self,
        key: FlowKey,
        from_low: bool,
        segment: &Segment<'_>,
        sink: &mut impl FlowSink<C>,
    ) -> Option<u32> {
        let flow = Box::new(Flow::begin(segment, from_low, &self.ports)?);
        while self.index.len() >= self.limits.flows && self.evict(sink) {}
        let told_at_once = flow.told_at_once();
        let mut pins = [InterfacePin::default(); 2];
        let [high, low] = &mut pins;
        let pin = if from_low { low } else { high };
        pin.takes(segment.interface, self.now);
        let slot = Slot {
            key,
            last: self.now,
            placed: self.now,
            class: Class::Candidate,
            cost: 0,
            waits: None,
            pins,
            stage: Stage::Candidate(flow),
        };
        let id = match self.vacant.pop() {
            Some(id) => id,
            None => u32::try_from(self.slots.len()).ok()?,
        };
        match self.slots.get_mut(id as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.index.insert(key, id);
        self.by_age.place(id, Class::Candidate.list());
        if told_at_once {
            self.open(id, sink);
        }
        Some(id)
    }

    /// Gives `segment` to the flow in slot `id`.
    fn follow(
        &mut self,
        id: u32,
        from_low: bool,
        segment: &Segment<'_>,
        sink: &mut impl FlowSink<C>,
    ) {
        self.make_room(segment.payload.len(), sink);
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        let free = self.limits.held.saturating_sub(self.held - slot.cost);
        let counters = &mut self.counters;
        let (from, fate) = match &mut slot.stage {
            Stage::Told(flow, conversation) => {
                let from = flow.side(from_low);
                let consumer =
                    &mut Consumer { conversation: Some(conversation.as_mut()), counters };
                let budget = self.limits.held_per_flow.min(free);
                (from, flow.segment(from, segment, budget, consumer))
            }
            Stage::Candidate(flow) => {
                let from = flow.side(from_low);
                let consumer = &mut Consumer::<C> { conversation: None, counters };
                let budget = self.limits.held_per_flow.min(free).min(CANDIDATE_HELD);
                (from, flow.segment(from, segment, budget, consumer))
            }
            Stage::Ignored(_) => {
                self.counters.ignored += 1;
                slot.last = self.now;
                return self.keep(id, Class::Ignored);
            }
            Stage::Over(_) | Stage::Vacant => {
                self.counters.stray += 1;
                return;
            }
        };
        slot.last = self.now;
        let waiting_for_greeting = matches!(slot.stage, Stage::Candidate(_));
        match fate {
            FlowStatus::Over => return self.over(id, sink),
            FlowStatus::TooMuch => {
                self.refuse(id, sink);
                if self.slot(id).is_some_and(|slot| matches!(slot.stage, Stage::Told(..))) {
                    // Nothing of the segment was taken.
                    return self.follow(id, from_low, segment, sink);
                }
            }
            FlowStatus::Live if waiting_for_greeting && segment.len > 0 => {
                self.listen(id, from, sink)
            }
            FlowStatus::Live => {}
        }
        self.settle(id);
    }

    /// Asks whether the bytes of `from` are a greeting, where that is not known.
    fn listen(&mut self, id: u32, from: Side, sink: &mut impl FlowSink<C>) {
        let stage = self.slots.get_mut(id as usize).map(|slot| &mut slot.stage);
        let Some(Stage::Candidate(flow)) = stage else { return };
        let Some(greets) = flow.greeting(from).and_then(|bytes| sink.is_greeting(&bytes)) else {
            return;
        };
        if greets {
            flow.greeted(from);
            self.open(id, sink);
        } else if flow.not_greeted(from) {
            self.refuse(id, sink);
        }
    }

    /// A candidate is no SMTP, or will never be known to be; one between watched ports is told about all the same.
    fn refuse(&mut self, id: u32, sink: &mut impl FlowSink<C>) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        match &slot.stage {
            Stage::Candidate(flow) if flow.watched => self.open(id, sink),
            Stage::Candidate(flow) => {
                slot.stage = Stage::Ignored(Past::of(flow));
                self.counters.ignored += 1;
            }
            _ => {}
        }
    }

    /// Tells about a candidate.
    fn open(&mut self, id: u32, sink: &mut impl FlowSink<C>) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        match std::mem::replace(&mut slot.stage, Stage::Vacant) {
            Stage::Candidate(mut flow) => {
                self.counters.flows += 1;
                flow.start.number = self.counters.flows;
                let mut conversation = Box::new(sink.on_start(&flow.start));
                let conversation_heard = Some(conversation.as_mut());
                flow.heard(&mut Consumer {
                    conversation: conversation_heard,
                    counters: &mut self.counters,
                });
                slot.stage = Stage::Told(flow, conversation);
            }
            other => slot.stage = other,
        }
    }

    /// A flow ended by itself; what comes late is known to be late.
    fn over(&mut self, id: u32, sink: &mut impl FlowSink<C>) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        let past = match &slot.stage {
            Stage::Candidate(flow) => Stage::Ignored(Past::of(flow)),
            Stage::Told(flow, _) => Stage::Over(Past::of(flow)),
            _ => return,
        };
        let ended = std::mem::replace(&mut slot.stage, past);
        Self::tell_over(ended, false, &mut self.counters, sink);
        self.settle(id);
    }

    /// Takes the flow out of the table. SYNs that were seen in the middle of it begin one of their own.
    fn end(&mut self, id: u32, sink: &mut impl FlowSink<C>) {
        let rivals = match self.slots.get_mut(id as usize).map(|slot| &mut slot.stage) {
            Some(Stage::Candidate(flow) | Stage::Told(flow, _)) => Some(flow.rivals()),
            _ => None,
        };
        self.remove(id, false, sink);
        for syn in rivals.into_iter().flatten() {
            self.sort(&syn, sink);
        }
    }

    /// Takes the flow out of the table.
    fn remove(&mut self, id: u32, evicted: bool, sink: &mut impl FlowSink<C>) {
        if let Some(slot) = self.slots.get(id as usize)
            && let Stage::Candidate(flow) = &slot.stage
            && flow.watched
        {
            self.open(id, sink);
        }
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        let ended = std::mem::replace(&mut slot.stage, Stage::Vacant);
        if matches!(ended, Stage::Vacant) {
            return;
        }
        slot.waits = None;
        self.held -= std::mem::take(&mut slot.cost);
        self.index.remove(&slot.key);
        for roster in [&mut self.by_age, &mut self.waiting, &mut self.holding] {
            roster.remove(id);
        }
        self.vacant.push(id);
        Self::tell_over(ended, evicted, &mut self.counters, sink);
    }

    fn tell_over(
        stage: Stage<C>,
        evicted: bool,
        counters: &mut StreamCounters,
        sink: &mut impl FlowSink<C>,
    ) {
        match stage {
            Stage::Told(mut flow, mut conversation) => {
                counters.evicted += u64::from(evicted);
                let consumer =
                    &mut Consumer { conversation: Some(conversation.as_mut()), counters };
                let facts = flow.finish(evicted, consumer);
                sink.on_end(facts, *conversation);
            }
            _ => counters.forgotten += u64::from(evicted),
        }
    }
}
