//! What the segments of one flow show: its handshake, its ends, its troubles.

use std::time::Duration;

use super::black_hole::LargeSegments;
use super::half_stream::{Anchor, WINDOW};
use super::interface_pin::InterfacePin;
use super::limits::{StreamCounters, WatchedPorts};
use super::per_side::PerSide;
use super::reassembly::{Accepted, Bytes, Consumer, Loss, PATIENCE, Reassembly};
use super::syn_candidates::{Match, SynCandidates};
use super::{FlowFacts, FlowHandler, FlowOutcome, FlowStart, SocketEvent};
use crate::addr::{Side, canonical};
use crate::time::Timestamp;
use crate::wire::{IcmpError, IcmpKind, Segment};

/// A SYN with another sequence number begins a new flow after so long a silence, even though none saw the old one end.
const SILENCE: Duration = Duration::from_secs(60);
/// A RST is believed so far beyond what was sent.
const RESET_WINDOW: i64 = 1 << 20;
/// So many bytes of a server are enough to tell whether it greets.
const GREETING: usize = 1024;

/// One flow, from its first segment to its facts.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) start: FlowStart,
    /// The lower endpoint of the key is the client.
    pub(super) client_low: bool,
    /// Client and server are known; else the sender of the first segment stands for the client.
    roles_known: bool,
    /// Told about whatever the server says.
    pub(super) watched: bool,
    /// Sides whose first bytes are no greeting.
    silent: PerSide<bool>,
    streams: Reassembly,
    isn: PerSide<Option<u32>>,
    /// What each side takes at most in a segment.
    mss: PerSide<Option<u16>>,
    syns: u32,
    syn_at: Option<Timestamp>,
    handshake: Option<Duration>,
    /// The client acknowledged the SYN-ACK, seen or not.
    completed: bool,
    end: Timestamp,
    answered: bool,
    refused: bool,
    unreachable: bool,
    /// Ended by RST before a FIN.
    reset: bool,
    /// A RST was believed: its sender.
    rst: Option<Side>,
    closed_by: Option<Side>,
    data_segments: PerSide<u64>,
    retransmits: PerSide<u64>,
    rtt: Option<Duration>,
    icmp_errors: u64,
    icmp_kinds: [u64; 5],
    /// Where the errors about what each side sent are seen.
    icmp_pins: PerSide<InterfacePin>,
    path_mtu: Option<u32>,
    large: PerSide<LargeSegments>,
    rivals: SynCandidates,
}

/// How a flow stands after a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowStatus {
    Live,
    Over,
    /// More than a flow may hold that is not known to be SMTP.
    TooMuch,
}

/// How long a flow may be silent depends on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
    Ending,
}

impl Flow {
    /// A flow that begins with `segment`, of the lower endpoint of the key or not; `None` if none begins with such.
    pub(super) fn begin(
        segment: &Segment<'_>,
        from_low: bool,
        ports: &WatchedPorts,
    ) -> Option<Self> {
        if segment.rst || !segment.syn && segment.len == 0 {
            return None;
        }
        let (from, to) = (ports.contains(segment.src.port()), ports.contains(segment.dst.port()));
        // Who sent it; `None` if that is open.
        let sender = match (segment.syn, segment.ack) {
            (true, None) => Some(Side::Client),
            (true, Some(_)) => Some(Side::Server),
            (false, _) if from == to => None,
            (false, _) if to => Some(Side::Client),
            (false, _) => Some(Side::Server),
        };
        let client_sent = sender != Some(Side::Server);
        let (src, dst) = (canonical(segment.src), canonical(segment.dst));
        let (client, server) = if client_sent { (src, dst) } else { (dst, src) };
        let start =
            FlowStart { number: 0, client, server, at: segment.at, midstream: !segment.syn };
        Some(Self {
            start,
            client_low: client_sent == from_low,
            roles_known: sender.is_some(),
            watched: ports.contains(server.port()),
            silent: PerSide::default(),
            streams: Reassembly::default(),
            isn: PerSide::default(),
            mss: PerSide::default(),
            syns: 0,
            syn_at: None,
            handshake: None,
            completed: false,
            end: segment.at,
            answered: false,
            refused: false,
            unreachable: false,
            reset: false,
            rst: None,
            closed_by: None,
            data_segments: PerSide::default(),
            retransmits: PerSide::default(),
            rtt: None,
            icmp_errors: 0,
            icmp_kinds: [0; 5],
            icmp_pins: PerSide::default(),
            path_mtu: None,
            large: PerSide::default(),
            rivals: SynCandidates::default(),
        })
    }

    /// Told about from its first segment on.
    pub(super) const fn told_at_once(&self) -> bool {
        self.watched && self.roles_known
    }

    pub(super) const fn side(&self, low: bool) -> Side {
        if low == self.client_low { Side::Client } else { Side::Server }
    }

    /// The sequence numbers of its SYNs.
    pub(super) const fn isns(&self) -> (Option<u32>, Option<u32>) {
        (self.isn.client, self.isn.server)
    }

    /// SYNs in the middle of this flow wait for what comes next.
    pub(super) const fn is_challenged(&self) -> bool {
        !self.rivals.is_empty()
    }

    /// The SYNs in the middle of this flow that nothing of it followed.
    pub(super) fn rivals(&mut self) -> impl Iterator<Item = Segment<'static>> + use<> {
        self.rivals.take()
    }

    /// What `segment` is to this flow; asked of SYNs, and of others while it [is challenged](Self::is_challenged).
    pub(super) fn judge(&mut self, from: Side, segment: &Segment<'_>) -> Match {
        let from_last = |side, number| {
            let half = self.streams.halves.of(side);
            (half.position(number) - half.next).unsigned_abs()
        };
        if self.rivals.go_on_with(from, segment, from_last) {
            return Match::ToANewFlow;
        }
        if segment.syn {
            return self.judge_syn(from, segment);
        }
        self.rivals.clear();
        Match::ToThisFlow
    }

    fn judge_syn(&mut self, from: Side, segment: &Segment<'_>) -> Match {
        let isn = *self.isn.of(from);
        let half = self.streams.halves.of(from);
        let first = segment.seq.wrapping_add(1);
        let fits = match isn {
            Some(isn) => isn == segment.seq,
            // Late in the capture: what it begins was seen already.
            None => match half.anchor {
                Anchor::Unknown => true,
                Anchor::Guess => (half.end - WINDOW..=half.start).contains(&half.position(first)),
                Anchor::Known => !self.start.midstream && half.position(first) == half.start,
            },
        };
        let other = self.isn.of(from.other()).map(|isn| isn.wrapping_add(1));
        match segment.ack {
            None if fits && (from == Side::Client || !self.answered) => Match::ToThisFlow,
            None if self.phase() != Phase::Open || segment.at.since(self.end) >= SILENCE => {
                Match::ToANewFlow
            }
            None => {
                self.rivals.push(from, segment);
                Match::Nowhere
            }
            Some(ack) if fits && other.is_none_or(|due| ack.wrapping_sub(due) as i32 >= 0) => {
                Match::ToThisFlow
            }
            Some(_) => Match::Nowhere,
        }
    }

    /// A segment of this flow. What is held must not cost more than `budget` afterwards.
    pub(super) fn segment<C: FlowHandler>(
        &mut self,
        from: Side,
        segment: &Segment<'_>,
        budget: usize,
        consumer: &mut Consumer<'_, C>,
    ) -> FlowStatus {
        self.end = self.end.max(segment.at);
        if segment.rst {
            return self.rst(from, segment, consumer);
        }
        let mut first = segment.seq;
        if segment.syn {
            first = first.wrapping_add(1);
            self.syn(from, segment, first);
        }
        let need = self.place(from, segment, first, consumer.counters);
        self.progress(from, segment);
        let took = self.bytes(from, segment, first, need, budget, consumer);
        if took == Accepted::NoRoom {
            return FlowStatus::TooMuch;
        }
        if segment.fin {
            self.fin(from, segment, first, need);
        }
        self.streams.drain(consumer);
        self.after(segment.at, consumer)
    }

    /// Waiting goes on or ends; so may the flow.
    fn after<C: FlowHandler>(
        &mut self,
        at: Timestamp,
        consumer: &mut Consumer<'_, C>,
    ) -> FlowStatus {
        let ended = self.streams.waited(at, self.rst.is_some(), consumer);
        if ended && self.rst.is_some() { FlowStatus::Over } else { self.fate() }
    }

    fn fate(&self) -> FlowStatus {
        let done = |side| {
            let half = self.streams.halves.of(side);
            half.closed && half.fin.is_some_and(|fin| half.acked > fin.position)
        };
        if done(Side::Client) && done(Side::Server) { FlowStatus::Over } else { FlowStatus::Live }
    }

    /// Bytes that the capture lacks were waited for long enough.
    pub(super) fn patience_ended<C: FlowHandler>(
        &mut self,
        consumer: &mut Consumer<'_, C>,
    ) -> FlowStatus {
        self.streams.give_up_waiting(consumer);
        if self.rst.is_some() {
            return FlowStatus::Over;
        }
        self.after(self.end, consumer)
    }

    fn syn(&mut self, from: Side, segment: &Segment<'_>, first: u32) {
        if from == Side::Client && segment.ack.is_none() {
            self.syns += 1;
            self.syn_at.get_or_insert(segment.at);
        }
        self.isn.of_mut(from).get_or_insert(segment.seq);
        if segment.mss.is_some() {
            *self.mss.of_mut(from) = segment.mss;
        }
        self.streams.halves.of_mut(from).anchor(first);
        if from == Side::Server && segment.ack.is_some() {
            self.answer();
        }
    }

    /// The SYN was answered by more than an error.
    const fn answer(&mut self) {
        if !self.answered {
            self.answered = true;
            // A RST that answered an earlier SYN.
            self.refused = false;
            self.closed_by = None;
        }
    }

    /// Where the segment stands in both directions; the position that it acknowledges, if any.
    fn place(
        &mut self,
        from: Side,
        segment: &Segment<'_>,
        first: u32,
        counters: &mut StreamCounters,
    ) -> i64 {
        let (half, peer) = self.streams.halves.split(from);
        half.window = segment.window;
        let sure = self.start.midstream;
        if !half.settled() {
            if sure { half.anchor(first) } else { half.guess(first) }
        }
        let Some(ack) = segment.ack else { return i64::MIN };
        if !peer.settled() {
            if sure || segment.syn { peer.anchor(ack) } else { peer.guess(ack) }
        }
        let position = peer.position(ack);
        if position > peer.next.max(peer.end) + WINDOW {
            counters.out_of_window += 1;
            return i64::MIN;
        }
        if position > peer.acked {
            peer.acked = position;
            self.large.of_mut(from.other()).acknowledged(position);
        }
        position
    }

    /// The handshake goes on.
    fn progress(&mut self, from: Side, segment: &Segment<'_>) {
        if segment.syn || self.completed || self.start.midstream {
            return;
        }
        match from {
            Side::Client if segment.ack.is_some() => {
                self.answer();
                self.completed = true;
                self.handshake = self.syn_at.map(|syn| segment.at.since(syn));
            }
            Side::Server if segment.len > 0 => self.answer(),
            _ => {}
        }
    }

    fn bytes<C: FlowHandler>(
        &mut self,
        from: Side,
        segment: &Segment<'_>,
        first: u32,
        need: i64,
        budget: usize,
        consumer: &mut Consumer<'_, C>,
    ) -> Accepted {
        if segment.len == 0 {
            return Accepted::NothingNew;
        }
        *self.data_segments.of_mut(from) += 1;
        let (half, peer) = self.streams.halves.split(from);
        let position = half.position(first);
        if position > half.next + WINDOW {
            consumer.counters.out_of_window += 1;
            return Accepted::Outside;
        }
        let keep_alive = position + 1 == half.end && half.acked >= half.end;
        let probe = segment.len == 1 && (keep_alive || peer.window == 0);
        let (at_edge, open) = (position <= half.acked, peer.window > 0);
        let bytes = Bytes {
            position,
            omitted: segment.omitted,
            captured: segment.payload,
            length: segment.len,
            need,
            at: segment.at,
        };
        let took = self.streams.data(from, bytes, budget, consumer);
        match took {
            Accepted::NothingNew if !probe => *self.retransmits.of_mut(from) += 1,
            Accepted::Outside => consumer.counters.out_of_window += 1,
            _ => {}
        }
        if open && matches!(took, Accepted::Some | Accepted::NothingNew) {
            let mss = *self.mss.of(from.other());
            self.large.of_mut(from).sent(position, segment.len, at_edge, mss);
        }
        took
    }

    fn fin(&mut self, from: Side, segment: &Segment<'_>, first: u32, need: i64) {
        let (half, peer) = self.streams.halves.split(from);
        let position = half.position(first) + i64::from(segment.len);
        // The first wins, unless bytes behind it were seen before.
        let due = half.end.max(half.next)..=half.next.saturating_add(WINDOW);
        if half.fin.is_none() && due.contains(&position) {
            // Of two that cross, which one is seen first depends on where one looks. The server's is the older: it comes
            // behind the 221 that the client closes upon (RFC 5321 §4.1.1.10).
            if self.rst.is_none() && peer.fin.is_some_and(|fin| need <= fin.position) {
                self.closed_by = Some(Side::Server);
            }
            self.closed_by.get_or_insert(from);
            self.streams.fin(from, position, need, segment.at);
        }
    }

    fn rst<C: FlowHandler>(
        &mut self,
        from: Side,
        segment: &Segment<'_>,
        consumer: &mut Consumer<'_, C>,
    ) -> FlowStatus {
        let (half, peer) = self.streams.halves.split(from);
        if !self.answered && !self.start.midstream {
            let ours = match (from, segment.ack) {
                (Side::Client, _) => true,
                (Side::Server, Some(ack)) => {
                    (peer.start..=peer.end + 1).contains(&peer.position(ack))
                }
                (Side::Server, None) => false,
            };
            if ours {
                self.refused |= from == Side::Server;
                self.closed_by.get_or_insert(from);
                return if consumer.conversation.is_none() {
                    FlowStatus::Over
                } else {
                    FlowStatus::Live
                };
            }
            consumer.counters.out_of_window += 1;
            return FlowStatus::Live;
        }
        let position = half.position(segment.seq);
        let least = half.acked.max(half.start - 1);
        let most = half.end.max(half.next).max(half.acked) + RESET_WINDOW;
        if half.settled() && !(least..=most).contains(&position) {
            consumer.counters.out_of_window += 1;
            return FlowStatus::Live;
        }
        let ended = half.fin.is_some() || peer.fin.is_some();
        if self.rst.is_none() {
            self.reset |= !ended;
            self.closed_by.get_or_insert(from);
            self.rst = Some(from);
        }
        let whole = half.next >= position || !half.settled();
        // What it acknowledges may come out of order too.
        if let Some(ack) = segment.ack.filter(|_| peer.settled()) {
            let position = peer.position(ack);
            if position <= peer.end.max(peer.next) + RESET_WINDOW {
                peer.acked = peer.acked.max(position);
            }
        }
        if consumer.conversation.is_none() || whole && self.streams.idle() {
            return FlowStatus::Over;
        }
        self.after(segment.at, consumer)
    }

    /// Whether the errors about what `from` sent are taken from where this one was seen at `now`.
    pub(super) fn takes_icmp(&mut self, from: Side, error: &IcmpError, now: Timestamp) -> bool {
        self.icmp_pins.of_mut(from).takes(error.interface, now)
    }

    /// An ICMP error about a segment that `from` sent; whether it did.
    pub(super) fn icmp(&mut self, from: Side, error: &IcmpError) -> bool {
        let half = self.streams.halves.of(from);
        let position = half.position(error.seq);
        let least = half.start - if self.start.midstream { WINDOW } else { 1 };
        let most = half.end.max(half.acked).max(half.next);
        if half.anchor != Anchor::Unknown && !(least..=most).contains(&position) {
            return false;
        }
        self.end = self.end.max(error.at);
        self.icmp_errors += 1;
        if let Some(count) = self.icmp_kinds.get_mut(error.kind.index()) {
            *count += 1;
        }
        match error.kind {
            IcmpKind::PacketTooBig { mtu } => {
                if mtu > 0 {
                    self.path_mtu = Some(self.path_mtu.map_or(mtu, |least| least.min(mtu)));
                }
                self.large.of_mut(from).told();
            }
            IcmpKind::Unreachable
            | IcmpKind::Prohibited
            | IcmpKind::TimeExceeded
            | IcmpKind::ParameterProblem => self.unreachable |= !self.answered,
        }
        true
    }

    /// What the kernel of one end says. Whether nothing more will come: it gave up to connect, and not because of an answer
    /// that is still to be seen.
    pub(super) fn socket(&mut self, facts: &SocketEvent) -> bool {
        self.rtt = facts.rtt.or(self.rtt);
        facts.closed && self.phase() == Phase::Connecting && facts.at.since(self.end) >= PATIENCE
    }

    /// The first bytes of `from`, if it may be a server that greets.
    pub(super) fn greeting(&self, from: Side) -> Option<Vec<u8>> {
        if self.roles_known && from == Side::Client || *self.silent.of(from) {
            return None;
        }
        let bytes = self.streams.halves.of(from).first_bytes(GREETING);
        (!bytes.is_empty()).then_some(bytes)
    }

    /// `from` greets: it is the server.
    pub(super) fn greeted(&mut self, from: Side) {
        self.roles_known = true;
        if from == Side::Server {
            return;
        }
        self.client_low = !self.client_low;
        std::mem::swap(&mut self.start.client, &mut self.start.server);
        self.streams.halves.swap();
        self.isn.swap();
        self.mss.swap();
        self.data_segments.swap();
        self.retransmits.swap();
        self.large.swap();
        self.icmp_pins.swap();
        self.closed_by = self.closed_by.map(Side::other);
        self.rst = self.rst.map(Side::other);
        self.rivals.swap();
    }

    /// `from` does not greet; whether that leaves no server.
    pub(super) const fn not_greeted(&mut self, from: Side) -> bool {
        *self.silent.of_mut(from) = true;
        self.silent.server && (self.roles_known || self.silent.client)
    }

    /// Somebody listens now: tells what was held.
    pub(super) fn heard<C: FlowHandler>(&mut self, consumer: &mut Consumer<'_, C>) {
        self.streams.drain(consumer);
        self.streams.waited(self.end, false, consumer);
    }

    /// Tells all that is held, for want of room.
    pub(super) fn release<C: FlowHandler>(&mut self, consumer: &mut Consumer<'_, C>) {
        self.streams.release(consumer);
    }

    /// Nothing more comes: tells what is left and says what was seen.
    pub(super) fn finish<C: FlowHandler>(
        &mut self,
        evicted: bool,
        consumer: &mut Consumer<'_, C>,
    ) -> FlowFacts {
        self.streams.flush(if evicted { Loss::GivenUp } else { Loss::Unfinished }, consumer);
        let before = self.closed_by.filter(|_| !self.answered && !self.start.midstream);
        if let Some(first) = self.rst.or(before) {
            self.streams.close(first, self.end, consumer);
        }
        let outcome = if self.start.midstream {
            FlowOutcome::Midstream
        } else if self.reset {
            FlowOutcome::Reset
        } else if self.answered {
            FlowOutcome::Established
        } else if self.refused {
            FlowOutcome::Refused
        } else if self.unreachable {
            FlowOutcome::Unreachable
        } else {
            FlowOutcome::Unanswered
        };
        let bytes = |side| {
            let half = self.streams.halves.of(side);
            u64::try_from(half.next - half.start).unwrap_or(0)
        };
        FlowFacts {
            start: self.start,
            end: self.end,
            outcome,
            handshake: self.handshake,
            syns: self.syns,
            bytes: Side::ALL.map(bytes),
            data_segments: Side::ALL.map(|side| *self.data_segments.of(side)),
            retransmits: Side::ALL.map(|side| *self.retransmits.of(side)),
            gaps: self.streams.gaps,
            icmp_errors: self.icmp_errors,
            icmp_kinds: self.icmp_kinds,
            path_mtu: self.path_mtu,
            black_hole: self.large.client.suspected() || self.large.server.suspected(),
            closed_by: self.closed_by,
            reset_by: self.rst.filter(|_| self.answered || self.start.midstream),
            rtt: self.rtt,
            evicted,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        let halves = &self.streams.halves;
        let ended = halves.client.fin.is_some() && halves.server.fin.is_some();
        if self.rst.is_some() || ended || !self.answered && self.closed_by.is_some() {
            Phase::Ending
        } else if self.answered || self.start.midstream {
            Phase::Open
        } else {
            Phase::Connecting
        }
    }

    pub(super) fn cost(&self) -> usize {
        self.streams.cost()
    }

    /// Its SYN was not answered: since when it waits, and how many SYNs it sent.
    pub(super) fn opening(&self) -> Option<(Timestamp, u32)> {
        (self.phase() == Phase::Connecting).then_some((self.start.at, self.syns))
    }

    /// The number of its wait for bytes that were acknowledged, if it waits.
    pub(super) fn waiting(&self) -> Option<u64> {
        self.streams.waiting()
    }
}
