//! Both directions of a flow: who says what next, and when a hole is no longer waited for.

use std::time::Duration;

use super::FlowHandler;
use super::half_stream::{Anchor, Fin, HalfStream, Piece, part, position_of};
use super::limits::StreamCounters;
use super::per_side::PerSide;
use crate::addr::Side;
use crate::time::Timestamp;

/// So long, in packets of the flow or in time, acknowledged bytes are waited for.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
const PATIENCE_PACKETS: u32 = 64;

/// Who hears a flow; nobody yet while it is not known to be SMTP, and then everything is held.
pub(super) struct Consumer<'a, C> {
    pub(super) conversation: Option<&'a mut C>,
    pub(super) counters: &'a mut StreamCounters,
}

/// Bytes as a segment brings them.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub(super) position: i64,
    /// So many of them the source left out before [`Self::captured`].
    pub(super) omitted: u32,
    pub(super) captured: &'a [u8],
    /// On the wire.
    pub(super) length: u32,
    /// What its ACK says: the peer's bytes before this position came first.
    pub(super) need: i64,
    pub(super) at: Timestamp,
}

impl Bytes<'_> {
    const fn to(&self) -> i64 {
        self.position + self.length as i64
    }

    /// Where [`Self::captured`] begins.
    const fn known(&self) -> i64 {
        self.position + self.omitted as i64
    }
}

/// What became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Accepted {
    Some,
    NothingNew,
    /// Behind the FIN.
    Outside,
    /// They would have to be held, and must not.
    NoRoom,
}

#[derive(Debug, Default)]
pub(super) struct Reassembly {
    pub(super) halves: PerSide<HalfStream>,
    /// Gaps told.
    pub(super) gaps: u64,
    wait: Option<Wait>,
    waits: u64,
    arrivals: u64,
    /// Time of what was told last.
    told_at: Timestamp,
}

/// Until the halves reach `goals`.
#[derive(Debug)]
struct Wait {
    since: Timestamp,
    packets: u32,
    goals: PerSide<i64>,
}

impl Reassembly {
    /// Bytes of `from`. What is held must not cost more than `budget` afterwards.
    pub(super) fn data<C: FlowHandler>(
        &mut self,
        from: Side,
        bytes: Bytes<'_>,
        budget: usize,
        consumer: &mut Consumer<'_, C>,
    ) -> Accepted {
        let (half, peer) = self.halves.split(from);
        let mut to = bytes.to();
        if let Some(fin) = half.fin {
            to = to.min(fin.position);
        }
        half.end = half.end.max(to);
        if to <= bytes.position {
            return Accepted::Outside;
        }
        if to <= half.next {
            return Accepted::NothingNew;
        }
        if bytes.position <= half.next
            && !half.holds()
            && half.settled()
            && peer.reached(bytes.need)
            && consumer.conversation.is_some()
        {
            self.tell_part(from, bytes, to, consumer);
            return Accepted::Some;
        }
        self.hold(from, bytes, to, budget, consumer)
    }

    /// Holds what is new before `to`.
    fn hold<C: FlowHandler>(
        &mut self,
        from: Side,
        bytes: Bytes<'_>,
        to: i64,
        budget: usize,
        consumer: &mut Consumer<'_, C>,
    ) -> Accepted {
        let half = self.halves.of(from);
        consumer.counters.conflicts += u64::from(half.conflicts(bytes.known(), bytes.captured));
        let parts = half.unseen(bytes.position, to);
        if parts.is_empty() {
            return Accepted::NothingNew;
        }
        for (first, last) in parts {
            let omitted = (bytes.known().min(last) - first).max(0);
            let captured = part(bytes.captured, bytes.known(), first, last);
            loop {
                let elsewhere = self.halves.of(from.other()).cost();
                let half = self.halves.of_mut(from);
                if elsewhere + half.cost() + half.cost_of(captured.len()) <= budget {
                    self.arrivals += 1;
                    let missing = last - first - omitted - position_of(captured.len());
                    let piece = Piece {
                        omitted: u32::try_from(omitted).unwrap_or(0),
                        bytes: captured.into(),
                        missing: u32::try_from(missing).unwrap_or(0),
                        need: bytes.need,
                        arrived: self.arrivals,
                        at: bytes.at,
                    };
                    half.hold(first, piece);
                    break;
                }
                if consumer.conversation.is_none() {
                    return Accepted::NoRoom;
                }
                half.settle();
                if half.front().is_some_and(|(position, _)| position < first) {
                    self.tell_front(from, consumer);
                } else {
                    self.tell_gap_to(from, first, Loss::GivenUp, consumer);
                    self.tell_part(from, bytes, last, consumer);
                    break;
                }
            }
        }
        Accepted::Some
    }

    /// `from` says no more than what lies before `position`.
    pub(super) fn fin(&mut self, from: Side, position: i64, need: i64, at: Timestamp) {
        self.arrivals += 1;
        let fin = Fin { position, need, arrived: self.arrivals, at };
        self.halves.of_mut(from).fin = Some(fin);
    }

    /// Tells what can be told, in the order in which it came.
    pub(super) fn drain<C: FlowHandler>(&mut self, consumer: &mut Consumer<'_, C>) {
        while self.holds_back() && consumer.conversation.is_some() {
            let ready = (self.ready(Side::Client), self.ready(Side::Server));
            let side = match ready {
                // Neither waits for what could come: the older one is a retransmit that knows the answer already.
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
            if self.halves.of(side).holds() {
                self.tell_front(side, consumer);
            } else {
                self.tell_end(side, consumer);
            }
        }
    }

    /// What stands next on `side`, if there is no hole before it.
    fn ready(&self, side: Side) -> Option<Ready> {
        let half = self.halves.of(side);
        if !half.settled() {
            return None;
        }
        let peer = self.halves.of(side.other());
        match (half.front(), half.fin) {
            (Some((position, piece)), _) => (position <= half.next)
                .then(|| Ready { arrived: piece.arrived, free: peer.reached(piece.need) }),
            (None, Some(fin)) if !half.closed && fin.position <= half.next => {
                Some(Ready { arrived: fin.arrived, free: peer.reached(fin.need) })
            }
            _ => None,
        }
    }

    /// Something is known and was not told.
    fn holds_back(&self) -> bool {
        self.halves.client.waits() || self.halves.server.waits()
    }

    /// Bytes are missing that the peer has.
    pub(super) fn behind(&self) -> bool {
        self.halves.client.behind() || self.halves.server.behind()
    }

    /// All that is known was told.
    pub(super) fn idle(&self) -> bool {
        !self.holds_back() && !self.behind()
    }

    /// The number of the wait that goes on.
    pub(super) fn waiting(&self) -> Option<u64> {
        self.wait.as_ref().map(|_| self.waits)
    }

    /// A packet passed: begins to wait, goes on, or waits no longer. `wanted` waits even though nothing is missing.
    /// Whether patience ended.
    pub(super) fn waited<C: FlowHandler>(
        &mut self,
        at: Timestamp,
        wanted: bool,
        consumer: &mut Consumer<'_, C>,
    ) -> bool {
        if consumer.conversation.is_none() {
            return false;
        }
        if let Some(wait) = &mut self.wait {
            wait.packets += 1;
            let met =
                |half: &HalfStream, goal: i64| half.anchor == Anchor::Unknown || half.reached(goal);
            if wait.packets > PATIENCE_PACKETS {
                self.give_up_waiting(consumer);
                return true;
            }
            let (client, server) = (&self.halves.client, &self.halves.server);
            if !wanted && met(client, wait.goals.client) && met(server, wait.goals.server) {
                self.wait = None;
            }
        }
        if self.wait.is_none() && (wanted || self.behind()) {
            let goal = |half: &HalfStream| half.acked_bytes().max(half.next);
            let goals =
                PerSide { client: goal(&self.halves.client), server: goal(&self.halves.server) };
            self.waits += 1;
            self.wait = Some(Wait { since: at, packets: 0, goals });
        }
        false
    }

    /// What the peer has and we do not becomes a gap.
    pub(super) fn give_up_waiting<C: FlowHandler>(&mut self, consumer: &mut Consumer<'_, C>) {
        let Some(wait) = self.wait.take() else { return };
        self.told_at = self.told_at.max(wait.since);
        for side in Side::ALL {
            self.halves.of_mut(side).settle();
            self.advance(side, *wait.goals.of(side), consumer);
        }
        self.drain(consumer);
    }

    /// Tells all that is held, and the ends: nothing more comes.
    pub(super) fn flush<C: FlowHandler>(&mut self, why: Loss, consumer: &mut Consumer<'_, C>) {
        self.wait = None;
        for side in Side::ALL {
            self.halves.of_mut(side).settle();
        }
        loop {
            self.drain(consumer);
            let arrived = |side: Side| self.halves.of(side).front().map(|(_, p)| (p.arrived, side));
            let oldest = Side::ALL.into_iter().filter_map(arrived).min();
            let Some((_, side)) = oldest else { break };
            let front =
                self.halves.of(side).front().map(|(position, piece)| (position, piece.need));
            let Some((position, need)) = front else { break };
            self.advance(side.other(), need, consumer);
            self.tell_gap_to(side, position, why, consumer);
            self.tell_front(side, consumer);
        }
        for side in Side::ALL {
            self.advance(side, self.halves.of(side).acked_bytes(), consumer);
        }
        for side in Side::ALL {
            let half = self.halves.of(side);
            if let Some(fin) = half.fin.filter(|_| !half.closed) {
                self.tell_gap_to(side, fin.position, why, consumer);
            }
        }
        self.drain(consumer);
    }

    /// Tells both sides' ends.
    pub(super) fn close<C: FlowHandler>(
        &mut self,
        first: Side,
        at: Timestamp,
        consumer: &mut Consumer<'_, C>,
    ) {
        self.told_at = self.told_at.max(at);
        for side in [first, first.other()] {
            self.tell_end(side, consumer);
        }
    }

    /// Makes room: tells all that is held, whatever is missing before it.
    pub(super) fn release<C: FlowHandler>(&mut self, consumer: &mut Consumer<'_, C>) {
        for side in Side::ALL {
            while self.halves.of(side).holds() {
                self.halves.of_mut(side).settle();
                self.tell_front(side, consumer);
            }
        }
        self.drain(consumer);
    }

    /// Tells the bytes of `side` before `goal`, as bytes or as gaps.
    fn advance<C: FlowHandler>(&mut self, side: Side, goal: i64, consumer: &mut Consumer<'_, C>) {
        loop {
            let half = self.halves.of(side);
            if half.reached(goal) || goal <= half.next {
                return;
            }
            let goal = half.fin.map_or(goal, |fin| goal.min(fin.position));
            match half.front() {
                Some((position, _)) if position <= half.next => self.tell_front(side, consumer),
                Some((position, _)) => {
                    self.tell_gap_to(side, position.min(goal), Loss::Unfinished, consumer);
                }
                None => self.tell_gap_to(side, goal, Loss::Unfinished, consumer),
            }
        }
    }

    /// Tells the front piece and, if there is one, the hole before it.
    fn tell_front<C: FlowHandler>(&mut self, side: Side, consumer: &mut Consumer<'_, C>) {
        let half = self.halves.of_mut(side);
        let Some((position, piece)) = half.take_front() else { return };
        let to = position + piece.len();
        self.tell_gap_to(side, position, Loss::GivenUp, consumer);
        if to > self.halves.of(side).next {
            let bytes = Bytes {
                position,
                omitted: piece.omitted,
                captured: &piece.bytes,
                length: u32::try_from(piece.len()).unwrap_or(u32::MAX),
                need: piece.need,
                at: piece.at,
            };
            self.tell_part(side, bytes, to, consumer);
        }
    }

    /// Tells `bytes` from the next one on, before `to`.
    fn tell_part<C: FlowHandler>(
        &mut self,
        from: Side,
        bytes: Bytes<'_>,
        to: i64,
        consumer: &mut Consumer<'_, C>,
    ) {
        self.told_at = self.told_at.max(bytes.at);
        if bytes.omitted > 0 {
            self.tell_omitted_to(from, bytes.known().min(to), consumer);
        }
        let half = self.halves.of_mut(from);
        let new = part(bytes.captured, bytes.known(), half.next, to);
        if !new.is_empty() {
            half.next += position_of(new.len());
            if let Some(conversation) = &mut consumer.conversation {
                conversation.on_data(from, new, self.told_at);
            }
        }
        self.tell_gap_to(from, to, Loss::Cut, consumer);
    }

    /// Tells that the bytes before `to` were left out.
    fn tell_omitted_to<C: FlowHandler>(
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
        if let Some(conversation) = &mut consumer.conversation {
            conversation.on_omitted(from, length, self.told_at);
        }
    }

    /// Tells that the bytes before `to` are missing.
    fn tell_gap_to<C: FlowHandler>(
        &mut self,
        from: Side,
        to: i64,
        why: Loss,
        consumer: &mut Consumer<'_, C>,
    ) {
        let half = self.halves.of_mut(from);
        let length = u64::try_from(to - half.next).unwrap_or(0);
        if length == 0 {
            return;
        }
        let had = u64::try_from(half.acked_bytes().min(to).saturating_sub(half.next)).unwrap_or(0);
        half.next = to;
        self.gaps += 1;
        let counters = &mut *consumer.counters;
        match why {
            Loss::Cut => counters.bytes_cut += length,
            Loss::GivenUp => counters.bytes_given_up += length - had,
            Loss::Unfinished => counters.bytes_unfinished += length - had,
        }
        if why != Loss::Cut {
            counters.bytes_not_captured += had;
        }
        if let Some(conversation) = &mut consumer.conversation {
            conversation.on_gap(from, length, self.told_at);
        }
    }

    fn tell_end<C: FlowHandler>(&mut self, side: Side, consumer: &mut Consumer<'_, C>) {
        let half = self.halves.of_mut(side);
        if std::mem::replace(&mut half.closed, true) {
            return;
        }
        if let Some(fin) = half.fin {
            self.told_at = self.told_at.max(fin.at);
        }
        if let Some(conversation) = &mut consumer.conversation {
            conversation.on_close(side, self.told_at);
        }
    }

    pub(super) fn cost(&self) -> usize {
        self.halves.client.cost() + self.halves.server.cost()
    }
}

/// What stands next on a side: when it came, and whether what it answers was told.
struct Ready {
    arrived: u64,
    free: bool,
}

/// Why bytes are told as a gap, as far as the peer did not acknowledge them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// By the snap length.
    Cut,
    /// For want of room.
    GivenUp,
    /// The flow ended before they came.
    Unfinished,
}
