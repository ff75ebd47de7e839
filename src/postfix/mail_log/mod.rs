//! Postfix's mail log: attempts and deliveries of its SMTP client, smtp(8), out of log lines.
//!
//! [`MailLogParser`] takes bytes of a log file or of `journalctl --output=export` and returns events; it has no clock and no
//! socket. [`MailLogFollower`] reads a log as it grows and passes on its events. Everything behind `said:` is text of another
//! server, and recipient addresses are text of anybody: a line is read from its beginning, and no part that others wrote
//! decides how the rest is read. Local parts of mailboxes are not kept.
//!
//! | line of smtp(8) | result |
//! |---|---|
//! | `connect to HOST[ADDRESS]:25: Connection timed out` | an attempt; the next line of the same process gives message and domain |
//! | `SSL_connect error to HOST[ADDRESS]:25: …` | an attempt, `tls_failed` |
//! | `ID: host HOST[ADDRESS] said: 450 … (in reply to RCPT TO command)` | an attempt; Postfix goes on to another address |
//! | `ID: lost connection with …`, `ID: conversation with … timed out while …` | the same |
//! | `ID: to=<…>, relay=HOST[ADDRESS]:25, …, status=…` | a delivery, and an attempt unless a line before has reported it |
//! | `relay=none`, `conn_use=2` and more, a relay on loopback or at a Unix socket | a delivery, no attempt |
//!
//! Lines of one process about one message and one address are one attempt: see `join.rs`.

#![warn(clippy::indexing_slicing)]

mod active_queue;
mod event;
mod export;
mod failure;
mod follow;
mod header;
mod join;
mod log_time;
mod parser;
mod peer;
mod reply_text;
mod status_line;
#[cfg(test)]
mod tests;

pub use self::event::{DeliveryStatus, MailLogCounts, MailLogEvent, RecipientDelivery};
pub use self::follow::{
    MailLogFollower, MailLogSettings, MailLogSource, MailLogState, MailLogStatus,
};
pub use self::log_time::LogZone;
pub use self::parser::MailLogParser;
