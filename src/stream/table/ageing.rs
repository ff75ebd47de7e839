//! Expiry of idle flows, and eviction when memory is short.

use std::time::Duration;

use super::{AgeClass, FlowTable, SlotState};
use crate::stream::flow::FlowStatus;
use crate::stream::half_stream::HOLD_OVERHEAD;
use crate::stream::reassembly::Consumer;
use crate::stream::{FlowHandler, FlowSink};

/// Time for the last ACK, or another SYN, after both FINs or a RST that refused the connection.
const ENDING: Duration = Duration::from_secs(10);
/// How long later segments of a 4-tuple belong to its ended flow, unless they are SYNs (RFC 9293's 2 MSL is longer).
const ENDED: Duration = Duration::from_secs(60);
/// Idle limit of a flow that is not SMTP.
const IGNORED: Duration = Duration::from_secs(120);
/// Interval of sweeps, and of moves within a list.
pub(super) const STEP: Duration = Duration::from_secs(1);

impl<C: FlowHandler> FlowTable<C> {
    /// Updates memory accounting, wait and list position of a flow.
    pub(super) fn update_slot(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        let (class, cost, waiting) = match &slot.state {
            SlotState::Vacant => return,
            SlotState::Ignored(_) => (AgeClass::Ignored, 0, None),
            SlotState::Ended(_) => (AgeClass::Ended, 0, None),
            SlotState::Candidate(flow) => (AgeClass::Candidate, flow.cost(), None),
            SlotState::Open(flow, _) => {
                (AgeClass::of(flow.phase()), flow.cost(), flow.wait_number())
            }
        };
        if cost != slot.cost {
            self.held = self.held - slot.cost + cost;
            slot.cost = cost;
            if cost == 0 {
                self.holding.remove(id);
            } else {
                self.holding.move_to_back(id, 0);
            }
        }
        if waiting != slot.wait.map(|(number, _)| number) {
            slot.wait = waiting.map(|number| (number, self.now));
            if waiting.is_some() {
                self.waiting.move_to_back(id, 0);
            } else {
                self.waiting.remove(id);
            }
        }
        self.touch(id, class);
    }

    /// Updates a flow's position in the LRU lists.
    pub(super) fn touch(&mut self, id: u32, class: AgeClass) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if slot.class != class || self.now.since(slot.listed_at) >= STEP {
            slot.class = class;
            slot.listed_at = self.now;
            self.by_age.move_to_back(id, class.list());
        }
    }

    pub(super) fn expire_wait(&mut self, id: u32, sink: &mut impl FlowSink<C>) {
        self.waiting.remove(id);
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        slot.wait = None;
        if let SlotState::Open(flow, handler) = &mut slot.state {
            let counters = &mut self.counters;
            let consumer = &mut Consumer { handler: Some(handler.as_mut()), counters };
            if flow.on_wait_expired(consumer) == FlowStatus::Ended {
                return self.retire(id, sink);
            }
        }
        self.update_slot(id);
    }

    /// Ends flows whose idle limit has passed.
    pub(super) fn sweep(&mut self, sink: &mut impl FlowSink<C>) {
        for class in AgeClass::ALL {
            let limit = match class {
                AgeClass::Ignored => IGNORED,
                AgeClass::Ended => ENDED,
                AgeClass::Ending => ENDING,
                AgeClass::Candidate | AgeClass::Connecting => self.limits.half_open,
                AgeClass::Open => self.limits.idle,
            };
            while let Some(id) = self.by_age.front(class.list()) {
                let Some(slot) = self.slots.get_mut(id as usize) else { return };
                if self.now.since(slot.listed_at) < limit {
                    break;
                }
                if self.now.since(slot.last) >= limit {
                    self.end(id, sink);
                } else {
                    slot.listed_at = self.now;
                    self.by_age.move_to_back(id, class.list());
                }
            }
        }
    }

    /// Evicts the least valuable flow; `false` if there is none.
    pub(super) fn evict(&mut self, sink: &mut impl FlowSink<C>) -> bool {
        let front = |class: AgeClass| self.by_age.front(class.list());
        let least =
            [AgeClass::Ignored, AgeClass::Ended, AgeClass::Candidate].into_iter().find_map(front);
        let oldest = || {
            [AgeClass::Ending, AgeClass::Connecting, AgeClass::Open]
                .into_iter()
                .filter_map(front)
                .min_by_key(|&id| self.slot(id).map(|slot| slot.last))
        };
        let Some(id) = least.or_else(oldest) else { return false };
        self.remove(id, true, sink);
        true
    }

    /// Delivers held data, with gaps, until `more` bytes have room.
    pub(super) fn make_room(&mut self, more: usize, sink: &mut impl FlowSink<C>) {
        while self.held > 0 && self.held.saturating_add(more + HOLD_OVERHEAD) > self.limits.held {
            let Some(id) = self.holding.front(0) else { return };
            let Some(slot) = self.slots.get_mut(id as usize) else { return };
            match &mut slot.state {
                SlotState::Open(flow, handler) => {
                    let counters = &mut self.counters;
                    let consumer = &mut Consumer { handler: Some(handler.as_mut()), counters };
                    flow.release(consumer);
                }
                _ => self.ignore(id, sink),
            }
            self.update_slot(id);
        }
    }
}
