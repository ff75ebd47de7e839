//! The flow table: maps segments to flows, starts and ends flows, expires and evicts them.
//!
//! One hash lookup per segment. Flows are in LRU lists, one list for each idle limit, so expiry and eviction take O(1) per
//! flow. A flow moves to the back of its list at most once a second, so it may outlive its limit by that much.

mod ageing;

use std::collections::HashMap;

use self::ageing::STEP;
use crate::addr::{Family, Side};
use crate::stream::flow::{Flow, FlowPhase, FlowStatus};
use crate::stream::flow_key::FlowKey;
use crate::stream::interface_pin::InterfacePin;
use crate::stream::limits::{FlowLimits, StreamCounters, WatchedPorts};
use crate::stream::lru_lists::LruLists;
use crate::stream::reassembly::{Consumer, REORDER_TIMEOUT};
use crate::stream::syn_candidates::Match;
use crate::stream::{FlowHandler, FlowSink, PendingFlows, SocketEvent};
use crate::time::Timestamp;
use crate::wire::{IcmpError, Segment};

/// Memory limit of a flow that is not known to be SMTP: 4 KiB of payload and the overhead.
const CANDIDATE_HELD: usize = 8 << 10;
/// Maximum number of flows that [`FlowTable::pending_flows`] scans.
const MAX_SCANNED: usize = 4096;

/// The LRU lists. Flows are evicted in this order; from [`AgeClass::Ending`] on the least recently active first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum AgeClass {
    Ignored,
    Ended,
    Candidate,
    Ending,
    Connecting,
    Open,
}

impl AgeClass {
    const ALL: [Self; 6] =
        [Self::Ignored, Self::Ended, Self::Candidate, Self::Ending, Self::Connecting, Self::Open];

    const fn of(phase: FlowPhase) -> Self {
        match phase {
            FlowPhase::Connecting => Self::Connecting,
            FlowPhase::Open => Self::Open,
            FlowPhase::Ending => Self::Ending,
        }
    }

    const fn list(self) -> u8 {
        self as u8
    }
}

#[derive(Debug)]
struct FlowSlot<C> {
    key: FlowKey,
    /// Time of the last segment.
    last: Timestamp,
    /// Time of its last move to the back of its list.
    listed_at: Timestamp,
    class: AgeClass,
    /// Memory of held data in bytes.
    cost: usize,
    /// The current wait for missing bytes: its number and its start.
    wait: Option<(u64, Timestamp)>,
    /// Capturing interface for packets of the higher endpoint, then of the lower one.
    pins: [InterfacePin; 2],
    state: SlotState<C>,
}

#[derive(Debug)]
enum SlotState<C> {
    Vacant,
    /// Not SMTP.
    Ignored(PastFlow),
    /// Reported, and over.
    Ended(PastFlow),
    /// May turn out to be SMTP when the server sends data.
    Candidate(Box<Flow>),
    /// Reported to a handler.
    Open(Box<Flow>, Box<C>),
}

/// Initial sequence numbers of a flow that is no longer tracked.
#[derive(Clone, Copy, Debug)]
struct PastFlow {
    client: Option<u32>,
    server: Option<u32>,
}

impl PastFlow {
    const fn of(flow: &Flow) -> Self {
        let (client, server) = flow.isns();
        Self { client, server }
    }

    /// Whether `segment`, which has SYN set, belongs to this flow.
    fn has_syn(self, segment: &Segment<'_>) -> bool {
        match segment.ack {
            None => self.client == Some(segment.seq) || self.server == Some(segment.seq),
            Some(ack) => {
                self.server == Some(segment.seq) || self.client == Some(ack.wrapping_sub(1))
            }
        }
    }
}

/// All flows of a packet source.
#[derive(Debug)]
pub struct FlowTable<C> {
    limits: FlowLimits,
    ports: WatchedPorts,
    index: HashMap<FlowKey, u32>,
    slots: Vec<FlowSlot<C>>,
    vacant: Vec<u32>,
    by_age: LruLists,
    /// Flows that wait for missing bytes.
    waiting: LruLists,
    /// Flows that hold data.
    holding: LruLists,
    /// Sum of the slots' `cost`.
    held: usize,
    now: Timestamp,
    swept_at: Timestamp,
    /// The source may have lost packets until then.
    lost_until: Option<Timestamp>,
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
            swept_at: Timestamp::default(),
            lost_until: None,
            counters: StreamCounters::default(),
        }
    }

    pub const fn counters(&self) -> &StreamCounters {
        &self.counters
    }

    /// Number of flows of any kind; at most [`FlowLimits::flows`].
    pub fn flows(&self) -> usize {
        self.index.len()
    }

    /// Memory of held data in bytes, overhead included; at most [`FlowLimits::held`].
    pub const fn held(&self) -> usize {
        self.held
    }

    /// Reported flows that wait for the first answer to their SYN, by position in [`Family::ALL`]. Only the 4,096 least
    /// recently active ones are counted.
    pub fn pending_flows(&self) -> [PendingFlows; Family::ALL.len()] {
        let mut all = [PendingFlows::default(); Family::ALL.len()];
        for id in self.by_age.iter(AgeClass::Connecting.list()).take(MAX_SCANNED) {
            let Some(SlotState::Open(flow, _)) = self.slot(id).map(|slot| &slot.state) else {
                continue;
            };
            let family = Family::of(flow.start.client.ip());
            if let Some((since, syns)) = flow.pending_since()
                && let Some(pending) = all.get_mut(family as usize)
            {
                pending.flows += 1;
                pending.retried += usize::from(syns > 1);
                pending.since = Some(pending.since.map_or(since, |oldest| oldest.min(since)));
            }
        }
        all
    }

    /// Processes the next segment of the capture. Its time advances the table's clock, which never goes back.
    pub fn on_segment(&mut self, segment: &Segment<'_>, sink: &mut impl FlowSink<C>) {
        self.tick(segment.at, sink);
        self.counters.segments += 1;
        self.dispatch(segment, sink);
    }

    /// Feeds `segment` to its flow, which may be new.
    fn dispatch(&mut self, segment: &Segment<'_>, sink: &mut impl FlowSink<C>) {
        let (key, from_low) = FlowKey::of(segment.src, segment.dst);
        while let Some(&id) = self.index.get(&key) {
            if !self.accepts_interface(id, from_low, segment) {
                self.counters.other_interface += 1;
                return;
            }
            match self.match_segment(id, from_low, segment) {
                Match::ThisFlow => return self.feed(id, from_low, segment, sink),
                Match::NewFlow => {
                    if let Some(SlotState::Candidate(flow) | SlotState::Open(flow, _)) =
                        self.slots.get_mut(id as usize).map(|slot| &mut slot.state)
                    {
                        flow.on_port_reused(segment.at);
                    }
                    self.end(id, sink);
                }
                Match::Undecided => {
                    self.counters.out_of_window += 1;
                    return;
                }
            }
        }
        match self.start(key, from_low, segment, sink) {
            Some(id) => self.feed(id, from_low, segment, sink),
            None => self.counters.stray += 1,
        }
    }

    /// Assigns an ICMP error to the flow whose segment it quotes.
    pub fn on_icmp_error(&mut self, error: &IcmpError, sink: &mut impl FlowSink<C>) {
        self.tick(error.at, sink);
        let (key, from_low) = FlowKey::of(error.src, error.dst);
        let slot = self.index.get(&key).and_then(|&id| self.slots.get_mut(id as usize));
        let is_assigned = match slot.map(|slot| &mut slot.state) {
            Some(SlotState::Candidate(flow) | SlotState::Open(flow, _)) => {
                let from = flow.side(from_low);
                if !flow.accepts_icmp(from, error, self.now) {
                    self.counters.other_interface += 1;
                    return;
                }
                flow.on_icmp_error(from, error)
            }
            _ => false,
        };
        self.counters.stray_icmp += u64::from(!is_assigned);
    }

    /// Processes a socket event of a kernel, in time order with the segments as far as the source knows it. A flow whose SYN
    /// was not answered ends with its socket. If the SYN was sent just before, the flow continues: the event may overtake the
    /// packet that caused it.
    pub fn on_socket_event(&mut self, event: &SocketEvent, sink: &mut impl FlowSink<C>) {
        self.tick(event.at, sink);
        let (key, _) = FlowKey::of(event.local, event.peer);
        let Some(&id) = self.index.get(&key) else { return };
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if let SlotState::Candidate(flow) | SlotState::Open(flow, _) = &mut slot.state
            && flow.on_socket_event(event)
        {
            self.retire(id, sink);
        }
    }

    /// Advances the clock without a packet.
    pub fn tick(&mut self, at: Timestamp, sink: &mut impl FlowSink<C>) {
        self.now = self.now.max(at);
        while let Some(id) = self.waiting.front(0) {
            let wait = self.slot(id).and_then(|slot| slot.wait);
            if wait.is_some_and(|(_, since)| self.now < since + REORDER_TIMEOUT) {
                break;
            }
            self.expire_wait(id, sink);
        }
        if self.now.since(self.swept_at) >= STEP {
            self.swept_at = self.now;
            self.sweep(sink);
        }
    }

    /// The source lost packets before `until`. Nothing follows from what is missing in flows that began by then.
    pub fn on_loss(&mut self, until: Timestamp) {
        self.lost_until = self.lost_until.max(Some(until));
    }

    /// Ends all flows, in the order of their numbers.
    pub fn finish(&mut self, sink: &mut impl FlowSink<C>) {
        let known = |slot: &FlowSlot<C>| match &slot.state {
            SlotState::Vacant => None,
            SlotState::Open(flow, _) => Some(flow.start.number),
            _ => Some(u64::MAX),
        };
        // Repeats if SYN candidates of a flow start new ones.
        while !self.index.is_empty() {
            let mut open: Vec<(u64, u32)> = (0u32..)
                .zip(&self.slots)
                .filter_map(|(id, slot)| known(slot).map(|number| (number, id)))
                .collect();
            open.sort_unstable();
            for (_, id) in open {
                self.end(id, sink);
            }
        }
    }

    fn slot(&self, id: u32) -> Option<&FlowSlot<C>> {
        self.slots.get(id as usize)
    }

    /// Whether `segment` is from the interface used for its direction. A new flow may use another one.
    #[inline]
    fn accepts_interface(&mut self, id: u32, from_low: bool, segment: &Segment<'_>) -> bool {
        let Some(slot) = self.slots.get_mut(id as usize) else { return false };
        let [high, low] = &mut slot.pins;
        let pin = if from_low { low } else { high };
        pin.accepts(segment.interface, self.now)
            || segment.syn
                && matches!(slot.state, SlotState::Ignored(past) | SlotState::Ended(past) if !past.has_syn(segment))
    }

    fn match_segment(&mut self, id: u32, from_low: bool, segment: &Segment<'_>) -> Match {
        match self.slots.get_mut(id as usize).map(|slot| &mut slot.state) {
            Some(SlotState::Candidate(flow) | SlotState::Open(flow, _))
                if segment.syn || flow.has_syn_candidates() =>
            {
                flow.match_segment(flow.side(from_low), segment)
            }
            Some(SlotState::Ignored(past) | SlotState::Ended(past))
                if segment.syn && !past.has_syn(segment) =>
            {
                Match::NewFlow
            }
            _ => Match::ThisFlow,
        }
    }

    /// Starts a flow with `segment`, if that can start one.
    fn start(
        &mut self,
        key: FlowKey,
        from_low: bool,
        segment: &Segment<'_>,
        sink: &mut impl FlowSink<C>,
    ) -> Option<u32> {
        let flow = Box::new(Flow::start(segment, from_low, &self.ports)?);
        while self.index.len() >= self.limits.flows && self.evict(sink) {}
        let opens_at_once = flow.opens_at_once();
        let mut pins = [InterfacePin::default(); 2];
        let [high, low] = &mut pins;
        let pin = if from_low { low } else { high };
        pin.accepts(segment.interface, self.now);
        let slot = FlowSlot {
            key,
            last: self.now,
            listed_at: self.now,
            class: AgeClass::Candidate,
            cost: 0,
            wait: None,
            pins,
            state: SlotState::Candidate(flow),
        };
        let id = match self.vacant.pop() {
            Some(id) => id,
            None => u32::try_from(self.slots.len()).ok()?,
        };
        match self.slots.get_mut(id as usize) {
            Some(vacant) => *vacant = slot,
            None => self.slots.push(slot),
        }
        self.index.insert(key, id);
        self.by_age.move_to_back(id, AgeClass::Candidate.list());
        if opens_at_once {
            self.open(id, sink);
        }
        Some(id)
    }

    /// Feeds `segment` to the flow in slot `id`.
    fn feed(
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
        let (from, status) = match &mut slot.state {
            SlotState::Open(flow, handler) => {
                let from = flow.side(from_low);
                let consumer = &mut Consumer { handler: Some(handler.as_mut()), counters };
                let budget = self.limits.held_per_flow.min(free);
                (from, flow.on_segment(from, segment, budget, consumer))
            }
            SlotState::Candidate(flow) => {
                let from = flow.side(from_low);
                let consumer = &mut Consumer::<C> { handler: None, counters };
                let budget = self.limits.held_per_flow.min(free).min(CANDIDATE_HELD);
                (from, flow.on_segment(from, segment, budget, consumer))
            }
            SlotState::Ignored(_) => {
                self.counters.ignored += 1;
                slot.last = self.now;
                return self.touch(id, AgeClass::Ignored);
            }
            SlotState::Ended(_) | SlotState::Vacant => {
                self.counters.stray += 1;
                return;
            }
        };
        slot.last = self.now;
        let awaits_greeting = matches!(slot.state, SlotState::Candidate(_));
        match status {
            FlowStatus::Ended => return self.retire(id, sink),
            FlowStatus::OverBudget => {
                self.ignore(id, sink);
                if self.slot(id).is_some_and(|slot| matches!(slot.state, SlotState::Open(..))) {
                    // The segment was not accepted.
                    return self.feed(id, from_low, segment, sink);
                }
            }
            FlowStatus::Active if awaits_greeting && segment.len > 0 => {
                self.check_greeting(id, from, sink)
            }
            FlowStatus::Active => {}
        }
        self.update_slot(id);
    }

    /// Checks whether a candidate's bytes of `from` are a greeting.
    fn check_greeting(&mut self, id: u32, from: Side, sink: &mut impl FlowSink<C>) {
        let stage = self.slots.get_mut(id as usize).map(|slot| &mut slot.state);
        let Some(SlotState::Candidate(flow)) = stage else { return };
        let Some(is_greeting) =
            flow.possible_greeting(from).and_then(|bytes| sink.is_greeting(&bytes))
        else {
            return;
        };
        if is_greeting {
            flow.set_server(from);
            self.open(id, sink);
        } else if flow.rule_out_greeting(from) {
            self.ignore(id, sink);
        }
    }

    /// Stops tracking a candidate that is not SMTP, or cannot be recognised any more. Between watched ports it is reported
    /// nevertheless.
    fn ignore(&mut self, id: u32, sink: &mut impl FlowSink<C>) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        match &slot.state {
            SlotState::Candidate(flow) if flow.watched => self.open(id, sink),
            SlotState::Candidate(flow) => {
                slot.state = SlotState::Ignored(PastFlow::of(flow));
                self.counters.ignored += 1;
            }
            _ => {}
        }
    }

    /// Reports a candidate and delivers its held data.
    fn open(&mut self, id: u32, sink: &mut impl FlowSink<C>) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        match std::mem::replace(&mut slot.state, SlotState::Vacant) {
            SlotState::Candidate(mut flow) => {
                self.counters.flows += 1;
                flow.start.number = self.counters.flows;
                let mut handler = Box::new(sink.on_start(&flow.start));
                let counters = &mut self.counters;
                let consumer = &mut Consumer { handler: Some(handler.as_mut()), counters };
                flow.deliver_held(consumer);
                slot.state = SlotState::Open(flow, handler);
            }
            other => slot.state = other,
        }
    }

    /// Ends a flow but keeps its slot, so that late segments are recognised.
    fn retire(&mut self, id: u32, sink: &mut impl FlowSink<C>) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        let past = match &slot.state {
            SlotState::Candidate(flow) => SlotState::Ignored(PastFlow::of(flow)),
            SlotState::Open(flow, _) => SlotState::Ended(PastFlow::of(flow)),
            _ => return,
        };
        let ended = std::mem::replace(&mut slot.state, past);
        Self::report_end(ended, false, self.lost_until, &mut self.counters, sink);
        self.update_slot(id);
    }

    /// Removes a flow. Its SYN candidates start new ones.
    fn end(&mut self, id: u32, sink: &mut impl FlowSink<C>) {
        let candidates = match self.slots.get_mut(id as usize).map(|slot| &mut slot.state) {
            Some(SlotState::Candidate(flow) | SlotState::Open(flow, _)) => {
                Some(flow.take_syn_candidates())
            }
            _ => None,
        };
        self.remove(id, false, sink);
        for syn in candidates.into_iter().flatten() {
            self.dispatch(&syn, sink);
        }
    }

    /// Removes a flow.
    fn remove(&mut self, id: u32, evicted: bool, sink: &mut impl FlowSink<C>) {
        if let Some(slot) = self.slots.get(id as usize)
            && let SlotState::Candidate(flow) = &slot.state
            && flow.watched
        {
            self.open(id, sink);
        }
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        let ended = std::mem::replace(&mut slot.state, SlotState::Vacant);
        if matches!(ended, SlotState::Vacant) {
            return;
        }
        slot.wait = None;
        self.held -= std::mem::take(&mut slot.cost);
        self.index.remove(&slot.key);
        for lists in [&mut self.by_age, &mut self.waiting, &mut self.holding] {
            lists.remove(id);
        }
        self.vacant.push(id);
        Self::report_end(ended, evicted, self.lost_until, &mut self.counters, sink);
    }

    fn report_end(
        stage: SlotState<C>,
        evicted: bool,
        lost_until: Option<Timestamp>,
        counters: &mut StreamCounters,
        sink: &mut impl FlowSink<C>,
    ) {
        match stage {
            SlotState::Open(mut flow, mut handler) => {
                counters.evicted += u64::from(evicted);
                let consumer = &mut Consumer { handler: Some(handler.as_mut()), counters };
                let facts = flow.finish(evicted, lost_until, consumer);
                sink.on_end(facts, *handler);
            }
            _ => counters.forgotten += u64::from(evicted),
        }
    }
}
