//! The message of a canary (RFC 5322): short, plain, 7-bit, with every field that filters look for.

use super::token::{CanaryToken, PairId};
use crate::hmac_key::HmacKey;

/// Mailboxes of a canary, the same in envelope and header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryAddresses {
    pub from: String,
    pub to: String,
}

/// The Subject of both messages of a pair.
pub fn subject(pair: PairId) -> String {
    format!("Mail delivery check {pair}")
}

/// The whole message, with CRLF and without dot-stuffing (no line begins with a dot). The two messages of a pair differ in
/// their Message-ID only. `host` is the right-hand side of the Message-ID.
pub fn compose(
    token: &CanaryToken,
    addresses: &CanaryAddresses,
    host: &str,
    key: &HmacKey,
) -> String {
    let CanaryAddresses { from, to } = addresses;
    let date = token.sent.rfc5322();
    let subject = subject(token.pair);
    let message_id = token.message_id(to, host, key);
    format!(
        "Date: {date}\r\nFrom: {from}\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: {message_id}\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
         Hello,\r\n\r\n\
         this message checks that mail arrives at this address. The same message was\r\n\
         sent over IPv4 and over IPv6, and a program compares how both are treated.\r\n\
         Nobody needs to read or answer it.\r\n\r\n\
         The postmaster who receives it has set this up with gatepost, on the host that\r\n\
         the Message-ID names. It can be deleted at any time.\r\n"
    )
}
