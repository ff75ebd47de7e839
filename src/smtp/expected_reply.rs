//! The replies that a session expects, each with the change that it confirms.

use std::sync::Arc;

use super::{Command, Verb};
use crate::time::Timestamp;

/// What a reply is expected to, with what it confirms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedReply {
    Greeting,
    Helo(Arc<str>),
    Ehlo(Arc<str>),
    Mail {
        sender: Arc<str>,
        /// The message may have UTF-8 in its envelope (RFC 6531 §3.4).
        utf8: bool,
    },
    Rcpt {
        recipient: Arc<str>,
        /// The policy decides on this recipient; see [`ExpectedReply::as_question`].
        is_question: bool,
    },
    Data,
    /// The end of data, or `BDAT … LAST`.
    Message {
        /// Of all chunks together once the reply is there; until then of the last one.
        bytes: u64,
        chunking: bool,
        /// When the content ended; `None` while it has not, or if that was not seen.
        ended: Option<Timestamp>,
    },
    /// BDAT without LAST.
    Chunk {
        bytes: u64,
    },
    /// The same, where the client sent LAST and waits for the reply to its message: it receives this one if it rejects the
    /// chunk, and with it the message.
    WithheldChunk {
        bytes: u64,
    },
    Rset,
    Auth,
    Starttls {
        /// The policy decides on the session so far.
        is_question: bool,
    },
    Quit,
    Other,
    /// To a command of the gateway's own; the client receives none.
    Own(OwnCommand),
}

impl ExpectedReply {
    /// What the reply to `command` confirms. For BDAT, see [`super::Session::begin_chunk`].
    pub fn to(command: &Command<'_>) -> Self {
        let name = || String::from_utf8_lossy(command.argument).into();
        match command.verb {
            Verb::Helo => Self::Helo(name()),
            Verb::Ehlo => Self::Ehlo(name()),
            Verb::Mail => Self::Mail {
                sender: command.path_or_argument().into(),
                utf8: command.envelope().is_ok_and(|envelope| envelope.asks_for_utf8()),
            },
            Verb::Rcpt => {
                Self::Rcpt { recipient: command.path_or_argument().into(), is_question: false }
            }
            Verb::Data => Self::Data,
            Verb::Rset => Self::Rset,
            Verb::Auth => Self::Auth,
            Verb::Starttls => Self::Starttls { is_question: false },
            Verb::Quit => Self::Quit,
            _ => Self::Other,
        }
    }

    /// The same, where the gateway would put RCPT or STARTTLS to the policy.
    #[must_use]
    pub fn as_question(mut self) -> Self {
        if let Self::Rcpt { is_question, .. } | Self::Starttls { is_question } = &mut self {
            *is_question = true;
        }
        self
    }

    /// What the client waits for: of a chunk whose end is withheld, the reply to its message.
    #[must_use]
    pub(super) fn or_its_message(self) -> Self {
        match self {
            Self::WithheldChunk { bytes } => Self::Message { bytes, chunking: true, ended: None },
            other => other,
        }
    }

    pub(super) fn argument_len(&self) -> usize {
        match self {
            Self::Helo(text)
            | Self::Ehlo(text)
            | Self::Mail { sender: text, .. }
            | Self::Rcpt { recipient: text, .. } => text.len(),
            _ => 0,
        }
    }
}

/// A command of the gateway's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnCommand {
    Ehlo,
    Xclient,
    /// Begins TLS with the server.
    Starttls,
    /// Represents data that the client sent before the greeting and that cannot be forwarded as it is.
    Noop,
}
