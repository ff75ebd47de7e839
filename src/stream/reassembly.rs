//! Reassembly of both directions of a flow: delivery order between the sides, and when a gap is given up.

use std::time::Duration;

use super::FlowHandler;
use super::half_stream::{Anchor, Fin, HalfStream, HeldPiece, position_of, slice_at};
use super::limits::StreamCounters;
use super::per_side::PerSide;
use crate::addr::Side;
use crate::time::Timestamp;

/// How long to wait for acknowledged bytes that the capture has not shown, in time and in packets of the flow.
pub(super) const REORDER_TIMEOUT: Duration = Duration::from_millis(100);
const REORDER_PACKETS: u32 = 64;

/// Receiver of a flow's data.
pub(super) struct Consumer<'a, C> {
    /// `None` while the flow is not known to be SMTP: all data is held.
    pub(super) handler: Option<&'a mut C>,
    pub(super) counters: &'a mut StreamCounters,
}

/// The payload of a segment.
#[derive(Clone, Copy)]
pub(super) struct SegmentData<'a> {
    pub(super) position: i64,
    /// Bytes before [`Self::captured`] that the source skipped on purpose.
    pub(super) omitted: u32,
    pub(super) captured: &'a [u8],
    /// Length on the wire.
    pub(super) length: u32,
    /// Position acknowledged by the segment: the peer's bytes before it precede these.
    pub(super) ack_position: i64,
    pub(super) at: Timestamp,
}

impl SegmentData<'_> {
    const fn end(&self) -> i64 {
        self.position + self.length as i64
    }

    /// Position of the first byte of [`Self::captured`].
    const fn captured_position(&self) -> i64 {
        self.position + self.omitted as i64
    }
}

/// Result of accepting a segment's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acceptance {
    New,
    Duplicate,
    /// Outside the window, or after the FIN.
    OutOfWindow,
    /// It would have to be held and exceeds the budget.
    NoRoom,
}

#[derive(Debug, Default)]
pub(super) struct Reassembly {
    pub(super) halves: PerSide<HalfStream>,
    /// Gaps delivered.
    pub(super) gaps: u64,
    wait: Option<Wait>,
    waits: u64,
    arrivals: u64,
    /// Time of the last delivery.
    delivered_at: Timestamp,
}

/// Waits until the sides have delivered up to `goals`.
#[derive(Debug)]
struct Wait {
    since: Timestamp,
    packets: u32,
    goals: PerSide<i64>,
}

impl Reassembly {
    /// Accepts payload of `from`. Afterwards at most `budget` bytes of memory are held.
    pub(super) fn on_data<C: FlowHandler>(
        &mut self,
        from: Side,
        data: SegmentData<'_>,
        budget: usize,
        consumer: &mut Consumer<'_, C>,
    ) -> Acceptance {
        let (half, peer) = self.halves.split(from);
        let mut to = data.end();
        if let Some(fin) = half.fin {
            to = to.min(fin.position);
        }
        half.end = half.end.max(to);
        if to <= data.position {
            return Acceptance::OutOfWindow;
        }
        if to <= half.next {
            return Acceptance::Duplicate;
        }
        if data.position <= half.next
            && !half.has_held()
            && half.is_anchored()
            && peer.has_delivered(data.ack_position)
            && consumer.handler.is_some()
        {
            self.deliver(from, data, to, consumer);
            return Acceptance::New;
        }
        self.hold(from, data, to, budget, consumer)
    }

    /// Holds the new bytes before `to`.
    fn hold<C: FlowHandler>(
        &mut self,
        from: Side,
        data: SegmentData<'_>,
        to: i64,
        budget: usize,
        consumer: &mut Consumer<'_, C>,
    ) -> Acceptance {
        let half = self.halves.of(from);
        consumer.counters.conflicts +=
            u64::from(half.conflicts(data.captured_position(), data.captured));
        let parts = half.missing_ranges(data.position, to);
        if parts.is_empty() {
            return Acceptance::Duplicate;
        }
        for (first, last) in parts {
            let omitted = (data.captured_position().min(last) - first).max(0);
            let captured = slice_at(data.captured, data.captured_position(), first, last);
            loop {
                let peer_cost = self.halves.of(from.other()).cost();
                let half = self.halves.of_mut(from);
                if peer_cost + half.cost() + half.cost_to_hold(captured.len()) <= budget {
                    self.arrivals += 1;
                    let missing = last - first - omitted - position_of(captured.len());
                    let piece = HeldPiece {
                        omitted: u32::try_from(omitted).unwrap_or(0),
                        bytes: captured.into(),
                        missing: u32::try_from(missing).unwrap_or(0),
                        ack_position: data.ack_position,
                        arrived: self.arrivals,
                        at: data.at,
                    };
                    half.hold(first, piece);
                    break;
                }
                if consumer.handler.is_none() {
                    return Acceptance::NoRoom;
                }
                half.fix_start();
                if half.front().is_some_and(|(position, _)| position < first) {
                    self.deliver_front(from, consumer);
                } else {
                    self.deliver_gap(from, first, GapCause::GivenUp, consumer);
                    self.deliver(from, data, last, consumer);
                    break;
                }
            }
        }
        Acceptance::New
    }

    /// Records a FIN of `from` at `position`.
    pub(super) fn on_fin(&mut self, from: Side, position: i64, ack_position: i64, at: Timestamp) {
        self.arrivals += 1;
        let fin = Fin { position, ack_position, arrived: self.arrivals, at };
        self.halves.of_mut(from).fin = Some(fin);
    }

    /// Delivers everything that is ready, in the order of arrival.
    pub(super) fn drain<C: FlowHandler>(&mut self, consumer: &mut Consumer<'_, C>) {
        while self.has_undelivered() && consumer.handler.is_some() {
            let ready = (self.ready(Side::Client), self.ready(Side::Server));
            let side = match ready {
                // Each acknowledges the other: the older one is a retransmit that acknowledges its own answer.
                (Some(client), Some(server)) => match (client.free, server.free) {
                    (true, false) => Side::Client,
                    (false, true) => Side::Server,
                    _ if client.arrived <= server.arrived => Side::Client,
                    _ => Side::Server,
                },
                (Some(client), None) if client.free => Side::Client,
                (None, Some(server)) if server.free => Side::Server,
                _ => return,
            };
            if self.halves.of(side).has_held() {
                self.deliver_front(side, consumer);
            } else {
                self.deliver_close(side, consumer);
            }
        }
    }

    /// The next item of `side`, if there is no gap before it.
    fn ready(&self, side: Side) -> Option<Ready> {
        let half = self.halves.of(side);
        if !half.is_anchored() {
            return None;
        }
        let peer = self.halves.of(side.other());
        match (half.front(), half.fin) {
            (Some((position, piece)), _) => (position <= half.next).then(|| Ready {
                arrived: piece.arrived,
                free: peer.has_delivered(piece.ack_position),
            }),
            (None, Some(fin)) if !half.closed && fin.position <= half.next => {
                Some(Ready { arrived: fin.arrived, free: peer.has_delivered(fin.ack_position) })
            }
            _ => None,
        }
    }

    /// Whether something is known and not delivered.
    fn has_undelivered(&self) -> bool {
        self.halves.client.has_undelivered() || self.halves.server.has_undelivered()
    }

    /// Whether acknowledged bytes are not delivered.
    pub(super) fn has_acked_gap(&self) -> bool {
        self.halves.client.has_acked_gap() || self.halves.server.has_acked_gap()
    }

    /// Whether everything known is delivered.
    pub(super) fn is_caught_up(&self) -> bool {
        !self.has_undelivered() && !self.has_acked_gap()
    }

    /// The number of the current wait, if any.
    pub(super) fn wait_number(&self) -> Option<u64> {
        self.wait.as_ref().map(|_| self.waits)
    }

    /// Starts, continues or ends the wait after a packet. `force` waits even if nothing is missing. Returns whether the wait
    /// expired.
    pub(super) fn update_wait<C: FlowHandler>(
        &mut self,
        at: Timestamp,
        force: bool,
        consumer: &mut Consumer<'_, C>,
    ) -> bool {
        if consumer.handler.is_none() {
            return false;
        }
        if let Some(wait) = &mut self.wait {
            wait.packets += 1;
            let reached = |half: &HalfStream, goal: i64| {
                half.anchor == Anchor::Unknown || half.has_delivered(goal)
            };
            if wait.packets > REORDER_PACKETS {
                self.expire_wait(consumer);
                return true;
            }
            let (client, server) = (&self.halves.client, &self.halves.server);
            if !force && reached(client, wait.goals.client) && reached(server, wait.goals.server) {
                self.wait = None;
            }
        }
        if self.wait.is_none() && (force || self.has_acked_gap()) {
            let goal = |half: &HalfStream| half.acked_bytes().max(half.next);
            let goals =
                PerSide { client: goal(&self.halves.client), server: goal(&self.halves.server) };
            self.waits += 1;
            self.wait = Some(Wait { since: at, packets: 0, goals });
        }
        false
    }

    /// Delivers acknowledged bytes that did not arrive as gaps.
    pub(super) fn expire_wait<C: FlowHandler>(&mut self, consumer: &mut Consumer<'_, C>) {
        let Some(wait) = self.wait.take() else { return };
        self.delivered_at = self.delivered_at.max(wait.since);
        for side in Side::ALL {
            self.halves.of_mut(side).fix_start();
            self.deliver_to(side, *wait.goals.of(side), consumer);
        }
        self.drain(consumer);
    }

    /// Delivers everything held, and the ends, when the flow is over.
    pub(super) fn flush<C: FlowHandler>(
        &mut self,
        cause: GapCause,
        consumer: &mut Consumer<'_, C>,
    ) {
        self.wait = None;
        for side in Side::ALL {
            self.halves.of_mut(side).fix_start();
        }
        loop {
            self.drain(consumer);
            let arrived = |side: Side| self.halves.of(side).front().map(|(_, p)| (p.arrived, side));
            let oldest = Side::ALL.into_iter().filter_map(arrived).min();
            let Some((_, side)) = oldest else { break };
            let front = self
                .halves
                .of(side)
                .front()
                .map(|(position, piece)| (position, piece.ack_position));
            let Some((position, ack_position)) = front else { break };
            self.deliver_to(side.other(), ack_position, consumer);
            self.deliver_gap(side, position, cause, consumer);
            self.deliver_front(side, consumer);
        }
        for side in Side::ALL {
            self.deliver_to(side, self.halves.of(side).acked_bytes(), consumer);
        }
        for side in Side::ALL {
            let half = self.halves.of(side);
            if let Some(fin) = half.fin.filter(|_| !half.closed) {
                self.deliver_gap(side, fin.position, cause, consumer);
            }
        }
        self.drain(consumer);
    }

    /// Delivers the end of both sides.
    pub(super) fn close<C: FlowHandler>(
        &mut self,
        first: Side,
        at: Timestamp,
        consumer: &mut Consumer<'_, C>,
    ) {
        self.delivered_at = self.delivered_at.max(at);
        for side in [first, first.other()] {
            self.deliver_close(side, consumer);
        }
    }

    /// Frees memory: delivers everything held, with gaps for missing bytes.
    pub(super) fn release<C: FlowHandler>(&mut self, consumer: &mut Consumer<'_, C>) {
        for side in Side::ALL {
            while self.halves.of(side).has_held() {
                self.halves.of_mut(side).fix_start();
                self.deliver_front(side, consumer);
            }
        }
        self.drain(consumer);
    }

    /// Delivers the bytes of `side` before `goal`, as data or as gaps.
    fn deliver_to<C: FlowHandler>(
        &mut self,
        side: Side,
        goal: i64,
        consumer: &mut Consumer<'_, C>,
    ) {
        loop {
            let half = self.halves.of(side);
            if half.has_delivered(goal) || goal <= half.next {
                return;
            }
            let goal = half.fin.map_or(goal, |fin| goal.min(fin.position));
            match half.front() {
                Some((position, _)) if position <= half.next => self.deliver_front(side, consumer),
                Some((position, _)) => {
                    self.deliver_gap(side, position.min(goal), GapCause::Unfinished, consumer);
                }
                None => self.deliver_gap(side, goal, GapCause::Unfinished, consumer),
            }
        }
    }

    /// Delivers the front piece, and the gap before it if there is one.
    fn deliver_front<C: FlowHandler>(&mut self, side: Side, consumer: &mut Consumer<'_, C>) {
        let half = self.halves.of_mut(side);
        let Some((position, piece)) = half.pop_front() else { return };
        let to = position + piece.len();
        self.deliver_gap(side, position, GapCause::GivenUp, consumer);
        if to > self.halves.of(side).next {
            let data = SegmentData {
                position,
                omitted: piece.omitted,
                captured: &piece.bytes,
                length: u32::try_from(piece.len()).unwrap_or(u32::MAX),
                ack_position: piece.ack_position,
                at: piece.at,
            };
            self.deliver(side, data, to, consumer);
        }
    }

    /// Delivers the new part of `data` before `to`.
    fn deliver<C: FlowHandler>(
        &mut self,
        from: Side,
        data: SegmentData<'_>,
        to: i64,
        consumer: &mut Consumer<'_, C>,
    ) {
        self.delivered_at = self.delivered_at.max(data.at);
        if data.omitted > 0 {
            self.deliver_omitted(from, data.captured_position().min(to), consumer);
        }
        let half = self.halves.of_mut(from);
        let new = slice_at(data.captured, data.captured_position(), half.next, to);
        if !new.is_empty() {
            half.next += position_of(new.len());
            if let Some(handler) = &mut consumer.handler {
                handler.on_data(from, new, self.delivered_at);
            }
        }
        self.deliver_gap(from, to, GapCause::Truncated, consumer);
    }

    /// Delivers the bytes before `to` as omitted.
    fn deliver_omitted<C: FlowHandler>(
        &mut self,
        from: Side,
        to: i64,
        consumer: &mut Consumer<'_, C>,
    ) {
        let half = self.halves.of_mut(from);
        let length = u64::try_from(to - half.next).unwrap_or(0);
        if length == 0 {
            return;
        }
        half.next = to;
        consumer.counters.bytes_omitted += length;
        if let Some(handler) = &mut consumer.handler {
            handler.on_omitted(from, length, self.delivered_at);
        }
    }

    /// Delivers the bytes before `to` as a gap.
    fn deliver_gap<C: FlowHandler>(
        &mut self,
        from: Side,
        to: i64,
        cause: GapCause,
        consumer: &mut Consumer<'_, C>,
    ) {
        let half = self.halves.of_mut(from);
        let length = u64::try_from(to - half.next).unwrap_or(0);
        if length == 0 {
            return;
        }
        let acked =
            u64::try_from(half.acked_bytes().min(to).saturating_sub(half.next)).unwrap_or(0);
        half.next = to;
        self.gaps += 1;
        let counters = &mut *consumer.counters;
        match cause {
            GapCause::Truncated => counters.bytes_truncated += length,
            GapCause::GivenUp => counters.bytes_given_up += length - acked,
            GapCause::Unfinished => counters.bytes_unfinished += length - acked,
        }
        if cause != GapCause::Truncated {
            counters.bytes_not_captured += acked;
        }
        if let Some(handler) = &mut consumer.handler {
            handler.on_gap(from, length, self.delivered_at);
        }
    }

    fn deliver_close<C: FlowHandler>(&mut self, side: Side, consumer: &mut Consumer<'_, C>) {
        let half = self.halves.of_mut(side);
        if std::mem::replace(&mut half.closed, true) {
            return;
        }
        if let Some(fin) = half.fin {
            self.delivered_at = self.delivered_at.max(fin.at);
        }
        if let Some(handler) = &mut consumer.handler {
            handler.on_close(side, self.delivered_at);
        }
    }

    pub(super) fn cost(&self) -> usize {
        self.halves.client.cost() + self.halves.server.cost()
    }
}

/// The next item of a side.
struct Ready {
    arrived: u64,
    /// The peer's bytes that it acknowledges are delivered.
    free: bool,
}

/// Cause of a gap, for the bytes that the peer did not acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GapCause {
    /// Truncated by the snap length.
    Truncated,
    /// Given up to stay within the memory limits.
    GivenUp,
    /// Missing when the flow ended.
    Unfinished,
}
