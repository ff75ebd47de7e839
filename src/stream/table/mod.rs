//! The flow table: finds the flow of a segment, begins and ends flows, forgets them in time and under pressure.
//!
//! One hash lookup a segment. Flows stand in lists by the time of their last packet, one list for each time limit, so
//! that expiry and eviction are O(1) a flow; a flow moves to the back of its list once a second at most, so it may live
//! that much longer than its limit.

mod ageing;

use std::collections::HashMap;

use self::ageing::STEP;
use crate::addr::{Family, Side};
use crate::stream::flow::{Fate, Flow, Phase};
use crate::stream::key::Key;
use crate::stream::limits::{Counts, Limits, Ports};
use crate::stream::pin::Pin;
use crate::stream::reassembly::{Ear, PATIENCE};
use crate::stream::rivals::Belongs;
use crate::stream::roster::Roster;
use crate::stream::{Conversation, Opening, Sink, SocketFacts};
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
    Opening,
    Open,
}

impl Class {
    const ALL: [Self; 6] =
        [Self::Ignored, Self::Over, Self::Candidate, Self::Ending, Self::Opening, Self::Open];

    const fn of(phase: Phase) -> Self {
        match phase {
            Phase::Opening => Self::Opening,
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
    key: Key,
    /// The last segment.
    last: Timestamp,
    /// When it was placed in its list.
    placed: Timestamp,
    class: Class,
    /// Of what it holds.
    cost: usize,
    /// The number of its wait for octets that were acknowledged, and since when.
    waits: Option<(u64, Timestamp)>,
    /// Where each direction is seen: of the higher endpoint, then of the lower.
    pins: [Pin; 2],
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
    limits: Limits,
    ports: Ports,
    index: HashMap<Key, u32>,
    slots: Vec<Slot<C>>,
    vacant: Vec<u32>,
    by_age: Roster,
    waiting: Roster,
    holding: Roster,
    /// Sum of the slots' costs.
    held: usize,
    now: Timestamp,
    swept: Timestamp,
    counts: Counts,
}

impl<C: Conversation> FlowTable<C> {
    pub fn new(limits: Limits, ports: Ports) -> Self {
        Self {
            limits: Limits { flows: limits.flows.clamp(1, u32::MAX as usize - 1), ..limits },
            ports,
            index: HashMap::new(),
            slots: Vec::new(),
            vacant: Vec::new(),
            by_age: Roster::new(6),
            waiting: Roster::new(1),
            holding: Roster::new(1),
            held: 0,
            now: Timestamp::default(),
            swept: Timestamp::default(),
            counts: Counts::default(),
        }
    }

    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Flows of any kind that are remembered; at most [`Limits::flows`].
    pub fn flows(&self) -> usize {
        self.index.len()
    }

    /// Octets held, with what stands around them; at most [`Limits::held`].
    pub const fn held(&self) -> usize {
        self.held
    }

    /// What is told about and waits for its first answer, by position in [`Family::ALL`]; of more than 4,096 flows those
    /// alone of which nothing was seen for longest.
    pub fn opening(&self) -> [Opening; Family::ALL.len()] {
        let mut all = [Opening::default(); Family::ALL.len()];
        for id in self.by_age.iter(Class::Opening.list()).take(LOOK) {
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
    pub fn segment(&mut self, segment: &Segment<'_>, sink: &mut impl Sink<C>) {
        self.tick(segment.at, sink);
        self.counts.segments += 1;
        self.sort(segment, sink);
    }

    /// Finds or begins the flow of `segment` and gives it to that one.
    fn sort(&mut self, segment: &Segment<'_>, sink: &mut impl Sink<C>) {
        let (key, from_low) = Key::of(segment.src, segment.dst);
        while let Some(&id) = self.index.get(&key) {
            if !self.takes(id, from_low, segment) {
                self.counts.elsewhere += 1;
                return;
            }
            match self.judge(id, from_low, segment) {
                Belongs::ToThisFlow => return self.follow(id, from_low, segment, sink),
                Belongs::ToANewFlow => self.end(id, sink),
                Belongs::Nowhere => {
                    self.counts.out_of_window += 1;
                    return;
                }
            }
        }
        match self.begin(key, from_low, segment, sink) {
            Some(id) => self.follow(id, from_low, segment, sink),
            None => self.counts.stray += 1,
        }
    }

    /// An ICMP error: tied to the flow that sent what it quotes.
    pub fn icmp(&mut self, error: &IcmpError, sink: &mut impl Sink<C>) {
        self.tick(error.at, sink);
        let (key, from_low) = Key::of(error.src, error.dst);
        let slot = self.index.get(&key).and_then(|&id| self.slots.get_mut(id as usize));
        let tied = match slot.map(|slot| &mut slot.stage) {
            Some(Stage::Candidate(flow) | Stage::Told(flow, _)) => {
                let from = flow.side(from_low);
                if !flow.takes_icmp(from, error, self.now) {
                    self.counts.elsewhere += 1;
                    return;
                }
                flow.icmp(from, error)
            }
            _ => false,
        };
        self.counts.stray_icmp += u64::from(!tied);
    }

    /// What a kernel said of a socket, in the order of time among the segments as far as the source can tell. A flow whose
    /// SYN was not answered is over when its socket is; one that was just sent or answered goes on, since what a kernel
    /// says may overtake the packets that made it say so.
    pub fn socket(&mut self, facts: &SocketFacts, sink: &mut impl Sink<C>) {
        self.tick(facts.at, sink);
        let (key, _) = Key::of(facts.local, facts.peer);
        let Some(&id) = self.index.get(&key) else { return };
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if let Stage::Candidate(flow) | Stage::Told(flow, _) = &mut slot.stage
            && flow.socket(facts)
        {
            self.over(id, sink);
        }
    }

    /// Time passes without packets.
    pub fn tick(&mut self, at: Timestamp, sink: &mut impl Sink<C>) {
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
    pub fn finish(&mut self, sink: &mut impl Sink<C>) {
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

    fn judge(&mut self, id: u32, from_low: bool, segment: &Segment<'_>) -> Belongs {
        match self.slots.get_mut(id as usize).map(|slot| &mut slot.stage) {
            Some(Stage::Candidate(flow) | Stage::Told(flow, _))
                if segment.syn || flow.is_challenged() =>
            {
                flow.judge(flow.side(from_low), segment)
            }
            Some(Stage::Ignored(past) | Stage::Over(past))
                if segment.syn && !past.is_past(segment) =>
            {
                Belongs::ToANewFlow
            }
            _ => Belongs::ToThisFlow,
        }
    }

    /// A flow that begins with `segment`, unless none does.
    fn begin(
        &mut self,
        key: Key,
        from_low: bool,
        segment: &Segment<'_>,
        sink: &mut impl Sink<C>,
    ) -> Option<u32> {
        let flow = Box::new(Flow::begin(segment, from_low, &self.ports)?);
        while self.index.len() >= self.limits.flows && self.evict(sink) {}
        let told_at_once = flow.told_at_once();
        let mut pins = [Pin::default(); 2];
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
    fn follow(&mut self, id: u32, from_low: bool, segment: &Segment<'_>, sink: &mut impl Sink<C>) {
        self.make_room(segment.payload.len(), sink);
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        let free = self.limits.held.saturating_sub(self.held - slot.cost);
        let counts = &mut self.counts;
        let (from, fate) = match &mut slot.stage {
            Stage::Told(flow, conversation) => {
                let from = flow.side(from_low);
                let ear = &mut Ear { conversation: Some(conversation.as_mut()), counts };
                let budget = self.limits.held_per_flow.min(free);
                (from, flow.segment(from, segment, budget, ear))
            }
            Stage::Candidate(flow) => {
                let from = flow.side(from_low);
                let ear = &mut Ear::<C> { conversation: None, counts };
                let budget = self.limits.held_per_flow.min(free).min(CANDIDATE_HELD);
                (from, flow.segment(from, segment, budget, ear))
            }
            Stage::Ignored(_) => {
                self.counts.ignored += 1;
                slot.last = self.now;
                return self.keep(id, Class::Ignored);
            }
            Stage::Over(_) | Stage::Vacant => {
                self.counts.stray += 1;
                return;
            }
        };
        slot.last = self.now;
        let waiting_for_greeting = matches!(slot.stage, Stage::Candidate(_));
        match fate {
            Fate::Over => return self.over(id, sink),
            Fate::TooMuch => {
                self.refuse(id, sink);
                if self.slot(id).is_some_and(|slot| matches!(slot.stage, Stage::Told(..))) {
                    // Nothing of the segment was taken.
                    return self.follow(id, from_low, segment, sink);
                }
            }
            Fate::Live if waiting_for_greeting && segment.len > 0 => self.listen(id, from, sink),
            Fate::Live => {}
        }
        self.settle(id);
    }

    /// Asks whether the octets of `from` are a greeting, where that is not known.
    fn listen(&mut self, id: u32, from: Side, sink: &mut impl Sink<C>) {
        let stage = self.slots.get_mut(id as usize).map(|slot| &mut slot.stage);
        let Some(Stage::Candidate(flow)) = stage else { return };
        let Some(greets) = flow.greeting(from).and_then(|octets| sink.greets(&octets)) else {
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
    fn refuse(&mut self, id: u32, sink: &mut impl Sink<C>) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        match &slot.stage {
            Stage::Candidate(flow) if flow.watched => self.open(id, sink),
            Stage::Candidate(flow) => {
                slot.stage = Stage::Ignored(Past::of(flow));
                self.counts.ignored += 1;
            }
            _ => {}
        }
    }

    /// Tells about a candidate.
    fn open(&mut self, id: u32, sink: &mut impl Sink<C>) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        match std::mem::replace(&mut slot.stage, Stage::Vacant) {
            Stage::Candidate(mut flow) => {
                self.counts.flows += 1;
                flow.start.number = self.counts.flows;
                let mut conversation = Box::new(sink.open(&flow.start));
                let conversation_heard = Some(conversation.as_mut());
                flow.heard(&mut Ear { conversation: conversation_heard, counts: &mut self.counts });
                slot.stage = Stage::Told(flow, conversation);
            }
            other => slot.stage = other,
        }
    }

    /// A flow ended by itself; what comes late is known to be late.
    fn over(&mut self, id: u32, sink: &mut impl Sink<C>) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        let past = match &slot.stage {
            Stage::Candidate(flow) => Stage::Ignored(Past::of(flow)),
            Stage::Told(flow, _) => Stage::Over(Past::of(flow)),
            _ => return,
        };
        let ended = std::mem::replace(&mut slot.stage, past);
        Self::tell_over(ended, false, &mut self.counts, sink);
        self.settle(id);
    }

    /// Takes the flow out of the table. SYNs that were seen in the middle of it begin one of their own.
    fn end(&mut self, id: u32, sink: &mut impl Sink<C>) {
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
    fn remove(&mut self, id: u32, evicted: bool, sink: &mut impl Sink<C>) {
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
        Self::tell_over(ended, evicted, &mut self.counts, sink);
    }

    fn tell_over(stage: Stage<C>, evicted: bool, counts: &mut Counts, sink: &mut impl Sink<C>) {
        match stage {
            Stage::Told(mut flow, mut conversation) => {
                counts.evicted += u64::from(evicted);
                let ear = &mut Ear { conversation: Some(conversation.as_mut()), counts };
                let facts = flow.finish(evicted, ear);
                sink.over(facts, *conversation);
            }
            _ => counts.forgotten += u64::from(evicted),
        }
    }
}
