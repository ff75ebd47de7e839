//! Socketmap lookups of Postfix (socketmap_table(5)): the protocol, the daemon's server, and the helper between the two.
//!
//! Postfix's smtp(8) sends each resource record that it receives from DNS as a key (`smtp_dns_reply_filter`), and omits the
//! record if the answer is `OK IGNORE`. A server that is down or slow would defer mail, so Postfix does not ask the daemon
//! itself: spawn(8) starts a [`helper`](run_helper) for each connection, which always has an answer.

mod helper;
mod netstring;
mod protocol;
mod record;
mod server;
#[cfg(test)]
mod tests;

pub use self::helper::{QUESTION_TIMEOUT, run_helper};
pub use self::netstring::Netstring;
pub use self::protocol::{MapAnswer, MapRequest};
pub use self::record::FilteredRecord;
pub use self::server::MapListener;

/// Limit, in bytes, of what the helper and the daemon exchange: a question about an address record is far shorter.
const MAX_EXCHANGED: usize = 4096;
