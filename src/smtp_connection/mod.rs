//! One SMTP connection from the client's side, also under TLS, and the sending of one message over it.
//!
//! Base of layer 4: recorded sessions are re-sent over such connections, and canaries are sent.

mod client_tls;
mod connection;
mod send;

pub use self::connection::{Connection, ReplyResult};
pub use self::send::{CanarySender, MailServer};

#[cfg(test)]
mod tests;
