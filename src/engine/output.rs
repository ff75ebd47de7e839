//! The output of a session: actions for its driver, and events.

use std::ops::Range;

use super::event::Event;
use crate::addr::OriginalDst;
use crate::canary::PassedMessage;
use crate::policy::facts::Lookup;

/// One action. Writes are carried out in order for each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// This range of the current input goes to the other side.
    Forward(Range<usize>),
    /// These bytes too, at this position.
    Insert(&'static [u8]),
    ToClient(Vec<u8>),
    ToUpstream(Vec<u8>),
    /// Discard all unread client bytes, also those in the kernel's receive buffer (RFC 3207 §4.2: nothing sent in plaintext may
    /// count after STARTTLS).
    DiscardClient,
    /// After what was written to the client so far, TLS begins. See [`super::Proxy::on_tls_established`].
    StartTls,
    /// Discard all that upstream has sent and nobody read; then TLS begins, with the gateway as the client. See
    /// [`super::Proxy::on_upstream_discarded`] and [`super::Proxy::on_upstream_tls_established`].
    StartUpstreamTls,
    /// TLS that is only preferred failed: for a while the next sessions use plaintext with this upstream.
    AvoidUpstreamTls,
    /// Shut down the write half.
    ShutdownUpstream,
    ShutdownClient,
    /// The rules decided on a message by its content, and the end that upstream receives next is not to be decided again without
    /// it.
    MessageDecided(OriginalDst),
    /// Close the upstream connection now; discard what is not sent yet.
    AbandonUpstream,
    /// The policy needs these, or the exchange about the client's name; neither requests one twice. See [`super::Proxy::on_answers`].
    Need(Vec<Lookup>),
    /// Flush to the client, then close both connections.
    Close,
}

/// Actions and events of one call; reused for the next.
#[derive(Debug, Default)]
pub struct Output {
    pub actions: Vec<Action>,
    pub events: Vec<Event>,
    /// Messages that may be canaries: whoever has the key knows.
    pub canaries: Vec<PassedMessage>,
}

impl Output {
    pub fn clear(&mut self) {
        self.actions.clear();
        self.events.clear();
        self.canaries.clear();
    }

    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Adjacent ranges become one, so that a pipelined group is one write.
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
