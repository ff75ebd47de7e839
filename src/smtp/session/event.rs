//! What the next bytes of each side mean.

use crate::smtp::{Command, ExpectedReply, Junk, Line, Reply};

/// The reply that the client's bytes cannot be interpreted without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Greeting,
    /// To a command of the gateway's own.
    GatewayCommand,
    Data,
    Auth,
    Starttls,
    /// None: the relaying caller has not decided yet whether the message may end.
    EndOfData,
    /// Any: too many commands are unanswered.
    PipelineFull,
}

/// What stands at the start of the client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientEvent<'a> {
    Incomplete,
    Waiting(Wait),
    Junk(Junk),
    Command {
        line: Line<'a>,
        command: Command<'a>,
    },
    /// `len` bytes of a line that is over the limit; `done` with its end. `auth`: the server waits for it.
    TooLong {
        len: usize,
        done: bool,
        auth: bool,
    },
    /// A line of an AUTH exchange.
    AuthLine(Line<'a>),
    /// Message content, for [`Session::scan`](super::Session::scan).
    Content,
    /// `len` bytes of a BDAT chunk, for [`Session::on_chunk_bytes`](super::Session::on_chunk_bytes).
    Chunk {
        len: usize,
        wanted: bool,
    },
    /// `len` bytes after STARTTLS that are not TLS; never relayed.
    Plaintext {
        len: usize,
    },
    Opaque,
}

/// How far a BDAT chunk came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkProgress {
    Within,
    /// The chunk's last byte, and with `last` the message's, which may be withheld; `wanted` as it was announced.
    ChunkEnds {
        wanted: bool,
        last: bool,
    },
}

/// What stands at the start of the server's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent<'a> {
    Incomplete,
    Malformed,
    /// A complete line of the greeting, not its last: it is relayed when it comes, so that a server can observe what the client
    /// does meanwhile (Postfix: the teaser of postscreen(8)).
    GreetingLine(Reply<'a>),
    /// A reply whose lines have different codes. It answers nothing.
    MixedCodes(Reply<'a>),
    Reply {
        reply: Reply<'a>,
        expected: ExpectedReply,
    },
    /// A reply to nothing.
    Unexpected(Reply<'a>),
    /// Between the 220 to STARTTLS and the client's hello: a TLS server never sends first.
    Plaintext,
    Opaque,
}
