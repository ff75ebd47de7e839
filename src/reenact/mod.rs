//! Captured sessions said again over real sockets: the client's side to a live server, and, if wanted, the recorded
//! server behind it.
//!
//! Layer 4. The client speaks when the recorded client spoke: after the replies that it had waited for, not by the clock,
//! unless the recorded gaps are kept. Where the live answer forbids what comes next (content after a refused DATA), that is
//! left out; a message that was refused in the capture is never completed in life.

mod client;
mod script;
mod server;
#[cfg(test)]
mod tests;

use std::fmt;

pub use self::client::{Client, Pace};
pub use self::script::{Script, Unplayable};
pub use self::server::{Server, ServerError};

/// Where the live answer is of another class than the recorded one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What was answered: a command line, or the words for what is none.
    pub after: String,
    pub recorded: Answer,
    pub now: Answer,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Code and text of a reply.
    Reply { code: u16, text: String },
    /// The connection was closed.
    Closed,
    /// No reply within the time allowed.
    Silence,
}

impl Answer {
    /// The class that is compared: the reply's first digit, or 0 for none at all.
    pub const fn class(&self) -> u16 {
        match self {
            Self::Reply { code, .. } => *code / 100,
            Self::Closed | Self::Silence => 0,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply { code, text } => write!(f, "{code} {text}"),
            Self::Closed => f.write_str("closed"),
            Self::Silence => f.write_str("no answer"),
        }
    }
}

/// How one session went when it was said again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Performance {
    /// Replies read and compared.
    pub replies: u64,
    pub differences: Vec<Difference>,
    /// Why it ended before the recorded one did, in words.
    pub cut_short: Option<&'static str>,
}
