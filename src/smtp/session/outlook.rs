//! What the client's next command will belong to, as far as the replies so far and the pending commands show.

use std::sync::Arc;

use super::{Pending, Session};
use crate::smtp::{Command, ExpectedReply, Verb};

impl Session {
    /// The server has a message, or is receiving it, and has not replied to its end.
    pub fn message_pending(&self) -> bool {
        let message =
            |pending: &Pending| matches!(pending, Pending::Server(ExpectedReply::Message { .. }));
        self.pending.iter().any(message)
    }

    /// Number and sender of the transaction that a RCPT sent now belongs to; a MAIL without a reply counts as accepted.
    /// `None` outside a transaction. Not to be used while [`Session::transaction_is_uncertain`].
    pub fn next_transaction(&self) -> Option<(u64, &Arc<str>)> {
        self.next_mail().map(|(number, sender, _)| (number, sender))
    }

    /// The same, and whether its envelope may have UTF-8.
    fn next_mail(&self) -> Option<(u64, &Arc<str>, bool)> {
        let current = self.state.current();
        let mut next = current.map(|current| (current.number, &current.sender, current.utf8));
        let mut number = self.state.transactions_total();
        let mut open = self.state.in_transaction();
        for pending in &self.pending {
            match pending {
                Pending::Server(ExpectedReply::Mail { sender, utf8 }) => {
                    (next, open) = (Some((number, sender, *utf8)), true);
                    number += 1;
                }
                Pending::Local(_, ExpectedReply::Mail { sender, utf8 }) => {
                    if !open {
                        next = Some((number, sender, *utf8));
                    }
                    number += 1;
                }
                Pending::Server(ExpectedReply::Message { .. }) => (next, open) = (None, false),
                _ => {}
            }
        }
        next
    }

    /// The command may have UTF-8: the server offered SMTPUTF8, and this MAIL, or that of the recipient, asks for it
    /// (RFC 6531 §3.4). Not to be used while [`Session::transaction_is_uncertain`].
    pub fn allows_utf8(&self, command: &Command<'_>) -> bool {
        let asks = match command.verb {
            Verb::Mail => command.envelope().is_ok_and(|envelope| envelope.asks_for_utf8()),
            Verb::Rcpt => self.next_mail().is_some_and(|(_, _, utf8)| utf8),
            _ => false,
        };
        asks && self.state.extensions().smtputf8
    }

    /// A pending reply decides whether [`Session::allows_utf8`], and the command has UTF-8.
    pub fn utf8_is_uncertain(&self, command: &Command<'_>) -> bool {
        matches!(command.verb, Verb::Mail | Verb::Rcpt)
            && !command.argument.is_ascii()
            && self.transaction_is_uncertain()
    }

    /// A pending reply decides which HELO and which transaction the client's next command belongs to: the one to RSET, HELO,
    /// EHLO or `BDAT … LAST`, or to a MAIL inside a transaction; or to a MAIL before one that the gateway rejects.
    pub fn transaction_is_uncertain(&self) -> bool {
        let mut open = self.state.in_transaction();
        let mut unconfirmed = false;
        self.pending.iter().any(|pending| match pending {
            Pending::Local(_, ExpectedReply::Mail { .. }) => unconfirmed,
            Pending::Local(..) => false,
            Pending::Server(expected) => match expected {
                ExpectedReply::Rset
                | ExpectedReply::Helo(_)
                | ExpectedReply::Ehlo(_)
                | ExpectedReply::Message { chunking: true, .. } => true,
                ExpectedReply::Mail { .. } => {
                    unconfirmed |= !open;
                    std::mem::replace(&mut open, true)
                }
                ExpectedReply::Message { .. } => {
                    (open, unconfirmed) = (false, false);
                    false
                }
                _ => false,
            },
        })
    }

    /// A pending reply, to another command than BDAT, decides which transaction the next chunk belongs to.
    pub fn chunks_are_uncertain(&self) -> bool {
        let is_chunk =
            |pending: &Pending| matches!(pending, Pending::Server(ExpectedReply::Chunk { .. }));
        !self.pending.iter().all(is_chunk)
    }

    /// Whether DATA would reach the server without a recipient depends on a pending reply.
    pub fn recipients_are_uncertain(&self) -> bool {
        let rejection =
            |pending: &Pending| matches!(pending, Pending::Local(_, ExpectedReply::Rcpt { .. }));
        self.has_pending()
            && (self.state.has_local_rejection() || self.pending.iter().any(rejection))
    }
}
