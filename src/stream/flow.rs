//! One flow: handshake, ends, errors and statistics, from its segments.

use std::time::Duration;

use super::black_hole::LargeSegments;
use super::half_stream::{Anchor, WINDOW};
use super::interface_pin::InterfacePin;
use super::limits::{StreamCounters, WatchedPorts};
use super::per_side::PerSide;
use super::reassembly::{Acceptance, Consumer, GapCause, REORDER_TIMEOUT, Reassembly, SegmentData};
use super::syn_candidates::{Match, SynCandidates};
use super::{FlowFacts, FlowHandler, FlowOutcome, FlowStart, SocketEvent};
use crate::addr::{Side, canonical};
use crate::time::Timestamp;
use crate::wire::{IcmpError, IcmpKind, Segment};

/// RFC 6298 §2.
const FIRST_RETRANSMISSION: Duration = Duration::from_secs(1);

/// After this silence a SYN with another sequence number starts a new flow, although the end of the old one was not seen.
const SILENCE: Duration = Duration::from_secs(60);
/// A RST is accepted up to this many bytes beyond the last byte sent.
const RESET_WINDOW: i64 = 1 << 20;
/// Bytes of a server that suffice to recognise a greeting.
const MAX_GREETING: usize = 1024;

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) start: FlowStart,
    /// Whether the lower endpoint of the key is the client.
    pub(super) client_low: bool,
    /// Whether the roles are known; if not, the sender of the first segment is taken for the client.
    roles_known: bool,
    /// The server's port is watched: the flow is reported even without a greeting.
    pub(super) watched: bool,
    /// Sides whose first bytes are not a greeting.
    no_greeting: PerSide<bool>,
    streams: Reassembly,
    isn: PerSide<Option<u32>>,
    /// MSS option of each side: its maximum for received segments.
    mss: PerSide<Option<u16>>,
    syns: u32,
    syn_at: Option<Timestamp>,
    handshake: Option<Duration>,
    /// The client acknowledged the SYN-ACK, whether or not that was captured.
    completed: bool,
    end: Timestamp,
    answered: bool,
    refused: bool,
    /// The RST has the sequence number of one that answers a SYN, 0 (RFC 9293 §3.10.7.1): not that of a connection whose
    /// SYN-ACK the capture lacks.
    refused_at_syn: bool,
    unreachable: bool,
    /// See [`Self::on_port_reused`].
    answer_lost: bool,
    /// Ended by RST before any FIN.
    reset: bool,
    /// Sender of an accepted RST.
    rst: Option<Side>,
    closed_by: Option<Side>,
    data_segments: PerSide<u64>,
    retransmits: PerSide<u64>,
    rtt: Option<Duration>,
    icmp_errors: u64,
    icmp_kinds: [u64; 5],
    /// Interfaces that capture the errors about each side's segments.
    icmp_pins: PerSide<InterfacePin>,
    path_mtu: Option<u32>,
    large: PerSide<LargeSegments>,
    candidates: SynCandidates,
}

/// State of a flow after a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowStatus {
    Active,
    Ended,
    /// The segment exceeds the memory of a flow that is not known to be SMTP.
    OverBudget,
}

/// Selects the idle limit of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlowPhase {
    Connecting,
    Open,
    Ending,
}

impl Flow {
    /// Starts a flow with `segment`; `None` if `segment` cannot start one. `from_low`: its sender is the lower endpoint of the
    /// key.
    pub(super) fn start(
        segment: &Segment<'_>,
        from_low: bool,
        ports: &WatchedPorts,
    ) -> Option<Self> {
        if segment.rst || !segment.syn && segment.len == 0 {
            return None;
        }
        let (from, to) = (ports.contains(segment.src.port()), ports.contains(segment.dst.port()));
        // The sender's role, if known.
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
            no_greeting: PerSide::default(),
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
            refused_at_syn: false,
            unreachable: false,
            answer_lost: false,
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
            candidates: SynCandidates::default(),
        })
    }

    /// Whether the flow is reported from its first segment.
    pub(super) const fn opens_at_once(&self) -> bool {
        self.watched && self.roles_known
    }

    pub(super) const fn side(&self, low: bool) -> Side {
        if low == self.client_low { Side::Client } else { Side::Server }
    }

    /// Initial sequence numbers of client and server.
    pub(super) const fn isns(&self) -> (Option<u32>, Option<u32>) {
        (self.isn.client, self.isn.server)
    }

    /// Whether SYNs in the middle of this flow are undecided.
    pub(super) const fn has_syn_candidates(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// Removes the undecided SYNs in the middle of this flow.
    pub(super) fn take_syn_candidates(&mut self) -> impl Iterator<Item = Segment<'static>> + use<> {
        self.candidates.take()
    }

    /// Decides whether `segment` belongs to this flow. Called for SYNs, and for all segments while there are
    /// [SYN candidates](Self::has_syn_candidates).
    pub(super) fn match_segment(&mut self, from: Side, segment: &Segment<'_>) -> Match {
        let distance = |side, number| {
            let half = self.streams.halves.of(side);
            (half.position(number) - half.next).unsigned_abs()
        };
        if self.candidates.continued_by(from, segment, distance) {
            return Match::NewFlow;
        }
        if segment.syn {
            return self.match_syn(from, segment);
        }
        self.candidates.clear();
        Match::ThisFlow
    }

    fn match_syn(&mut self, from: Side, segment: &Segment<'_>) -> Match {
        let isn = *self.isn.of(from);
        let half = self.streams.halves.of(from);
        let first = segment.seq.wrapping_add(1);
        let fits = match isn {
            Some(isn) => isn == segment.seq,
            // The SYN is late in the capture: segments after it were seen already.
            None => match half.anchor {
                Anchor::Unknown => true,
                Anchor::Guess => (half.end - WINDOW..=half.start).contains(&half.position(first)),
                Anchor::Known => !self.start.midstream && half.position(first) == half.start,
            },
        };
        let other = self.isn.of(from.other()).map(|isn| isn.wrapping_add(1));
        match segment.ack {
            None if fits && (from == Side::Client || !self.answered) => Match::ThisFlow,
            None if self.phase() != FlowPhase::Open || segment.at.since(self.end) >= SILENCE => {
                Match::NewFlow
            }
            None => {
                self.candidates.push(from, segment);
                Match::Undecided
            }
            Some(ack)
                if fits && other.is_none_or(|expected| ack.wrapping_sub(expected) as i32 >= 0) =>
            {
                Match::ThisFlow
            }
            Some(_) => Match::Undecided,
        }
    }

    /// Processes a segment of this flow. Afterwards at most `budget` bytes of memory are held.
    pub(super) fn on_segment<C: FlowHandler>(
        &mut self,
        from: Side,
        segment: &Segment<'_>,
        budget: usize,
        consumer: &mut Consumer<'_, C>,
    ) -> FlowStatus {
        self.end = self.end.max(segment.at);
        if segment.rst {
            return self.on_rst(from, segment, consumer);
        }
        let mut first = segment.seq;
        if segment.syn {
            first = first.wrapping_add(1);
            self.on_syn(from, segment, first);
        }
        let ack_position = self.update_positions(from, segment, first, consumer.counters);
        self.update_handshake(from, segment);
        let acceptance = self.on_data(from, segment, first, ack_position, budget, consumer);
        if acceptance == Acceptance::NoRoom {
            return FlowStatus::OverBudget;
        }
        if segment.fin {
            self.on_fin(from, segment, first, ack_position);
        }
        self.streams.drain(consumer);
        self.update_wait(segment.at, consumer)
    }

    /// Updates the wait for missing bytes, whose expiry may end the flow.
    fn update_wait<C: FlowHandler>(
        &mut self,
        at: Timestamp,
        consumer: &mut Consumer<'_, C>,
    ) -> FlowStatus {
        let expired = self.streams.update_wait(at, self.rst.is_some(), consumer);
        if expired && self.rst.is_some() { FlowStatus::Ended } else { self.status() }
    }

    fn status(&self) -> FlowStatus {
        let done = |side| {
            let half = self.streams.halves.of(side);
            half.closed && half.fin.is_some_and(|fin| half.acked > fin.position)
        };
        if done(Side::Client) && done(Side::Server) {
            FlowStatus::Ended
        } else {
            FlowStatus::Active
        }
    }

    /// The wait for missing bytes timed out.
    pub(super) fn on_wait_expired<C: FlowHandler>(
        &mut self,
        consumer: &mut Consumer<'_, C>,
    ) -> FlowStatus {
        self.streams.expire_wait(consumer);
        if self.rst.is_some() {
            return FlowStatus::Ended;
        }
        self.update_wait(self.end, consumer)
    }

    fn on_syn(&mut self, from: Side, segment: &Segment<'_>, first: u32) {
        if from == Side::Client && segment.ack.is_none() {
            self.syns += 1;
            self.syn_at.get_or_insert(segment.at);
        }
        self.isn.of_mut(from).get_or_insert(segment.seq);
        if segment.mss.is_some() {
            *self.mss.of_mut(from) = segment.mss;
        }
        self.streams.halves.of_mut(from).set_start(first);
        if from == Side::Server && segment.ack.is_some() {
            self.set_answered();
        }
    }

    /// The SYN was answered by the server, not only by an error.
    const fn set_answered(&mut self) {
        if !self.answered {
            self.answered = true;
            // Undoes a RST that answered an earlier SYN.
            self.refused = false;
            self.closed_by = None;
        }
    }

    /// Updates window and positions of both directions. Returns the position that the segment acknowledges, or `i64::MIN`.
    fn update_positions(
        &mut self,
        from: Side,
        segment: &Segment<'_>,
        first: u32,
        counters: &mut StreamCounters,
    ) -> i64 {
        let (half, peer) = self.streams.halves.split(from);
        half.window = segment.window;
        let is_start = self.start.midstream;
        if !half.is_anchored() {
            if is_start { half.set_start(first) } else { half.guess_start(first) }
        }
        let Some(ack) = segment.ack else { return i64::MIN };
        if !peer.is_anchored() {
            if is_start || segment.syn { peer.set_start(ack) } else { peer.guess_start(ack) }
        }
        let position = peer.position(ack);
        if position > peer.next.max(peer.end) + WINDOW {
            counters.out_of_window += 1;
            return i64::MIN;
        }
        if position > peer.acked {
            peer.acked = position;
            self.large.of_mut(from.other()).on_ack(position);
        }
        position
    }

    /// Updates the handshake after a segment without SYN.
    fn update_handshake(&mut self, from: Side, segment: &Segment<'_>) {
        if segment.syn || self.completed || self.start.midstream {
            return;
        }
        match from {
            Side::Client if segment.ack.is_some() => {
                self.set_answered();
                self.completed = true;
                self.handshake = self.syn_at.map(|syn| segment.at.since(syn));
            }
            Side::Server if segment.len > 0 => self.set_answered(),
            _ => {}
        }
    }

    fn on_data<C: FlowHandler>(
        &mut self,
        from: Side,
        segment: &Segment<'_>,
        first: u32,
        ack_position: i64,
        budget: usize,
        consumer: &mut Consumer<'_, C>,
    ) -> Acceptance {
        if segment.len == 0 {
            return Acceptance::Duplicate;
        }
        *self.data_segments.of_mut(from) += 1;
        let (half, peer) = self.streams.halves.split(from);
        let position = half.position(first);
        if position > half.next + WINDOW {
            consumer.counters.out_of_window += 1;
            return Acceptance::OutOfWindow;
        }
        let keep_alive = position + 1 == half.end && half.acked >= half.end;
        let probe = segment.len == 1 && (keep_alive || peer.window == 0);
        let (at_edge, open) = (position <= half.acked, peer.window > 0);
        let data = SegmentData {
            position,
            omitted: segment.omitted,
            captured: segment.payload,
            length: segment.len,
            ack_position,
            at: segment.at,
        };
        let acceptance = self.streams.on_data(from, data, budget, consumer);
        match acceptance {
            Acceptance::Duplicate if !probe => *self.retransmits.of_mut(from) += 1,
            Acceptance::OutOfWindow => consumer.counters.out_of_window += 1,
            _ => {}
        }
        if open && matches!(acceptance, Acceptance::New | Acceptance::Duplicate) {
            let mss = *self.mss.of(from.other());
            self.large.of_mut(from).on_sent(position, segment.len, at_edge, mss);
        }
        acceptance
    }

    fn on_fin(&mut self, from: Side, segment: &Segment<'_>, first: u32, ack_position: i64) {
        let (half, peer) = self.streams.halves.split(from);
        let position = half.position(first) + i64::from(segment.len);
        // The first FIN wins, unless bytes after it were seen before.
        let expected = half.end.max(half.next)..=half.next.saturating_add(WINDOW);
        if half.fin.is_none() && expected.contains(&position) {
            // If two FINs cross, their order depends on the point of capture. The server's counts as the first: it follows
            // the 221 after which the client closes (RFC 5321 §4.1.1.10).
            if self.rst.is_none() && peer.fin.is_some_and(|fin| ack_position <= fin.position) {
                self.closed_by = Some(Side::Server);
            }
            self.closed_by.get_or_insert(from);
            self.streams.on_fin(from, position, ack_position, segment.at);
        }
    }

    fn on_rst<C: FlowHandler>(
        &mut self,
        from: Side,
        segment: &Segment<'_>,
        consumer: &mut Consumer<'_, C>,
    ) -> FlowStatus {
        let (half, peer) = self.streams.halves.split(from);
        if !self.answered && !self.start.midstream {
            let is_ours = match (from, segment.ack) {
                (Side::Client, _) => true,
                (Side::Server, Some(ack)) => {
                    (peer.start..=peer.end + 1).contains(&peer.position(ack))
                }
                (Side::Server, None) => false,
            };
            if is_ours {
                self.refused |= from == Side::Server;
                self.refused_at_syn |= from == Side::Server && segment.seq == 0;
                self.closed_by.get_or_insert(from);
                return if consumer.handler.is_none() {
                    FlowStatus::Ended
                } else {
                    FlowStatus::Active
                };
            }
            consumer.counters.out_of_window += 1;
            return FlowStatus::Active;
        }
        let position = half.position(segment.seq);
        // Its number is what the segment that it answers acknowledged. If that segment crossed the FIN, the number is the
        // FIN's own, although the FIN is acknowledged by now. Linux accepts it (tcp_reset_check, net/ipv4/tcp_input.c).
        let acked = half.fin.map_or(half.acked, |fin| half.acked.min(fin.position));
        let least = acked.max(half.start - 1);
        let most = half.end.max(half.next).max(half.acked) + RESET_WINDOW;
        if half.is_anchored() && !(least..=most).contains(&position) {
            consumer.counters.out_of_window += 1;
            return FlowStatus::Active;
        }
        let ended = half.fin.is_some() || peer.fin.is_some();
        if self.rst.is_none() {
            self.reset |= !ended;
            self.closed_by.get_or_insert(from);
            self.rst = Some(from);
        }
        let is_complete = half.next >= position || !half.is_anchored();
        // The bytes that it acknowledges may be out of order, too.
        if let Some(ack) = segment.ack.filter(|_| peer.is_anchored()) {
            let position = peer.position(ack);
            if position <= peer.end.max(peer.next) + RESET_WINDOW {
                peer.acked = peer.acked.max(position);
            }
        }
        if consumer.handler.is_none() || is_complete && self.streams.is_caught_up() {
            return FlowStatus::Ended;
        }
        self.update_wait(segment.at, consumer)
    }

    /// Whether `error`, about a segment of `from`, is from the interface used for such errors.
    pub(super) fn accepts_icmp(&mut self, from: Side, error: &IcmpError, now: Timestamp) -> bool {
        self.icmp_pins.of_mut(from).accepts(error.interface, now)
    }

    /// Processes an ICMP error about a segment of `from`. Returns whether `from` sent that segment.
    pub(super) fn on_icmp_error(&mut self, from: Side, error: &IcmpError) -> bool {
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
                self.large.of_mut(from).on_packet_too_big();
            }
            IcmpKind::Unreachable
            | IcmpKind::Prohibited
            | IcmpKind::TimeExceeded
            | IcmpKind::ParameterProblem => self.unreachable |= !self.answered,
        }
        true
    }

    /// Processes an event of an endpoint's kernel. Returns whether the flow is over: the connect failed, and not because of an
    /// answer that the capture is about to show.
    pub(super) fn on_socket_event(&mut self, facts: &SocketEvent) -> bool {
        self.rtt = facts.rtt.or(self.rtt);
        facts.closed
            && self.phase() == FlowPhase::Connecting
            && facts.at.since(self.end) >= REORDER_TIMEOUT
    }

    /// The first bytes of `from`, if it may be a server.
    pub(super) fn possible_greeting(&self, from: Side) -> Option<Vec<u8>> {
        if self.roles_known && from == Side::Client || *self.no_greeting.of(from) {
            return None;
        }
        let bytes = self.streams.halves.of(from).first_bytes(MAX_GREETING);
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Makes `from`, which sent a greeting, the server.
    pub(super) fn set_server(&mut self, from: Side) {
        self.roles_known = true;
        if from == Side::Server {
            return;
        }
        self.client_low = !self.client_low;
        std::mem::swap(&mut self.start.client, &mut self.start.server);
        self.streams.halves.swap_sides();
        self.isn.swap_sides();
        self.mss.swap_sides();
        self.data_segments.swap_sides();
        self.retransmits.swap_sides();
        self.large.swap_sides();
        self.icmp_pins.swap_sides();
        self.closed_by = self.closed_by.map(Side::other);
        self.rst = self.rst.map(Side::other);
        self.candidates.swap_sides();
    }

    /// Records that `from` sent no greeting. Returns whether neither side can be a server now.
    pub(super) const fn rule_out_greeting(&mut self, from: Side) -> bool {
        *self.no_greeting.of_mut(from) = true;
        self.no_greeting.server && (self.roles_known || self.no_greeting.client)
    }

    /// The client opens another connection from this port. A kernel that still waits for its SYN-ACK does not let it, so if
    /// that happens before the first retransmission, after a second (RFC 6298 §2), an answer came and was not captured.
    pub(super) fn on_port_reused(&mut self, at: Timestamp) {
        let answered = self.answered || self.refused || self.unreachable;
        self.answer_lost = !answered && at.since(self.end) < FIRST_RETRANSMISSION;
    }

    /// Delivers the held data, once there is a handler.
    pub(super) fn deliver_held<C: FlowHandler>(&mut self, consumer: &mut Consumer<'_, C>) {
        self.streams.drain(consumer);
        self.streams.update_wait(self.end, false, consumer);
    }

    /// Delivers everything held, to free memory.
    pub(super) fn release<C: FlowHandler>(&mut self, consumer: &mut Consumer<'_, C>) {
        self.streams.release(consumer);
    }

    /// Delivers the rest and returns the flow's facts. `lost_until`: the source may have lost packets until then.
    pub(super) fn finish<C: FlowHandler>(
        &mut self,
        evicted: bool,
        lost_until: Option<Timestamp>,
        consumer: &mut Consumer<'_, C>,
    ) -> FlowFacts {
        self.streams
            .flush(if evicted { GapCause::GivenUp } else { GapCause::Unfinished }, consumer);
        let closed_early = self.closed_by.filter(|_| !self.answered && !self.start.midstream);
        if let Some(first) = self.rst.or(closed_early) {
            self.streams.close(first, self.end, consumer);
        }
        let incomplete = self.answer_lost || lost_until.is_some_and(|until| self.start.at <= until);
        let outcome = if self.start.midstream {
            FlowOutcome::Midstream
        } else if self.reset {
            FlowOutcome::Reset
        } else if self.answered {
            FlowOutcome::Established
        } else if self.refused && (self.refused_at_syn || !incomplete) {
            FlowOutcome::Refused
        } else if self.unreachable {
            FlowOutcome::Unreachable
        } else if incomplete {
            FlowOutcome::Unknown
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
            black_hole: !incomplete
                && (self.large.client.is_suspected() || self.large.server.is_suspected()),
            closed_by: self.closed_by,
            reset_by: self.rst.filter(|_| self.answered || self.start.midstream),
            rtt: self.rtt,
            evicted,
            incomplete,
        }
    }

    pub(super) fn phase(&self) -> FlowPhase {
        let halves = &self.streams.halves;
        let ended = halves.client.fin.is_some() && halves.server.fin.is_some();
        if self.rst.is_some() || ended || !self.answered && self.closed_by.is_some() {
            FlowPhase::Ending
        } else if self.answered || self.start.midstream {
            FlowPhase::Open
        } else {
            FlowPhase::Connecting
        }
    }

    pub(super) fn cost(&self) -> usize {
        self.streams.cost()
    }

    /// Time of the first SYN and number of SYNs, while the flow is connecting.
    pub(super) fn pending_since(&self) -> Option<(Timestamp, u32)> {
        (self.phase() == FlowPhase::Connecting).then_some((self.start.at, self.syns))
    }

    /// The number of the current wait for missing bytes, if any.
    pub(super) fn wait_number(&self) -> Option<u64> {
        self.streams.wait_number()
    }
}
