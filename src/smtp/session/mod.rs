//! The session machine: what the next bytes of each side mean, and in which order replies leave.
//!
//! It pairs both directions. Client bytes are commands, message content, a chunk, an AUTH response or opaque, depending on
//! the server's last replies; so after DATA, AUTH and STARTTLS nothing is interpreted until the reply is there. Some
//! commands are answered by the gateway: their replies wait in the same queue, so that a pipelining client (RFC 2920)
//! receives one reply per command in the order of its commands. In that order each reply is applied to the
//! [`SessionState`], which this machine owns.

mod event;
mod outlook;
mod resync;
mod withheld_end;

use std::collections::VecDeque;

pub use self::event::{ChunkProgress, ClientEvent, ServerEvent, Wait};
use super::transaction::{Author, Confirmation};
use super::{
    BareNewlines, Chunk, Command, DataScanner, ExpectedReply, Extensions, Junk, Line, MAX_REPLY,
    OwnCommand, OwnReply, Piece, Reply, ReplyParse, ScanFindings, SessionState, Split,
};
use crate::time::Timestamp;

/// Commands that may wait for their replies before the client is read no further, and bytes of their arguments.
const MAX_PENDING: usize = 128;
const MAX_PENDING_BYTES: usize = 32 * 1024;

/// RFC 4954 §4: a line of an AUTH exchange may have 12288 bytes.
const AUTH_LINE: usize = 12288;

/// The end of data: a line of a single dot (RFC 5321 §4.1.1.4).
const DOT_LINE: u64 = ".\r\n".len() as u64;

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
        bytes: u64,
        /// The server rejected the message before its end.
        rejected: bool,
    },
    Chunk {
        remaining: u64,
        wanted: bool,
        last: bool,
        /// The end of the message is withheld.
        withheld: bool,
    },
    /// The client sent the end of its message, and the server has not received it.
    WithheldEnd(MessageEnd),
    /// After STARTTLS; `begun` with the first byte of TLS from the client.
    Opaque {
        begun: bool,
    },
    /// After the gateway's own 220 to STARTTLS, until its TLS with the client is established.
    Handshake,
}

/// The end of a message.
#[derive(Clone, Copy, Debug)]
struct MessageEnd {
    /// Of the content; those of chunks are added from the replies to them.
    bytes: u64,
    chunking: bool,
    /// The server rejected the message before its end.
    rejected: bool,
    /// `None` if it was not seen.
    at: Option<Timestamp>,
}

impl MessageEnd {
    /// In chunks, whose replies have to come.
    const fn of_chunks(at: Timestamp) -> Self {
        Self { bytes: 0, chunking: true, rejected: false, at: Some(at) }
    }
}

/// A place in the queue of replies.
#[derive(Debug)]
enum Pending {
    Server(ExpectedReply),
    Local(OwnReply, ExpectedReply),
}

impl Pending {
    const fn expected(&self) -> &ExpectedReply {
        match self {
            Self::Server(expected) | Self::Local(_, expected) => expected,
        }
    }
}

/// One SMTP session between a client and a server.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    wait: Option<Wait>,
    /// Invariant: the front is never `Local`; [`Session::queue_local_reply`] returns such a reply instead.
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    state: SessionState,
    /// Bytes of the server's input that are whole lines of an unfinished reply.
    reply_lines: usize,
    /// The code of the greeting's lines so far, and their bytes.
    greeting: Option<(u16, usize)>,
    bare_newlines: BareNewlines,
    line_limit: usize,
}

impl Session {
    /// A session that waits for the server's greeting. `line_limit` is in bytes, CRLF included.
    pub fn new(bare_newlines: BareNewlines, line_limit: usize) -> Self {
        Self {
            phase: Phase::Command,
            wait: Some(Wait::Greeting),
            pending: VecDeque::from([Pending::Server(ExpectedReply::Greeting)]),
            pending_bytes: 0,
            state: SessionState::default(),
            reply_lines: 0,
            greeting: None,
            bare_newlines,
            line_limit,
        }
    }

    /// What the replies so far have confirmed.
    pub const fn state(&self) -> &SessionState {
        &self.state
    }

    /// What `input`, never empty, starts with. Nothing is consumed: the caller reports what it did with it.
    pub fn client<'a>(&mut self, input: &'a [u8]) -> ClientEvent<'a> {
        if let Some(wait) = self.wait {
            return ClientEvent::Waiting(wait);
        }
        match &mut self.phase {
            Phase::Command
                if self.pending.len() >= MAX_PENDING || self.pending_bytes >= MAX_PENDING_BYTES =>
            {
                ClientEvent::Waiting(Wait::PipelineFull)
            }
            Phase::Command => {
                if let Some(junk) = Junk::recognise(input) {
                    return ClientEvent::Junk(junk);
                }
                match Line::split(input, self.line_limit) {
                    Split::Line(line) => {
                        ClientEvent::Command { line, command: Command::parse(line.text) }
                    }
                    Split::Incomplete => ClientEvent::Incomplete,
                    Split::TooLong => self.skip_line(input, false),
                }
            }
            Phase::TooLong { auth } => {
                let auth = *auth;
                self.skip_line(input, auth)
            }
            Phase::AuthLine => match Line::split(input, AUTH_LINE) {
                Split::Line(line) => ClientEvent::AuthLine(line),
                Split::Incomplete => ClientEvent::Incomplete,
                Split::TooLong => self.skip_line(input, true),
            },
            Phase::Content { .. } => ClientEvent::Content,
            Phase::WithheldEnd(_) => ClientEvent::Waiting(Wait::EndOfData),
            Phase::Chunk { remaining, wanted, .. } => {
                let len = usize::try_from(*remaining).unwrap_or(usize::MAX).min(input.len());
                ClientEvent::Chunk { len, wanted: *wanted }
            }
            Phase::Handshake => ClientEvent::Plaintext { len: input.len() },
            Phase::Opaque { begun } => {
                let plaintext = input.iter().take_while(|&&b| !*begun && !begins_tls(b));
                match plaintext.count() {
                    0 => {
                        *begun = true;
                        ClientEvent::Opaque
                    }
                    len => ClientEvent::Plaintext { len },
                }
            }
        }
    }

    fn skip_line<'a>(&mut self, input: &[u8], auth: bool) -> ClientEvent<'a> {
        match memchr::memchr(b'\n', input) {
            Some(lf) => {
                self.phase = Phase::Command;
                ClientEvent::TooLong { len: lf + 1, done: true, auth }
            }
            None => {
                self.phase = Phase::TooLong { auth };
                ClientEvent::TooLong { len: input.len(), done: false, auth }
            }
        }
    }

    /// Content of the current message, see [`DataScanner::scan`]; all of `input` up to the returned end counts as sent. At
    /// the end of data the reply to the message is expected, unless the server rejected it early. After an end that is
    /// ambiguous ([`Session::end_is_ambiguous`]) content goes on.
    pub fn scan(
        &mut self,
        input: &[u8],
        at: Timestamp,
        emit: impl FnMut(Piece),
    ) -> (Option<usize>, ScanFindings) {
        let Phase::Content { scanner, bytes, .. } = &mut self.phase else {
            return (None, ScanFindings::default());
        };
        let end = scanner.scan(input, emit);
        let findings = scanner.findings();
        *bytes += end.unwrap_or(input.len()) as u64;
        if end.is_some() && !scanner.end_is_ambiguous() {
            if scanner.withholds_end() {
                self.withhold_content_end(at);
            } else {
                self.end_content(Some(at));
            }
        }
        (end, findings)
    }

    /// The end of data. `at`: `None` if it was not seen.
    fn end_content(&mut self, at: Option<Timestamp>) {
        if let Some(end) = self.content_end(at) {
            self.end_message(end);
        }
    }

    const fn content_end(&self, at: Option<Timestamp>) -> Option<MessageEnd> {
        let Phase::Content { bytes, rejected, .. } = self.phase else { return None };
        let bytes = bytes.saturating_sub(DOT_LINE);
        Some(MessageEnd { bytes, chunking: false, rejected, at })
    }

    /// The server has the end of the message.
    fn end_message(&mut self, end: MessageEnd) {
        let MessageEnd { bytes, chunking, rejected, at } = end;
        self.phase = Phase::Command;
        if rejected {
            self.state.set_bytes(bytes);
            self.state.end_transaction();
        } else {
            self.push(Pending::Server(ExpectedReply::Message { bytes, chunking, ended: at }));
        }
    }

    /// BDAT was read at `at`: its bytes follow. `wanted` is false if the server is not to receive them. Returns what the
    /// reply to it will confirm.
    pub const fn begin_chunk(
        &mut self,
        chunk: Chunk,
        wanted: bool,
        at: Timestamp,
    ) -> ExpectedReply {
        if chunk.size > 0 {
            let Chunk { size: remaining, last } = chunk;
            self.phase = Phase::Chunk { remaining, wanted, last, withheld: false };
        }
        let bytes = chunk.size;
        if chunk.last {
            let ended = if bytes == 0 { Some(at) } else { None };
            ExpectedReply::Message { bytes, chunking: true, ended }
        } else {
            ExpectedReply::Chunk { bytes }
        }
    }

    /// `count` bytes of the current chunk were relayed or discarded.
    pub fn on_chunk_bytes(&mut self, count: u64, at: Timestamp) -> ChunkProgress {
        let Phase::Chunk { remaining, wanted, last, withheld } = &mut self.phase else {
            return ChunkProgress::Within;
        };
        *remaining = remaining.saturating_sub(count);
        if *remaining > 0 {
            return ChunkProgress::Within;
        }
        let (wanted, last, withheld) = (*wanted, *last, *withheld);
        self.phase =
            if withheld { Phase::WithheldEnd(MessageEnd::of_chunks(at)) } else { Phase::Command };
        if wanted
            && last
            && let Some(Pending::Server(ExpectedReply::Message { ended, .. })) =
                self.pending.back_mut()
        {
            *ended = Some(at);
        }
        ChunkProgress::ChunkEnds { wanted, last }
    }

    /// A command was forwarded; its reply is `expected`.
    pub fn expect(&mut self, expected: ExpectedReply) {
        self.wait = match expected {
            ExpectedReply::Data => Some(Wait::Data),
            ExpectedReply::Auth => Some(Wait::Auth),
            ExpectedReply::Starttls { .. } => Some(Wait::Starttls),
            ExpectedReply::Own(OwnCommand::Ehlo | OwnCommand::Xclient | OwnCommand::Starttls) => {
                Some(Wait::GatewayCommand)
            }
            _ => self.wait,
        };
        self.push(Pending::Server(expected));
    }

    fn push(&mut self, pending: Pending) {
        self.pending_bytes += pending.expected().argument_len();
        self.pending.push_back(pending);
    }

    fn pop(&mut self) -> Option<Pending> {
        let pending = self.pending.pop_front()?;
        self.pending_bytes -= pending.expected().argument_len();
        Some(pending)
    }

    /// The gateway answers a command itself. Returns the reply if it may leave at once.
    #[must_use]
    pub fn queue_local_reply(
        &mut self,
        reply: OwnReply,
        expected: ExpectedReply,
    ) -> Option<(OwnReply, ExpectedReply)> {
        if self.pending.is_empty() {
            return Some(self.pop_local(reply, expected));
        }
        self.push(Pending::Local(reply, expected));
        None
    }

    /// The gateway's next reply whose turn has come, and what it answers.
    pub fn pop_local_reply(&mut self) -> Option<(OwnReply, ExpectedReply)> {
        if !matches!(self.pending.front(), Some(Pending::Local(..))) {
            return None;
        }
        match self.pop() {
            Some(Pending::Local(reply, expected)) => Some(self.pop_local(reply, expected)),
            _ => None,
        }
    }

    fn pop_local(&mut self, reply: OwnReply, expected: ExpectedReply) -> (OwnReply, ExpectedReply) {
        let expected = self.with_all_chunks(expected);
        self.apply_local(&expected, &reply);
        (reply, expected)
    }

    /// The gateway's reply takes the place of the one that the client waits for, or answers `last`, the client's last
    /// command, if it waits for none. Nothing else that is pending will be answered. Returns what it answers.
    pub fn preempt(&mut self, last: ExpectedReply, reply: &OwnReply) -> ExpectedReply {
        let expected = match self.current_expectation() {
            Some(ExpectedReply::Greeting | ExpectedReply::Own(_)) | None => last,
            Some(expected) => {
                self.pop();
                self.with_all_chunks(expected.or_its_message())
            }
        };
        self.apply_local(&expected, reply);
        expected
    }

    /// The bytes of a message's last chunk become those of the message.
    fn with_all_chunks(&self, mut expected: ExpectedReply) -> ExpectedReply {
        if let ExpectedReply::Message { bytes, chunking: true, .. } = &mut expected {
            *bytes += self.state.chunk_bytes();
        }
        expected
    }

    fn apply_local(&mut self, expected: &ExpectedReply, reply: &OwnReply) {
        let (code, enhanced) = (Some(reply.code), Some(reply.enhanced));
        self.state.apply(expected, Confirmation { code, enhanced, author: Author::Gateway });
    }

    /// Takes the first reply off `input`, which starts with the bytes that no earlier reply took; pairs it with its command
    /// and moves on.
    pub fn server<'a>(&mut self, input: &'a [u8]) -> ServerEvent<'a> {
        if let Phase::Opaque { begun } = self.phase {
            return if begun { ServerEvent::Opaque } else { ServerEvent::Plaintext };
        }
        if let Some(event) = self.greeting_line(input) {
            return event;
        }
        let parsed = Reply::parse_on(input, &mut self.reply_lines);
        if !matches!(parsed, ReplyParse::Incomplete) {
            self.reply_lines = 0;
        }
        match parsed {
            ReplyParse::Complete(reply) if reply.mixed_codes => ServerEvent::MixedCodes(reply),
            ReplyParse::Complete(reply) => self.pair(reply),
            ReplyParse::Incomplete => ServerEvent::Incomplete,
            ReplyParse::Malformed => ServerEvent::Malformed,
        }
    }

    /// The next line of a greeting of several. `None`: the input is incomplete, or a reply as any other.
    fn greeting_line<'a>(&mut self, input: &'a [u8]) -> Option<ServerEvent<'a>> {
        if !matches!(self.pending.front(), Some(Pending::Server(ExpectedReply::Greeting))) {
            return None;
        }
        let (line, last) = Reply::first_line(input)?;
        let (code, bytes) = match self.greeting {
            None if last => return None,
            None => (line.code, 0),
            Some(greeting) => greeting,
        };
        if line.code != code {
            // To a client that does not wait postscreen(8) sends replies in place of the rest of the greeting.
            if !self.only_greeting_is_expected() && !matches!(line.code, 421 | 521 | 554) {
                let raw = input.get(..0)?;
                return Some(self.pair(Reply { code, raw, mixed_codes: false }));
            }
            // After its first lines a server may still reject, as postscreen does with 521.
            if line.code < 400 {
                return Some(ServerEvent::MixedCodes(line));
            }
        }
        if last {
            return None;
        }
        let bytes = bytes + line.raw.len();
        self.greeting = Some((line.code, bytes));
        Some(if bytes > MAX_REPLY {
            ServerEvent::Malformed
        } else {
            ServerEvent::GreetingLine(line)
        })
    }

    /// As [`Session::server`], for a reply that is parsed already.
    pub fn pair<'a>(&mut self, reply: Reply<'a>) -> ServerEvent<'a> {
        match self.pending.front() {
            Some(Pending::Server(_)) => {}
            // By the invariant it is never first.
            Some(Pending::Local(..)) => return ServerEvent::Unexpected(reply),
            None => return self.early_rejection(reply),
        }
        let Some(Pending::Server(expected)) = self.pop() else {
            return ServerEvent::Unexpected(reply);
        };
        let is_withheld = matches!(expected, ExpectedReply::WithheldChunk { .. });
        let expected = if is_withheld && reply.code >= 400 {
            self.forget_withheld_end();
            expected.or_its_message()
        } else {
            expected
        };
        let expected = self.with_all_chunks(expected);
        let (code, enhanced) = (Some(reply.code), reply.enhanced());
        self.state.apply(&expected, Confirmation { code, enhanced, author: Author::Server });
        self.advance(&expected, reply.code);
        ServerEvent::Reply { reply, expected }
    }

    /// A rejection before the end of data is the message's, once. An early acceptance is none: it answers an end of data
    /// that the server read and nobody sent.
    fn early_rejection<'a>(&mut self, reply: Reply<'a>) -> ServerEvent<'a> {
        match &mut self.phase {
            Phase::Content { rejected, bytes, .. }
            | Phase::WithheldEnd(MessageEnd { rejected, bytes, chunking: false, .. })
                if !*rejected && reply.code >= 400 =>
            {
                *rejected = true;
                self.state.on_early_rejection(reply.code);
                let expected =
                    ExpectedReply::Message { bytes: *bytes, chunking: false, ended: None };
                ServerEvent::Reply { reply, expected }
            }
            _ => ServerEvent::Unexpected(reply),
        }
    }

    /// A reply may change the meaning of the client's next bytes.
    fn advance(&mut self, expected: &ExpectedReply, code: u16) {
        match (expected, code) {
            (ExpectedReply::Data, 354) => {
                let scanner = DataScanner::new(self.bare_newlines);
                self.phase = Phase::Content { scanner, bytes: 0, rejected: false };
            }
            (ExpectedReply::Auth, 334) => self.phase = Phase::AuthLine,
            (ExpectedReply::Auth, _) => self.phase = Phase::Command,
            (ExpectedReply::Starttls { .. }, 220) => self.phase = Phase::Opaque { begun: false },
            _ => {}
        }
        let ends = match expected {
            ExpectedReply::Greeting => Wait::Greeting,
            ExpectedReply::Data => Wait::Data,
            ExpectedReply::Auth => Wait::Auth,
            ExpectedReply::Starttls { .. } => Wait::Starttls,
            _ => return, // The gateway's own exchange ends by `resume`.
        };
        if self.wait == Some(ends) {
            self.wait = None;
        }
    }

    /// The last EHLO reply offered `extensions`, as far as the client may use them.
    pub fn on_extensions(&mut self, extensions: Extensions) {
        self.state.on_extensions(extensions);
    }

    /// The client is read before the greeting is complete: what it sends already is forwarded as it comes.
    pub fn admit_early_data(&mut self) {
        if self.wait == Some(Wait::Greeting) {
            self.wait = None;
        }
    }

    /// The server was sent nothing yet, and its greeting is not complete.
    pub fn only_greeting_is_expected(&self) -> bool {
        let mut expected = self.pending.iter().filter(|p| matches!(p, Pending::Server(_)));
        matches!(expected.next(), Some(Pending::Server(ExpectedReply::Greeting)))
            && expected.next().is_none()
    }

    /// The gateway's own exchange with the server is over: the client is read again.
    pub fn resume(&mut self) {
        if self.wait == Some(Wait::GatewayCommand) {
            self.wait = None;
        }
    }

    /// The oldest command that the server has not answered.
    pub fn oldest_pending(&self) -> Option<&ExpectedReply> {
        self.pending.iter().find_map(|pending| match pending {
            Pending::Server(expected) => Some(expected),
            Pending::Local(..) => None,
        })
    }

    /// What a reply would answer that comes now: the oldest pending command, or the current message.
    pub fn current_expectation(&self) -> Option<ExpectedReply> {
        self.oldest_pending().cloned().or(match self.phase {
            Phase::Content { rejected: false, bytes, .. } => {
                Some(ExpectedReply::Message { bytes, chunking: false, ended: None })
            }
            Phase::WithheldEnd(MessageEnd { rejected: false, bytes, chunking, at }) => {
                Some(ExpectedReply::Message { bytes, chunking, ended: at })
            }
            _ => None,
        })
    }

    /// The server is gone: its pending replies will not come.
    pub fn clear_pending(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Bytes of the current chunk that go to the server uninspected.
    pub const fn chunk_remaining(&self) -> u64 {
        match self.phase {
            Phase::Chunk { remaining, wanted: true, .. } => remaining,
            _ => 0,
        }
    }

    /// The gateway has answered STARTTLS with 220: what the client sends in plaintext no longer counts.
    pub fn begin_handshake(&mut self) {
        self.phase = Phase::Handshake;
        self.state.on_handshake();
    }

    /// The gateway's TLS with the client is established: a new session begins, in the middle of the server's.
    pub fn on_tls_established(&mut self) {
        self.phase = Phase::Command;
        self.state.on_tls_established();
    }

    /// The client's handshake with the gateway is not complete.
    pub const fn in_handshake(&self) -> bool {
        matches!(self.phase, Phase::Handshake)
    }

    pub const fn is_opaque(&self) -> bool {
        matches!(self.phase, Phase::Opaque { .. })
    }

    /// TLS has begun: neither side's bytes are inspected any more.
    pub const fn is_encrypted(&self) -> bool {
        matches!(self.phase, Phase::Opaque { begun: true })
    }

    /// In the middle of a message or chunk.
    pub const fn in_content(&self) -> bool {
        matches!(self.phase, Phase::Content { .. } | Phase::Chunk { .. })
    }

    /// Within a line over the limit, which is discarded.
    pub const fn is_skipping_line(&self) -> bool {
        matches!(self.phase, Phase::TooLong { .. })
    }

    /// The session is over: commands without a reply stay so. Returns the state with all its transactions.
    pub fn finish(&mut self) -> &mut SessionState {
        while self.pop_unanswered(false).is_some() {}
        if let Phase::Content { bytes, .. }
        | Phase::WithheldEnd(MessageEnd { bytes, chunking: false, .. }) = self.phase
        {
            self.state.set_bytes(bytes);
        }
        &mut self.state
    }

    /// Takes the oldest pending command, or with `but_last` the oldest of all but the last, whose reply will never be seen.
    pub fn pop_unanswered(&mut self, but_last: bool) -> Option<ExpectedReply> {
        if but_last && self.pending.len() <= 1 {
            return None;
        }
        let (Pending::Server(mut expected) | Pending::Local(_, mut expected)) = self.pop()?;
        // A chunk that was cut off: the newest command is its BDAT.
        if let Phase::Chunk { remaining, .. } = self.phase
            && self.pending.is_empty()
            && let ExpectedReply::Message { bytes, .. }
            | ExpectedReply::Chunk { bytes }
            | ExpectedReply::WithheldChunk { bytes } = &mut expected
        {
            *bytes = bytes.saturating_sub(remaining);
        }
        let expected = self.with_all_chunks(expected);
        self.state.apply(&expected, Confirmation::MISSED);
        Some(expected)
    }
}

/// A hello is a record of type 22 (RFC 8446 §5.1), or in the form of SSL 2, which has the highest bit set. No SMTP command
/// begins so.
const fn begins_tls(byte: u8) -> bool {
    byte == 0x16 || byte >= 0x80
}
