//! The flows' ages: what is silent for too long goes, what is missed least goes when room is short.

use std::time::Duration;

use super::{Class, FlowTable, Stage};
use crate::stream::flow::FlowStatus;
use crate::stream::half_stream::OVERHEAD;
use crate::stream::reassembly::Consumer;
use crate::stream::{FlowHandler, FlowSink};

/// After both FINs, or a RST that refused, the last ACK or another SYN may come.
const ENDING: Duration = Duration::from_secs(10);
/// What comes on a 4-tuple so long after its flow was over belongs to it, unless it is a SYN (RFC 9293's 2 MSL is longer).
const OVER: Duration = Duration::from_secs(60);
/// A flow that is no SMTP and silent for so long is forgotten.
const IGNORED: Duration = Duration::from_secs(120);
/// Lists are looked at, and flows move in them, so often.
pub(super) const STEP: Duration = Duration::from_secs(1);

impl<C: FlowHandler> FlowTable<C> {
    /// Brings what the table knows of the flow up to date with it.
    pub(super) fn settle(&mut self, id: u32) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        let (class, cost, waiting) = match &slot.stage {
            Stage::Vacant => return,
            Stage::Ignored(_) => (Class::Ignored, 0, None),
            Stage::Over(_) => (Class::Over, 0, None),
            Stage::Candidate(flow) => (Class::Candidate, flow.cost(), None),
            Stage::Told(flow, _) => (Class::of(flow.phase()), flow.cost(), flow.waiting()),
        };
        if cost != slot.cost {
            self.held = self.held - slot.cost + cost;
            slot.cost = cost;
            if cost == 0 {
                self.holding.remove(id);
            } else {
                self.holding.place(id, 0);
            }
        }
        if waiting != slot.waits.map(|(number, _)| number) {
            slot.waits = waiting.map(|number| (number, self.now));
            if waiting.is_some() {
                self.waiting.place(id, 0);
            } else {
                self.waiting.remove(id);
            }
        }
        self.keep(id, class);
    }

    /// Keeps the flow's place in the lists by age.
    pub(super) fn keep(&mut self, id: u32, class: Class) {
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        if slot.class != class || self.now.since(slot.placed) >= STEP {
            slot.class = class;
            slot.placed = self.now;
            self.by_age.place(id, class.list());
        }
    }

    pub(super) fn patience_ended(&mut self, id: u32, sink: &mut impl FlowSink<C>) {
        self.waiting.remove(id);
        let Some(slot) = self.slots.get_mut(id as usize) else { return };
        slot.waits = None;
        if let Stage::Told(flow, conversation) = &mut slot.stage {
            let counters = &mut self.counters;
            let consumer = &mut Consumer { conversation: Some(conversation.as_mut()), counters };
            if flow.patience_ended(consumer) == FlowStatus::Over {
                return self.over(id, sink);
            }
        }
        self.settle(id);
    }

    /// Ends what has been silent for too long.
    pub(super) fn sweep(&mut self, sink: &mut impl FlowSink<C>) {
        for class in Class::ALL {
            let limit = match class {
                Class::Ignored => IGNORED,
                Class::Over => OVER,
                Class::Ending => ENDING,
                Class::Candidate | Class::Connecting => self.limits.half_open,
                Class::Open => self.limits.idle,
            };
            while let Some(id) = self.by_age.front(class.list()) {
                let Some(slot) = self.slots.get_mut(id as usize) else { return };
                if self.now.since(slot.placed) < limit {
                    break;
                }
                if self.now.since(slot.last) >= limit {
                    self.end(id, sink);
                } else {
                    slot.placed = self.now;
                    self.by_age.place(id, class.list());
                }
            }
        }
    }

    /// Gives up the flow that is missed least; `false` if there is none.
    pub(super) fn evict(&mut self, sink: &mut impl FlowSink<C>) -> bool {
        let front = |class: Class| self.by_age.front(class.list());
        let least = [Class::Ignored, Class::Over, Class::Candidate].into_iter().find_map(front);
        let oldest = || {
            [Class::Ending, Class::Connecting, Class::Open]
                .into_iter()
                .filter_map(front)
                .min_by_key(|&id| self.slot(id).map(|slot| slot.last))
        };
        let Some(id) = least.or_else(oldest) else { return false };
        self.remove(id, true, sink);
        true
    }

    /// Lets flows that hold bytes go on without those that they wait for, until `more` have room.
    pub(super) fn make_room(&mut self, more: usize, sink: &mut impl FlowSink<C>) {
        while self.held > 0 && self.held.saturating_add(more + OVERHEAD) > self.limits.held {
            let Some(id) = self.holding.front(0) else { return };
            let Some(slot) = self.slots.get_mut(id as usize) else { return };
            match &mut slot.stage {
                Stage::Told(flow, conversation) => {
                    let counters = &mut self.counters;
                    let consumer =
                        &mut Consumer { conversation: Some(conversation.as_mut()), counters };
                    flow.release(consumer);
                }
                _ => self.refuse(id, sink),
            }
            self.settle(id);
        }
    }
}
