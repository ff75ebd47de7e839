//! The transactions of a delegated session, as far as its questions show them. Memory is bounded: later ones are counted.

use std::sync::Arc;

use super::question::{AskedAt, DelegatedQuestion};
use super::{DelegatedReply, PolicyStage};
use crate::engine::record::{MessageProgress, RecipientRecord, TransactionRecord};

/// Bytes of envelopes that one session keeps.
const ENVELOPE_BUDGET: usize = 32 * 1024;

#[derive(Debug, Default)]
pub(super) struct Transactions {
    kept: Vec<TransactionRecord>,
    total: u64,
    /// Of the transaction that the last question was about.
    instance: Option<Arc<str>>,
    sender: Option<Arc<str>>,
    /// Whether that transaction is the last in `kept`.
    is_kept: bool,
    /// A recipient of it was decided on.
    has_decided: bool,
    /// The first recipient of it that was accepted, and the rules that are decided at the end of its message.
    first_recipient: Option<(Arc<str>, u64)>,
    used: usize,
}

impl Transactions {
    /// A question about a transaction that may be new.
    pub(super) fn note(&mut self, asked: &DelegatedQuestion) {
        let Some(sender) = &asked.question.sender else { return };
        let is_same =
            self.instance.as_ref() == Some(&asked.instance) && self.sender.as_ref() == Some(sender);
        if !is_same {
            self.total += 1;
            (self.instance, self.sender) =
                (Some(Arc::clone(&asked.instance)), Some(Arc::clone(sender)));
            self.has_decided = false;
            self.first_recipient = None;
            self.is_kept = self.takes(size_of::<TransactionRecord>() + sender.len());
            if self.is_kept {
                let mail_from = sender.to_string();
                self.kept.push(TransactionRecord { mail_from, ..TransactionRecord::default() });
            }
        }
        if let Some(transaction) = self.current() {
            transaction.bytes = asked.size;
            transaction.progress = transaction.progress.max(progress(asked.at));
            if asked.queue_id.is_some() {
                transaction.queue_id.clone_from(&asked.queue_id);
            }
        }
    }

    /// Whether a recipient of the transaction was decided on before.
    pub(super) fn has_decided_recipients(&self, asked: &DelegatedQuestion) -> bool {
        self.has_decided
            && self.is_of_current(asked)
            && matches!(asked.at, AskedAt::Data | AskedAt::EndOfMessage)
    }

    /// The recipient that the end of a message is decided for, where the mail server names none: the rules there are the same
    /// for all.
    pub(super) fn recipient_at_end(&self, asked: &DelegatedQuestion) -> Option<Arc<str>> {
        let (first, _) = self.first_recipient.as_ref()?;
        (asked.at == AskedAt::EndOfMessage && self.is_of_current(asked)).then(|| Arc::clone(first))
    }

    /// A recipient is accepted for whom the rules `at_end` are decided at the end of the message. Returns whether they are the
    /// same as for those before.
    pub(super) fn accept_recipient(&mut self, recipient: &Arc<str>, at_end: u64) -> bool {
        let (_, first) =
            self.first_recipient.get_or_insert_with(|| (Arc::clone(recipient), at_end));
        *first == at_end
    }

    fn is_of_current(&self, asked: &DelegatedQuestion) -> bool {
        self.instance.as_ref() == Some(&asked.instance)
    }

    /// The mail server has its reply. The codes are those of its defaults (Postfix: `access_map_reject_code`).
    pub(super) fn on_reply(&mut self, asked: &DelegatedQuestion, reply: &DelegatedReply) {
        let (code, enhanced) = match reply {
            DelegatedReply::Accept | DelegatedReply::Tag { .. } => (None, None),
            DelegatedReply::Refuse { enhanced, .. } => {
                (Some(if enhanced.class == 5 { 554 } else { 450 }), Some(*enhanced))
            }
        };
        let question = &asked.question;
        match (asked.at, &question.recipient) {
            (AskedAt::Data | AskedAt::EndOfMessage, _) => {
                if let (Some(transaction), Some(code)) = (self.current(), code) {
                    transaction.data_code = Some(code);
                }
            }
            (AskedAt::Rcpt, Some(recipient)) => {
                self.has_decided |= question.stage == PolicyStage::Rcpt;
                let address = recipient.to_string();
                let known = self.current().and_then(|transaction| {
                    transaction.rcpt_to.iter_mut().find(|to| to.address == address)
                });
                if let Some(known) = known {
                    // Asked again, in another list of restrictions.
                    if code.is_some() {
                        (known.code, known.enhanced) = (code, enhanced);
                    }
                    return;
                }
                let fits = self.takes(size_of::<RecipientRecord>() + address.len());
                if let Some(transaction) = self.current() {
                    transaction.rcpt_total += 1;
                    if fits {
                        transaction.rcpt_to.push(RecipientRecord { address, code, enhanced });
                    }
                }
            }
            (AskedAt::Mail, _) => {
                if let (Some(transaction), Some(code)) = (self.current(), code) {
                    transaction.mail_code = Some(code);
                }
            }
            _ => {}
        }
    }

    pub(super) fn finish(self) -> (Vec<TransactionRecord>, u64) {
        (self.kept, self.total)
    }

    fn current(&mut self) -> Option<&mut TransactionRecord> {
        self.kept.last_mut().filter(|_| self.is_kept)
    }

    fn takes(&mut self, bytes: usize) -> bool {
        let used = self.used.saturating_add(bytes);
        let fits = used <= ENVELOPE_BUDGET;
        if fits {
            self.used = used;
        }
        fits
    }
}

/// A question at RCPT is put before the recipient is accepted.
const fn progress(at: AskedAt) -> Option<MessageProgress> {
    match at {
        AskedAt::Data => Some(MessageProgress::ContentDue),
        AskedAt::EndOfMessage => Some(MessageProgress::Received),
        _ => None,
    }
}
