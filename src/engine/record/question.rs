//! The questions that a session puts to the policy: what the rules decide on, as it stood when they were asked.

use std::sync::Arc;

use crate::policy::ClientArrival;
use crate::policy::facts::ReceivedMessage;
use crate::policy::rules::{PolicyStage, Subject};
use crate::smtp::SessionState;

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
        size_of::<Self>() + self.recipient.as_ref().map_or(0, |recipient| recipient.len())
    }
}
