//! The session machine: what the next bytes of each side mean, and in which order replies leave.
//!
//! It pairs both directions. Client bytes are commands, message content, a chunk, an AUTH response or opaque, depending on
//! what upstream answered last; so after DATA, AUTH and STARTTLS nothing is interpreted until the reply is there. Some
//! commands are answered by the gateway: their replies wait in the same queue, so that a pipelining client (RFC 2920) reads
//! one reply per command in the order in which it asked.

mod presumed;

use std::collections::VecDeque;

use super::{
    BareNewlines, Chunk, Command, DataScanner, Findings, Junk, Line, OwnReply, Piece, Reply,
    ReplyParse, Split,
};

/// Commands that may wait for their replies before the client is read no further.
const MAX_PENDING: usize = 128;

/// RFC 4954 §4: a line of an AUTH exchange may have 12288 octets.
const AUTH_LINE: usize = 12288;

/// What upstream was asked, and so what its reply means. Numbers are the caller's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedReply {
    Greeting,
    Helo,
    Ehlo,
    Mail {
        transaction: usize,
    },
    Rcpt {
        transaction: usize,
        recipient: usize,
    },
    Data {
        transaction: usize,
    },
    /// The end of data, or `BDAT … LAST`.
    Message {
        transaction: usize,
    },
    /// BDAT without LAST.
    Chunk {
        transaction: usize,
    },
    Rset,
    Auth,
    Starttls,
    Quit,
    Other,
    Own(OwnCommand),
}

/// A command of the gateway's own; the client hears nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnCommand {
    Ehlo,
    Xclient,
}

/// What the client's bytes cannot be interpreted without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Greeting,
    /// The reply to a command of our own.
    Own,
    Data,
    Auth,
    Starttls,
    /// Any reply: too many commands are unanswered.
    Room,
}

/// What stands at the start of the client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    Incomplete,
    Waiting(Wait),
    Junk(Junk),
    Command {
        line: Line<'a>,
        command: Command<'a>,
    },
    /// `len` octets of a line that is over the limit; `done` with its end. `auth`: upstream waits for it.
    TooLong {
        len: usize,
        done: bool,
        auth: bool,
    },
    /// A line of an AUTH exchange.
    AuthLine(Line<'a>),
    /// Message content: give it to [`Session::scan`].
    Content,
    /// `len` octets of a BDAT chunk: see [`Session::chunk_passed`].
    Chunk {
        len: usize,
        wanted: bool,
    },
    /// `len` octets after STARTTLS that are no TLS: not for upstream.
    Plaintext {
        len: usize,
    },
    Opaque,
}

/// How far `BDAT` came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Within,
    /// The chunk's last octet, and with `last` the message's; `wanted` as it was announced.
    ChunkEnds {
        wanted: bool,
        last: bool,
    },
}

/// What stands at the start of upstream's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEvent<'a> {
    Incomplete,
    Malformed,
    Reply {
        reply: Reply<'a>,
        asked: ExpectedReply,
    },
    /// A reply to nothing.
    Unexpected(Reply<'a>),
    /// Said after the 220 to STARTTLS and before the client's hello: a TLS server never speaks first.
    Plaintext,
    Opaque,
}

#[derive(Debug)]
enum Phase {
    Command,
    /// Inside a line that is over the limit.
    TooLong {
        auth: bool,
    },
    AuthLine,
    Content {
        scanner: DataScanner,
        transaction: usize,
        answered: bool,
    },
    Chunk {
        remaining: u64,
        wanted: bool,
        last: bool,
    },
    /// After STARTTLS; `begun` with the first octet of TLS from the client.
    Opaque {
        begun: bool,
    },
}

/// A place in the queue of replies.
#[derive(Debug)]
enum Slot {
    Upstream(ExpectedReply),
    Own(OwnReply, ExpectedReply),
}

/// One SMTP session between a client and an upstream.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    wait: Option<Wait>,
    /// The first is never `Own`: such a reply leaves at once.
    pending: VecDeque<Slot>,
    bare_newlines: BareNewlines,
    line_limit: usize,
}

impl Session {
    /// A session that waits for upstream's greeting. `line_limit` is in octets, CRLF included.
    pub fn new(bare_newlines: BareNewlines, line_limit: usize) -> Self {
        Self {
            phase: Phase::Command,
            wait: Some(Wait::Greeting),
            pending: VecDeque::from([Slot::Upstream(ExpectedReply::Greeting)]),
            bare_newlines,
            line_limit,
        }
    }

    /// What `input`, never empty, starts with. Nothing is consumed: the caller says what it did with it.
    pub fn client<'a>(&mut self, input: &'a [u8]) -> Item<'a> {
        if let Some(wait) = self.wait {
            return Item::Waiting(wait);
        }
        match &mut self.phase {
            Phase::Command if self.pending.len() >= MAX_PENDING => Item::Waiting(Wait::Room),
            Phase::Command => {
                if let Some(junk) = Junk::recognise(input) {
                    return Item::Junk(junk);
                }
                match Line::split(input, self.line_limit) {
                    Split::Line(line) => Item::Command { line, command: Command::parse(line.text) },
                    Split::Incomplete => Item::Incomplete,
                    Split::TooLong => self.skip(input, false),
                }
            }
            Phase::TooLong { auth } => {
                let auth = *auth;
                self.skip(input, auth)
            }
            Phase::AuthLine => match Line::split(input, AUTH_LINE) {
                Split::Line(line) => Item::AuthLine(line),
                Split::Incomplete => Item::Incomplete,
                Split::TooLong => self.skip(input, true),
            },
            Phase::Content { .. } => Item::Content,
            Phase::Chunk { remaining, wanted, .. } => {
                let len = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len());
                Item::Chunk { len, wanted: *wanted }
            }
            Phase::Opaque { begun } => {
                let plaintext = input.iter().take_while(|&&b| !*begun && !begins_tls(b));
                match plaintext.count() {
                    0 => {
                        *begun = true;
                        Item::Opaque
                    }
                    len => Item::Plaintext { len },
                }
            }
        }
    }

    fn skip<'a>(&mut self, input: &[u8], auth: bool) -> Item<'a> {
        match memchr::memchr(b'\n', input) {
            Some(lf) => {
                self.phase = Phase::Command;
                Item::TooLong { len: lf + 1, done: true, auth }
            }
            None => {
                self.phase = Phase::TooLong { auth };
                Item::TooLong { len: input.len(), done: false, auth }
            }
        }
    }

    /// Content for the message in progress, see [`DataScanner::scan`]. At the end of data upstream is asked for the
    /// message's fate, unless it told early. After an end that is in doubt ([`Session::end_in_doubt`]) content goes on.
    pub fn scan(&mut self, input: &[u8], emit: impl FnMut(Piece)) -> (Option<usize>, Findings) {
        let Phase::Content { scanner, transaction, answered } = &mut self.phase else {
            return (None, Findings::default());
        };
        let end = scanner.scan(input, emit);
        let findings = scanner.findings();
        if end.is_some() && !scanner.is_doubtful() {
            if !*answered {
                self.pending.push_back(Slot::Upstream(ExpectedReply::Message {
                    transaction: *transaction,
                }));
            }
            self.phase = Phase::Command;
        }
        (end, findings)
    }

    /// `count` octets of the chunk at hand are dealt with.
    pub const fn chunk_passed(&mut self, count: u64) -> Progress {
        let Phase::Chunk { remaining, wanted, last } = &mut self.phase else {
            return Progress::Within;
        };
        *remaining = remaining.saturating_sub(count);
        if *remaining > 0 {
            return Progress::Within;
        }
        let (wanted, last) = (*wanted, *last);
        self.phase = Phase::Command;
        Progress::ChunkEnds { wanted, last }
    }

    /// A command that expects `asked` was forwarded.
    pub fn ask(&mut self, asked: ExpectedReply) {
        self.wait = match asked {
            ExpectedReply::Data { .. } => Some(Wait::Data),
            ExpectedReply::Auth => Some(Wait::Auth),
            ExpectedReply::Starttls => Some(Wait::Starttls),
            ExpectedReply::Own(_) => Some(Wait::Own),
            _ => self.wait,
        };
        self.pending.push_back(Slot::Upstream(asked));
    }

    /// BDAT was read: its octets follow. `wanted` is false if upstream is not to see them.
    pub fn expect_chunk(&mut self, chunk: Chunk, wanted: bool) {
        if chunk.size > 0 {
            self.phase = Phase::Chunk { remaining: chunk.size, wanted, last: chunk.last };
        }
    }

    /// We answer `asked` ourselves. Returns the reply if it may leave at once.
    #[must_use]
    pub fn answer(&mut self, reply: OwnReply, asked: ExpectedReply) -> Option<OwnReply> {
        if self.pending.is_empty() {
            return Some(reply);
        }
        self.pending.push_back(Slot::Own(reply, asked));
        None
    }

    /// The next of our own replies whose turn has come, and what it answers.
    pub fn ready(&mut self) -> Option<(OwnReply, ExpectedReply)> {
        if !matches!(self.pending.front(), Some(Slot::Own(..))) {
            return None;
        }
        match self.pending.pop_front() {
            Some(Slot::Own(reply, asked)) => Some((reply, asked)),
            _ => None,
        }
    }

    /// Takes the first reply off `input`, pairs it with what was asked and moves on.
    pub fn upstream<'a>(&mut self, input: &'a [u8]) -> ServerEvent<'a> {
        if let Phase::Opaque { begun } = self.phase {
            return if begun { ServerEvent::Opaque } else { ServerEvent::Plaintext };
        }
        let reply = match Reply::parse(input) {
            ReplyParse::Complete(reply) => reply,
            ReplyParse::Incomplete => return ServerEvent::Incomplete,
            ReplyParse::Malformed => return ServerEvent::Malformed,
        };
        let asked = match self.pending.pop_front() {
            Some(Slot::Upstream(asked)) => asked,
            // `Own` is never first; an early refusal is the message's, once. An early acceptance is none: it answers an
            // end of data that upstream saw and we did not send.
            Some(Slot::Own(..)) => return ServerEvent::Unexpected(reply),
            None => match &mut self.phase {
                Phase::Content { transaction, answered, .. } if !*answered && reply.code >= 400 => {
                    *answered = true;
                    ExpectedReply::Message { transaction: *transaction }
                }
                _ => return ServerEvent::Unexpected(reply),
            },
        };
        self.follow(asked, reply.code);
        ServerEvent::Reply { reply, asked }
    }

    /// What a reply changes in the meaning of the client's next bytes.
    fn follow(&mut self, asked: ExpectedReply, code: u16) {
        match (asked, code) {
            (ExpectedReply::Data { transaction }, 354) => {
                let scanner = DataScanner::new(self.bare_newlines);
                self.phase = Phase::Content { scanner, transaction, answered: false };
            }
            (ExpectedReply::Auth, 334) => self.phase = Phase::AuthLine,
            (ExpectedReply::Auth, _) => self.phase = Phase::Command,
            (ExpectedReply::Starttls, 220) => self.phase = Phase::Opaque { begun: false },
            _ => {}
        }
        // The caller says when its own exchange is over.
        if !matches!(asked, ExpectedReply::Own(_)) {
            let ends = match asked {
                ExpectedReply::Greeting => Some(Wait::Greeting),
                ExpectedReply::Data { .. } => Some(Wait::Data),
                ExpectedReply::Auth => Some(Wait::Auth),
                ExpectedReply::Starttls => Some(Wait::Starttls),
                _ => None,
            };
            if ends == self.wait {
                self.wait = None;
            }
        }
    }

    /// Our own exchange with upstream is over: the client is read again.
    pub fn resume(&mut self) {
        if self.wait == Some(Wait::Own) {
            self.wait = None;
        }
    }

    /// What upstream owes a reply to, oldest first.
    pub fn owed(&self) -> Option<ExpectedReply> {
        self.pending.iter().find_map(|slot| match slot {
            Slot::Upstream(asked) => Some(*asked),
            Slot::Own(..) => None,
        })
    }

    /// What a reply would answer that comes now: the oldest that is owed, or the message in progress.
    pub fn unanswered(&self) -> Option<ExpectedReply> {
        self.owed().or(match self.phase {
            Phase::Content { transaction, answered: false, .. } => {
                Some(ExpectedReply::Message { transaction })
            }
            _ => None,
        })
    }

    /// Upstream is gone, and what it owed was settled otherwise.
    pub fn settle(&mut self) {
        self.pending.clear();
    }

    /// The fate of a message is open: upstream has it or is getting it, and has not said what becomes of it.
    pub fn owes_message(&self) -> bool {
        let message = |slot: &Slot| matches!(slot, Slot::Upstream(ExpectedReply::Message { .. }));
        self.pending.iter().any(message)
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Octets of the chunk at hand that upstream is still to get without anybody looking at them.
    pub const fn chunk_remaining(&self) -> u64 {
        match self.phase {
            Phase::Chunk { remaining, wanted: true, .. } => remaining,
            _ => 0,
        }
    }

    pub const fn is_opaque(&self) -> bool {
        matches!(self.phase, Phase::Opaque { .. })
    }

    /// TLS has begun: neither side's bytes are looked at any more.
    pub const fn is_encrypted(&self) -> bool {
        matches!(self.phase, Phase::Opaque { begun: true })
    }

    /// In the middle of a message or chunk.
    pub const fn in_content(&self) -> bool {
        matches!(self.phase, Phase::Content { .. } | Phase::Chunk { .. })
    }
}

/// A hello is a record of type 22 (RFC 8446 §5.1), or in the form of SSL 2, which has the highest bit set. No SMTP command
/// begins so.
const fn begins_tls(octet: u8) -> bool {
    octet == 0x16 || octet >= 0x80
}
