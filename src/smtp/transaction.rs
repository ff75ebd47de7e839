//! The state that a client and a server share: HELO, extensions, AUTH, TLS, and the mail transaction with its recipients.
//!
//! [`SessionState`] is its only owner. It changes when a reply confirms a command, never when the command is sent
//! (RFC 5321 §4.1.4: a command that the server rejects leaves the state as it was). So a rejected RSET, EHLO or nested MAIL
//! keeps the open transaction, and a reply that was missed leaves a code unknown. [`super::Session`] applies each reply in
//! the order of the commands; everything else only reads.

use std::sync::Arc;

use super::{EnhancedCode, ExpectedReply, Extensions};
use crate::label::labels;

/// Bytes of envelope that one session keeps; recipients and transactions beyond it are only counted.
const ENVELOPE_BUDGET: usize = 32 * 1024;
/// What one path costs besides its own bytes.
const PATH_OVERHEAD: usize = 64;

/// The argument of a HELO or EHLO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Helo {
    pub name: Arc<str>,
    /// EHLO.
    pub esmtp: bool,
}

labels! {
    /// How far STARTTLS came.
    #[derive(Default)]
    pub enum TlsState {
        #[default]
        None = "none",
        Offered = "offered",
        /// The server's 220 was relayed, and with it the session became opaque.
        Started = "started",
        Refused = "refused",
        /// The gateway is one end of it, so that the session goes on readable; or the mail server is, and asks the gateway.
        Established = "established",
        /// The gateway is one end of it, and the handshake did not complete.
        Failed = "failed",
    }
}

impl TlsState {
    /// The client's bytes are encrypted.
    pub const fn is_encrypted(self) -> bool {
        matches!(self, Self::Started | Self::Established)
    }
}

/// One RCPT and its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub path: Arc<str>,
    /// `None`: no reply was seen.
    pub code: Option<u16>,
    pub enhanced: Option<EnhancedCode>,
}

/// From MAIL to the reply to the end of data. A MAIL that was rejected is one too, so that its recipients and codes are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// MAIL commands before this one.
    pub number: u64,
    /// The reverse-path without brackets; empty for `<>`.
    pub sender: Arc<str>,
    /// Its envelope may have UTF-8 (RFC 6531 §3.4).
    pub utf8: bool,
    /// `None`: no reply to MAIL was seen.
    pub mail_code: Option<u16>,
    pub recipients: Vec<Recipient>,
    /// Also those that are not kept.
    pub recipients_total: u64,
    /// The reply to the end of data, or an earlier one that rejected the message.
    pub data_code: Option<u16>,
    /// Bytes of content as the client sent it, without the final `.` line.
    pub bytes: u64,
    /// Sent by BDAT (RFC 3030).
    pub chunking: bool,
    /// Bytes in the answered chunks of the current message.
    chunk_bytes: u64,
    /// Recipients that the server decided on, or will.
    sent_recipients: u64,
    /// Recipients that the gateway rejected itself.
    local_rejections: u64,
    /// There is room for it in the budget.
    is_kept: bool,
}

impl Transaction {
    /// The server holds it: MAIL was accepted, or its reply was missed.
    fn is_open(&self) -> bool {
        self.mail_code.is_none_or(|code| code < 400)
    }
}

/// Who wrote a reply. The gateway's own replies are to commands that the server never saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Author {
    Server,
    Gateway,
}

/// A reply, as far as it changes the state. `code` is `None` for a reply that was missed: the command counts as accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Confirmation {
    pub(super) code: Option<u16>,
    pub(super) enhanced: Option<EnhancedCode>,
    pub(super) author: Author,
}

impl Confirmation {
    pub(super) const MISSED: Self = Self { code: None, enhanced: None, author: Author::Server };

    fn is_rejection(&self) -> bool {
        self.code.is_some_and(|code| code >= 400)
    }
}

/// See the module.
#[derive(Debug)]
pub struct SessionState {
    helo: Option<Helo>,
    helo_accepted: bool,
    extensions: Extensions,
    authenticated: bool,
    tls: TlsState,
    /// The transaction that the server is in; after a rejected MAIL, that one, until something ends it.
    current: Option<Transaction>,
    /// Those that are over.
    ended: Vec<Transaction>,
    /// MAIL commands that were answered.
    total: u64,
    /// Bytes of envelope that may still be kept.
    budget: usize,
}

impl Default for SessionState {
    fn default() -> Self {
        Self {
            helo: None,
            helo_accepted: false,
            extensions: Extensions::default(),
            authenticated: false,
            tls: TlsState::None,
            current: None,
            ended: Vec::new(),
            total: 0,
            budget: ENVELOPE_BUDGET,
        }
    }
}

impl SessionState {
    /// Of the last HELO or EHLO that the server accepted; while it accepted none, of the last that it rejected.
    pub const fn helo(&self) -> Option<&Helo> {
        self.helo.as_ref()
    }

    /// What the last accepted EHLO offered.
    pub const fn extensions(&self) -> Extensions {
        self.extensions
    }

    /// An AUTH succeeded (235, RFC 4954 §4).
    pub const fn is_authenticated(&self) -> bool {
        self.authenticated
    }

    pub const fn tls(&self) -> TlsState {
        self.tls
    }

    /// The transaction that a recipient belongs to now; its MAIL may have been rejected.
    pub const fn current(&self) -> Option<&Transaction> {
        self.current.as_ref()
    }

    /// The server is in a transaction.
    pub fn in_transaction(&self) -> bool {
        self.current.as_ref().is_some_and(Transaction::is_open)
    }

    /// The server is in a transaction without a recipient, because the gateway rejected each.
    pub fn all_recipients_rejected_locally(&self) -> bool {
        self.current.as_ref().is_some_and(|current| {
            current.is_open() && current.sent_recipients == 0 && current.local_rejections > 0
        })
    }

    /// The gateway rejected a recipient of the current transaction.
    pub(super) fn has_local_rejection(&self) -> bool {
        self.current.as_ref().is_some_and(|current| current.local_rejections > 0)
    }

    /// MAIL commands that were answered.
    pub const fn transactions_total(&self) -> u64 {
        self.total
    }

    /// All transactions in the order of their MAIL commands, as far as the budget goes; the state has none afterwards.
    pub fn take_transactions(&mut self) -> Vec<Transaction> {
        self.end_transaction();
        let mut transactions = std::mem::take(&mut self.ended);
        transactions.sort_by_key(|transaction| transaction.number);
        transactions
    }

    /// The last EHLO reply offered these.
    pub(super) fn on_extensions(&mut self, extensions: Extensions) {
        self.extensions = extensions;
        // The outcome of a STARTTLS says more than a later offer.
        if self.tls == TlsState::None && extensions.starttls {
            self.tls = TlsState::Offered;
        }
    }

    /// The gateway's handshake with the client begins.
    pub(super) const fn on_handshake(&mut self) {
        self.tls = TlsState::Failed; // Until it is complete.
    }

    /// The gateway's TLS with the client begins: the commands before it are forgotten (RFC 3207 §4.2).
    pub(super) fn on_tls_established(&mut self) {
        self.end_transaction();
        (self.helo, self.helo_accepted) = (None, false);
        self.extensions = Extensions::default();
        self.authenticated = false;
        self.tls = TlsState::Established;
    }

    /// TLS records were seen; the reply to STARTTLS was not.
    pub(super) const fn assume_tls(&mut self) {
        self.tls = TlsState::Started;
    }

    /// `expected` was answered.
    pub(super) fn apply(&mut self, expected: &ExpectedReply, reply: Confirmation) {
        match expected {
            ExpectedReply::Helo(name) => self.on_helo(name, false, reply),
            ExpectedReply::Ehlo(name) => self.on_helo(name, true, reply),
            ExpectedReply::Mail { sender, utf8 } => self.on_mail(sender, *utf8, reply),
            ExpectedReply::Rcpt { recipient, .. } => self.on_rcpt(recipient, reply),
            ExpectedReply::Data => self.on_data(reply),
            ExpectedReply::Chunk { bytes } | ExpectedReply::WithheldChunk { bytes } => {
                self.on_chunk(*bytes);
            }
            ExpectedReply::Message { bytes, chunking, .. } => {
                self.on_message(*bytes, *chunking, reply);
            }
            ExpectedReply::Rset if !reply.is_rejection() => self.end_transaction(),
            ExpectedReply::Auth if reply.code == Some(235) => self.authenticated = true,
            ExpectedReply::Starttls { .. } => match reply.code {
                Some(220) => self.tls = TlsState::Started,
                // Inside TLS it is refused because TLS goes on.
                Some(_) if self.tls != TlsState::Established => self.tls = TlsState::Refused,
                _ => {}
            },
            _ => {}
        }
    }

    fn on_helo(&mut self, name: &Arc<str>, esmtp: bool, reply: Confirmation) {
        let accepted = !reply.is_rejection();
        if accepted || !self.helo_accepted {
            self.helo = Some(Helo { name: Arc::clone(name), esmtp });
        }
        if accepted {
            self.helo_accepted = true;
            self.extensions = Extensions::default();
            self.end_transaction();
        }
    }

    fn on_mail(&mut self, sender: &Arc<str>, utf8: bool, reply: Confirmation) {
        let transaction = Transaction {
            number: self.total,
            sender: Arc::clone(sender),
            utf8,
            mail_code: reply.code,
            recipients: Vec::new(),
            recipients_total: 0,
            data_code: None,
            bytes: 0,
            chunking: false,
            chunk_bytes: 0,
            sent_recipients: 0,
            local_rejections: 0,
            is_kept: self.charge(sender),
        };
        self.total += 1;
        if reply.is_rejection() && self.in_transaction() {
            self.keep(transaction); // The open one goes on.
        } else {
            self.end_transaction();
            self.current = Some(transaction);
        }
    }

    fn on_rcpt(&mut self, recipient: &Arc<str>, reply: Confirmation) {
        let is_kept = self.current.is_some() && self.charge(recipient);
        let Some(current) = &mut self.current else {
            return;
        };
        current.recipients_total += 1;
        match reply.author {
            Author::Server => current.sent_recipients += 1,
            Author::Gateway => current.local_rejections += 1,
        }
        if is_kept {
            let (code, enhanced) = (reply.code, reply.enhanced);
            current.recipients.push(Recipient { path: Arc::clone(recipient), code, enhanced });
        }
    }

    /// A rejected DATA decides the message, unless no recipient was accepted before it: then their replies did.
    fn on_data(&mut self, reply: Confirmation) {
        if let Some(current) = &mut self.current
            && reply.is_rejection()
            && current.recipients.iter().any(|to| to.code.is_some_and(|code| code / 100 == 2))
        {
            current.data_code = reply.code;
        }
    }

    fn on_chunk(&mut self, bytes: u64) {
        if let Some(current) = &mut self.current {
            current.chunk_bytes += bytes;
            current.bytes = current.chunk_bytes;
            current.chunking = true;
        }
    }

    /// The end of data ends the transaction whatever the server replies (RFC 5321 §4.1.1.4). A rejected `BDAT … LAST` may not
    /// (RFC 3030 §2 leaves it open until RSET): until the next MAIL is accepted, the server may still hold the envelope. So
    /// after the gateway's own reply, since the server never saw that end.
    fn on_message(&mut self, bytes: u64, chunking: bool, reply: Confirmation) {
        if let Some(current) = &mut self.current {
            (current.bytes, current.chunk_bytes) = (bytes, 0);
            current.chunking = chunking;
            current.data_code = reply.code;
        }
        if reply.author == Author::Server && !(chunking && reply.is_rejection()) {
            self.end_transaction();
        }
    }

    /// The server rejected the message before its end; the transaction lasts until that.
    pub(super) const fn on_early_rejection(&mut self, code: u16) {
        if let Some(current) = &mut self.current {
            current.data_code = Some(code);
        }
    }

    /// The content ended, or was cut off: so many bytes of it were sent.
    pub(super) const fn set_bytes(&mut self, bytes: u64) {
        if let Some(current) = &mut self.current {
            current.bytes = bytes;
        }
    }

    /// Bytes in the answered chunks of the current message.
    pub(super) fn chunk_bytes(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.chunk_bytes)
    }

    pub(super) fn end_transaction(&mut self) {
        if let Some(transaction) = self.current.take() {
            self.keep(transaction);
        }
    }

    fn keep(&mut self, transaction: Transaction) {
        if transaction.is_kept {
            self.ended.push(transaction);
        }
    }

    /// The budget only shrinks: once it is spent, no later path is kept.
    fn charge(&mut self, path: &str) -> bool {
        let left = self.budget.checked_sub(path.len() + PATH_OVERHEAD);
        self.budget = left.unwrap_or(0);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16) -> Confirmation {
        Confirmation { code: Some(code), enhanced: None, author: Author::Server }
    }

    fn local(code: u16) -> Confirmation {
        Confirmation { author: Author::Gateway, ..reply(code) }
    }

    fn mail(sender: &str) -> ExpectedReply {
        ExpectedReply::Mail { sender: sender.into(), utf8: false }
    }

    fn rcpt(recipient: &str) -> ExpectedReply {
        ExpectedReply::Rcpt { recipient: recipient.into(), is_question: false }
    }

    const END: ExpectedReply = ExpectedReply::Message { bytes: 5, chunking: false, ended: None };

    fn in_transaction() -> SessionState {
        let mut state = SessionState::default();
        state.apply(&ExpectedReply::Ehlo("a".into()), reply(250));
        state.apply(&mail("a"), reply(250));
        state.apply(&rcpt("b"), reply(250));
        state
    }

    #[test]
    fn a_rejected_command_keeps_the_transaction() {
        for rejected in [ExpectedReply::Rset, ExpectedReply::Ehlo("x".into()), mail("x")] {
            let mut state = in_transaction();
            state.apply(&rejected, reply(501));
            assert!(state.in_transaction(), "{rejected:?}");
            assert_eq!(&*state.current().unwrap().sender, "a");
            assert_eq!(&*state.helo().unwrap().name, "a");
        }
    }

    #[test]
    fn an_accepted_one_ends_it() {
        for accepted in [ExpectedReply::Rset, ExpectedReply::Helo("x".into()), END] {
            let mut state = in_transaction();
            state.apply(&accepted, reply(250));
            assert_eq!(state.current(), None, "{accepted:?}");
            assert_eq!(state.take_transactions().len(), 1);
        }
        let mut state = in_transaction();
        state.apply(&END, reply(452));
        assert!(!state.in_transaction(), "the end of data ends it even if the message is rejected");
    }

    #[test]
    fn a_rejected_end_of_data_by_the_gateway_keeps_the_transaction() {
        let mut state = in_transaction();
        state.apply(&END, local(554));
        assert!(state.in_transaction());
    }

    #[test]
    fn a_rejected_last_chunk_may_keep_the_transaction() {
        let last = ExpectedReply::Message { bytes: 5, chunking: true, ended: None };
        let mut state = in_transaction();
        state.apply(&last, reply(554));
        assert!(state.in_transaction());
        state.apply(&mail("next"), reply(503));
        assert_eq!(&*state.current().unwrap().sender, "a");
        state.apply(&mail("next"), reply(250));
        assert_eq!(&*state.current().unwrap().sender, "next");
    }

    #[test]
    fn recipients_of_a_rejected_mail_belong_to_it() {
        let mut state = SessionState::default();
        state.apply(&mail("a"), reply(452));
        state.apply(&rcpt("b"), reply(503));
        assert!(!state.in_transaction());
        let [transaction] = &state.take_transactions()[..] else { panic!("one transaction") };
        assert_eq!((transaction.mail_code, transaction.recipients.len()), (Some(452), 1));
    }

    #[test]
    fn transactions_are_in_the_order_of_their_mail() {
        let mut state = in_transaction();
        state.apply(&mail("nested"), reply(503));
        state.apply(&END, reply(250));
        state.apply(&mail("next"), reply(250));
        let senders: Vec<_> = state.take_transactions().into_iter().map(|t| t.sender).collect();
        assert_eq!(senders, ["a".into(), "nested".into(), "next".into()]);
        assert_eq!(state.transactions_total(), 3);
    }

    #[test]
    fn only_local_rejections_leave_a_transaction_without_recipients() {
        let mut state = SessionState::default();
        state.apply(&mail("a"), reply(250));
        assert!(!state.all_recipients_rejected_locally());
        state.apply(&rcpt("b"), local(550));
        assert!(state.all_recipients_rejected_locally());
        state.apply(&rcpt("c"), reply(550));
        assert!(!state.all_recipients_rejected_locally(), "the server answers DATA");
    }

    #[test]
    fn what_exceeds_the_budget_is_counted() {
        let mut state = SessionState::default();
        let long = "x".repeat(1000);
        for _ in 0..100 {
            state.apply(&mail(&long), reply(250));
            state.apply(&rcpt(&long), reply(250));
            state.apply(&END, reply(250));
        }
        assert_eq!(state.transactions_total(), 100);
        let kept = state.take_transactions();
        assert_eq!(kept.len(), ENVELOPE_BUDGET / (2 * (1000 + PATH_OVERHEAD)));
    }
}
