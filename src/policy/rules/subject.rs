//! The state of a session that rules are evaluated for.

use std::net::{IpAddr, SocketAddr};

use crate::label::labels;
use crate::policy::facts::ReceivedMessage;

labels! {
    /// The progress of a session. Each stage includes the knowledge of those before it.
    #[derive(Default)]
    pub enum PolicyStage {
        /// The client's address is known.
        #[default]
        Connect = "connect",
        /// HELO or EHLO.
        Helo = "helo",
        /// MAIL FROM.
        Mail = "mail",
        /// One RCPT TO.
        Rcpt = "rcpt",
        /// The end of a message, before it is accepted.
        Data = "data",
    }
}

/// The known state of a session; `None` for commands not yet seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    pub client: IpAddr,
    /// The address that the client connected to.
    pub destination: SocketAddr,
    /// The name of the listener that accepted the connection; `None` if it is not known.
    pub listener: Option<&'a str>,
    pub helo: Option<&'a str>,
    /// The reverse-path without brackets; empty for `<>`.
    pub sender: Option<&'a str>,
    pub recipient: Option<&'a str>,
    /// From [`PolicyStage::Data`] on; `None` if the content was not seen.
    pub message: Option<&'a ReceivedMessage>,
    pub tls: bool,
    pub authenticated: bool,
}
