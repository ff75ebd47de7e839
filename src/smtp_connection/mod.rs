//! One SMTP connection from the client's side, also under TLS, and the sending of one message over it.
//!
//! Base of layer 4: recorded sessions are re-sent over such connections, and canaries are sent.

mod client_tls;
mod connection;
mod pair;
mod send;

pub use self::client_tls::{ConnectionTls, HandshakeSizes};
pub use self::connection::{Connection, ReplyResult};
pub use self::pair::PairOrder;
pub use self::send::{CanarySender, CanaryTarget};

#[cfg(test)]
mod tests;
