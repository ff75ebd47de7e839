//! The questions that a session puts to the policy: what the rules decide on, as it stood when they were asked.

use std::sync::Arc;

use crate::policy::ClientArrival;
use crate::policy::facts::ReceivedMessage;
use crate::policy::rules::{PolicyStage, Subject};
use crate::smtp::{Recipient, SessionState};

/// Bytes of a signature, roughly.
const SIGNATURE: usize = 1024;

/// One question. The proxy notes it with the decision; the observer of the same dialogue notes an equal one from the
/// replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyQuestion {
    pub stage: PolicyStage,
    pub helo: Option<Arc<str>>,
    /// From [`PolicyStage::Mail`] on.
    pub sender: Option<Arc<str>>,
    pub recipient: Option<Arc<str>>,
    /// At [`PolicyStage::Data`]; `None` if the content was not seen.
    pub message: Option<Arc<ReceivedMessage>>,
    pub authenticated: bool,
    pub tls: bool,
}

impl PolicyQuestion {
    /// On the client's address alone, in place of the greeting.
    pub const fn at_connect() -> Self {
        Self {
            stage: PolicyStage::Connect,
            helo: None,
            sender: None,
            recipient: None,
            message: None,
            authenticated: false,
            tls: false,
        }
    }

    /// On what the replies have confirmed, and at RCPT on the transaction's sender and the recipient.
    pub fn new(
        stage: PolicyStage,
        state: &SessionState,
        sender: Option<&Arc<str>>,
        recipient: Option<&Arc<str>>,
    ) -> Self {
        Self {
            stage,
            helo: state.helo().map(|helo| Arc::clone(&helo.name)),
            sender: sender.cloned(),
            recipient: recipient.cloned(),
            message: None,
            authenticated: state.is_authenticated(),
            tls: state.tls().is_encrypted(),
        }
    }

    /// On the message of the current transaction, without its content, for the first recipient that was accepted; the rules
    /// at the end are the same for all. `None` without one.
    pub fn at_end_of_data(state: &SessionState) -> Option<Self> {
        let current = state.current()?;
        let accepted = |to: &&Recipient| to.code.is_none_or(|code| code / 100 == 2);
        let recipient = current.recipients.iter().find(accepted).map(|to| &to.path);
        let is_some = recipient.is_some() || current.recipients_total > 0;
        let sender = Some(&current.sender);
        is_some.then(|| Self::new(PolicyStage::Data, state, sender, recipient))
    }

    /// The question on a session that arrived as `arrival`, as the rules take it.
    pub fn subject<'a>(&'a self, arrival: ClientArrival<'a>) -> Subject<'a> {
        let ClientArrival { client, listener, destination } = arrival;
        Subject {
            client,
            destination,
            listener,
            helo: self.helo.as_deref(),
            sender: self.sender.as_deref(),
            recipient: self.recipient.as_deref(),
            message: self.message.as_deref(),
            tls: self.tls,
            authenticated: self.authenticated,
        }
    }

    /// Bytes that it takes, roughly; helo and sender are shared.
    pub(in crate::engine) fn cost(&self) -> usize {
        let signatures = |message: &Arc<ReceivedMessage>| {
            message.content.as_ref().map_or(0, |content| content.signatures.len())
        };
        size_of::<Self>()
            + self.recipient.as_ref().map_or(0, |recipient| recipient.len())
            + self.message.as_ref().map_or(0, |message| (1 + signatures(message)) * SIGNATURE)
    }
}
