//! Whose mail upstream is taking, as far as its replies tell: MAIL, RSET and EHLO are asked, and upstream may refuse them.
//!
//! A client that says MAIL twice, or `RSET now`, must not have its recipients judged by a sender that upstream does not go
//! by. So a sender counts until upstream said that its transaction is over.

use crate::smtp::ExpectedReply;

#[derive(Debug, Default)]
pub(super) struct Envelope {
    /// Of the last MAIL that upstream did not refuse.
    sender: Option<String>,
    /// Of the transaction that goes on if upstream refuses the last MAIL.
    before: Option<String>,
    /// The last MAIL, while upstream has not answered it.
    unanswered: Option<usize>,
    /// Upstream may be in a transaction.
    open: bool,
}

impl Envelope {
    pub(super) fn sender(&self) -> Option<&str> {
        self.sender.as_deref()
    }

    /// Whose the next recipient is depends on a reply that is not there yet.
    pub(super) const fn is_in_doubt(&self) -> bool {
        self.before.is_some()
    }

    /// MAIL was forwarded; never while in doubt.
    pub(super) fn mail(&mut self, path: String, transaction: usize) {
        let before = self.sender.replace(path);
        self.before = before.filter(|_| self.open);
        self.unanswered = Some(transaction);
        self.open = true;
    }

    /// Upstream answered `asked`. Returns whether that ended a doubt in favour of the last MAIL.
    pub(super) fn replied(&mut self, asked: ExpectedReply, positive: bool) -> bool {
        match asked {
            ExpectedReply::Mail { transaction } if self.unanswered == Some(transaction) => {
                self.unanswered = None;
                match self.before.take() {
                    Some(_) if positive => return true,
                    Some(before) => self.sender = Some(before),
                    None => self.open = positive,
                }
                false
            }
            ExpectedReply::Rset
            | ExpectedReply::Helo
            | ExpectedReply::Ehlo
            | ExpectedReply::Message { .. }
                if positive =>
            {
                // A MAIL without a reply was said after these, and begins anew.
                self.open = self.unanswered.is_some();
                self.before.take().is_some()
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn mail(transaction: usize) -> ExpectedReply {
        ExpectedReply::Mail { transaction }
    }

    #[test]
    fn a_sender_counts_until_upstream_lets_go_of_it() {
        let mut envelope = Envelope::default();
        envelope.mail("a".to_owned(), 0);
        assert!(!envelope.is_in_doubt());
        envelope.replied(mail(0), true);
        // `RSET now`, and a second MAIL.
        envelope.replied(ExpectedReply::Rset, false);
        envelope.mail("b".to_owned(), 1);
        assert!(envelope.is_in_doubt());
        assert!(!envelope.replied(mail(1), false));
        assert_eq!((envelope.sender(), envelope.is_in_doubt()), (Some("a"), false));
        envelope.mail("c".to_owned(), 2);
        assert!(envelope.replied(mail(2), true), "an upstream that takes it anew");
        assert_eq!(envelope.sender(), Some("c"));
    }

    #[test]
    fn what_ends_a_transaction_ends_the_doubt() {
        for end in [
            ExpectedReply::Rset,
            ExpectedReply::Ehlo,
            ExpectedReply::Helo,
            ExpectedReply::Message { transaction: 0 },
        ] {
            let mut envelope = Envelope::default();
            envelope.mail("a".to_owned(), 0);
            envelope.replied(mail(0), true);
            envelope.mail("b".to_owned(), 1);
            assert!(envelope.replied(end, true), "{end:?} was said before the MAIL");
            assert!(!envelope.is_in_doubt());
            envelope.replied(mail(1), true);
            envelope.replied(end, true);
            envelope.mail("c".to_owned(), 2);
            assert!(!envelope.is_in_doubt(), "{end:?}");
        }
    }
}
