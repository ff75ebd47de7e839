//! What the engine wants done.

use std::ops::Range;

use super::Event;
use crate::policy::facts::Lookup;

/// One thing to do. Those that write are carried out in order for each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// These octets of the input just given go to its other side.
    Forward(Range<usize>),
    /// These too, at this place.
    Insert(&'static [u8]),
    ToClient(Vec<u8>),
    ToUpstream(Vec<u8>),
    /// Whatever the client sent and nobody looked at yet is thrown away, also what the kernel still holds (RFC 3207 §4.2:
    /// nothing said in plaintext may count after STARTTLS).
    DiscardClient,
    /// The other side of a finished direction learns that nothing more comes.
    ShutdownUpstream,
    ShutdownClient,
    /// Upstream's connection ends now; what it did not read yet is not for it.
    AbandonUpstream,
    /// The policy wants to know these; none is asked twice. See [`super::Engine::answered`].
    Need(Vec<Lookup>),
    /// The client gets what is due to it, then both connections end.
    Close,
}

/// Actions and events of one call, to be reused for the next.
#[derive(Debug, Default)]
pub struct Output {
    pub actions: Vec<Action>,
    pub events: Vec<Event>,
}

impl Output {
    pub fn clear(&mut self) {
        self.actions.clear();
        self.events.clear();
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Adjoining ranges become one, so that a pipelined group is one write.
    pub(super) fn forward(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        if let Some(Action::Forward(last)) = self.actions.last_mut()
            && last.end == range.start
        {
            last.end = range.end;
        } else {
            self.actions.push(Action::Forward(range));
        }
    }
}
