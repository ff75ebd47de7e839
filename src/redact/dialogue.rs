//! Redaction of one session: classifies each byte and decides whether it may be shown.
//!
//! Follows the dialogue with the gateway's own session machine. Frames leave in the order and with the times of their arrival,
//! each once all its bytes are classified. A dialogue that cannot be followed is dropped from that point on.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::local_parts::LocalParts;
use super::text::{blank, mask};
use crate::addr::Side;
use crate::recording::{FrameBody, Omission};
use crate::smtp::{
    BareNewlines, ClientEvent, Command, EnhancedCode, EnvelopeArgument, ExpectedReply, Line,
    PathKind, Reply, ServerEvent, Session, Verb,
};
use crate::time::Timestamp;

type Emit<'e> = dyn FnMut(Timestamp, FrameBody) + 'e;

/// More than any gateway is configured to accept for a command.
const LINE: usize = 128 * 1024;
/// Bytes and frames that may wait to be classified.
const MAX_WAITING_BYTES: usize = 1 << 20;
const MAX_WAITING_FRAMES: usize = 16 * 1024;
/// RFC 5321 §4.1.1.4: shown, so that a reader of the capture sees where the content ended.
const END_OF_DATA: &[u8] = b"\r\n.\r\n";
/// Of an empty message.
const END_AT_ONCE: usize = 3;

#[derive(Debug)]
pub(super) struct SessionRedactor {
    session: Session,
    locals: LocalParts,
    own: [IpAddr; 2],
    client: SideBytes,
    server: SideBytes,
    /// Frames that have not left yet.
    waiting: VecDeque<(Timestamp, WaitingFrame)>,
    /// Bytes at the end of the content so far that may be the start of [`END_OF_DATA`]; they wait to be shown or dropped.
    ending: usize,
    /// The client does not speak SMTP.
    junk: bool,
    /// The dialogue cannot be followed.
    lost: bool,
    now: Timestamp,
}

#[derive(Debug)]
enum WaitingFrame {
    Data {
        from: Side,
        count: usize,
    },
    /// Needs no redaction.
    Final(FrameBody),
}

/// The bytes of one side.
#[derive(Debug, Default)]
struct SideBytes {
    /// Not classified yet.
    held: Vec<u8>,
    /// Classified, but not yet emitted.
    classified: VecDeque<Classified>,
    count: usize,
}

#[derive(Debug)]
enum Classified {
    Shown(Vec<u8>),
    Dropped(usize),
}

impl SideBytes {
    fn show(&mut self, bytes: Vec<u8>) {
        self.count += bytes.len();
        self.classified.push_back(Classified::Shown(bytes));
    }

    fn drop(&mut self, count: usize) {
        self.count += count;
        self.classified.push_back(Classified::Dropped(count));
    }

    /// Takes `count` classified bytes; that many are there.
    fn take(&mut self, count: usize) -> Vec<Classified> {
        let mut taken: Vec<Classified> = Vec::new();
        let mut left = count;
        while left > 0
            && let Some(piece) = self.classified.pop_front()
        {
            let (piece, rest) = piece.split(left);
            if let Some(rest) = rest {
                self.classified.push_front(rest);
            }
            left -= piece.len();
            match (taken.last_mut(), piece) {
                (Some(Classified::Shown(last)), Classified::Shown(more)) => last.extend(more),
                (Some(Classified::Dropped(last)), Classified::Dropped(more)) => *last += more,
                (_, piece) => taken.push(piece),
            }
        }
        self.count -= count - left;
        taken
    }
}

impl Classified {
    const fn len(&self) -> usize {
        match self {
            Self::Shown(bytes) => bytes.len(),
            Self::Dropped(count) => *count,
        }
    }

    /// At most `count` bytes, and the rest.
    fn split(self, count: usize) -> (Self, Option<Self>) {
        match self {
            Self::Shown(mut bytes) if bytes.len() > count => {
                let rest = bytes.split_off(count);
                (Self::Shown(bytes), Some(Self::Shown(rest)))
            }
            Self::Dropped(all) if all > count => {
                (Self::Dropped(count), Some(Self::Dropped(all - count)))
            }
            whole => (whole, None),
        }
    }
}

impl SessionRedactor {
    pub(super) fn new(locals: LocalParts, client: SocketAddr, server: SocketAddr) -> Self {
        Self {
            session: Session::new(BareNewlines::Pass, LINE),
            locals,
            own: [client.ip(), server.ip()],
            client: SideBytes::default(),
            server: SideBytes::default(),
            waiting: VecDeque::new(),
            ending: 0,
            junk: false,
            lost: false,
            now: Timestamp::default(),
        }
    }

    pub(super) fn on_frame(&mut self, at: Timestamp, body: FrameBody, emit: &mut Emit<'_>) {
        self.now = at;
        match body {
            FrameBody::Data { from, bytes } => {
                self.waiting.push_back((at, WaitingFrame::Data { from, count: bytes.len() }));
                self.stream(from).held.extend(bytes);
                self.classify();
            }
            FrameBody::Omitted { from, count, .. } => {
                self.omitted(from, count);
                self.waiting.push_back((at, WaitingFrame::Final(body)));
            }
            FrameBody::Begin { .. }
            | FrameBody::ClientClosed
            | FrameBody::End { .. }
            | FrameBody::Missed { .. } => {
                self.waiting.push_back((at, WaitingFrame::Final(body)));
            }
        }
        let held = self.client.held.len() + self.server.held.len();
        let bytes = held + self.client.count + self.server.count;
        self.emit_classified(emit);
        if bytes > MAX_WAITING_BYTES || self.waiting.len() > MAX_WAITING_FRAMES {
            self.lose();
            self.emit_classified(emit);
        }
    }

    /// The last frame: bytes that are not classified by now never will be.
    pub(super) fn on_end(&mut self, at: Timestamp, mut body: FrameBody, emit: &mut Emit<'_>) {
        if let FrameBody::End { summary: ending, .. } = &mut body {
            for text in [&mut ending.rule, &mut ending.reason].into_iter().flatten() {
                let mut masked = std::mem::take(text).into_bytes();
                mask(&mut masked, &self.locals, &self.own);
                *text = String::from_utf8_lossy(&masked).into_owned();
            }
        }
        self.lose();
        self.waiting.push_back((at, WaitingFrame::Final(body)));
        self.emit_classified(emit);
    }

    const fn stream(&mut self, side: Side) -> &mut SideBytes {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// Bytes are missing. Within a chunk or TLS that loses nothing.
    fn omitted(&mut self, from: Side, count: u64) {
        let all_classified = self.stream(from).held.is_empty();
        let in_chunk = from == Side::Client && self.session.chunk_remaining() >= count;
        if all_classified && self.session.is_opaque() {
            return;
        }
        if all_classified && in_chunk {
            self.session.on_chunk_bytes(count, self.now);
        } else {
            self.lose();
        }
    }

    fn lose(&mut self) {
        self.lost = true;
        self.give_up_ending();
        for stream in [&mut self.client, &mut self.server] {
            let count = std::mem::take(&mut stream.held).len();
            stream.drop(count);
        }
    }

    fn give_up_ending(&mut self) {
        let count = std::mem::take(&mut self.ending);
        self.client.drop(count);
    }

    fn classify(&mut self) {
        if self.lost {
            return self.lose();
        }
        while self.client_step() || self.server_step() {}
    }

    /// Classifies the client's next bytes. Returns whether it could.
    fn client_step(&mut self) -> bool {
        let held = std::mem::take(&mut self.client.held);
        let used = if held.is_empty() { 0 } else { self.client_item(&held) };
        self.client.held = rest(held, used);
        used > 0
    }

    /// Returns the number of bytes that were classified.
    fn client_item(&mut self, held: &[u8]) -> usize {
        if self.junk {
            self.client.drop(held.len());
            return held.len();
        }
        match self.session.client(held) {
            ClientEvent::Incomplete | ClientEvent::Waiting(_) => 0,
            ClientEvent::Junk(_) if self.session.has_pending() => 0,
            ClientEvent::Junk(_) => {
                self.junk = true;
                self.client.drop(held.len());
                held.len()
            }
            ClientEvent::Command { line, command } => {
                let shown = self.command(&command, line);
                self.client.show(shown);
                line.len()
            }
            ClientEvent::AuthLine(line) => {
                let mut shown = held.get(..line.len()).unwrap_or_default().to_vec();
                blank(&mut shown);
                self.client.show(shown);
                self.session.expect(ExpectedReply::Auth);
                line.len()
            }
            ClientEvent::TooLong { len, done, auth } => {
                self.client.drop(len);
                if done {
                    self.session.expect(if auth {
                        ExpectedReply::Auth
                    } else {
                        ExpectedReply::Other
                    });
                }
                len
            }
            ClientEvent::Content => self.content(held),
            ClientEvent::Chunk { len, .. } => {
                self.client.drop(len);
                self.session.on_chunk_bytes(len as u64, self.now);
                len
            }
            ClientEvent::Plaintext { len } => {
                self.client.drop(len);
                len
            }
            ClientEvent::Opaque => {
                self.client.drop(held.len());
                held.len()
            }
        }
    }

    /// Drops content but for its end.
    fn content(&mut self, held: &[u8]) -> usize {
        let (end, _) = self.session.scan(held, self.now, |_| {});
        let used = end.unwrap_or(held.len());
        let total = self.ending + used;
        if end.is_some() {
            let shown = if total >= END_OF_DATA.len() { END_OF_DATA.len() } else { END_AT_ONCE };
            self.client.drop(total - shown);
            let from = END_OF_DATA.len() - shown;
            self.client.show(END_OF_DATA.get(from..).unwrap_or_default().to_vec());
            self.ending = 0;
        } else {
            let recent = held.get(used.saturating_sub(END_OF_DATA.len())..used).unwrap_or_default();
            let last = [END_OF_DATA.get(..self.ending).unwrap_or_default(), recent].concat();
            let begun = |count: &usize| {
                END_OF_DATA.get(..*count).is_some_and(|begun| last.ends_with(begun))
            };
            self.ending = (0..END_OF_DATA.len()).rev().find(begun).unwrap_or_default();
            self.client.drop(total - self.ending);
        }
        used
    }

    fn server_step(&mut self) -> bool {
        let held = std::mem::take(&mut self.server.held);
        let used = if held.is_empty() { 0 } else { self.server_item(&held) };
        // Once lost, the rest cannot be classified.
        self.server.held = rest(held, used);
        if self.lost {
            self.lose();
        }
        used > 0 && !self.lost
    }

    fn server_item(&mut self, held: &[u8]) -> usize {
        let event = match self.session.server(held) {
            ServerEvent::MixedCodes(reply) => self.session.pair(reply), // Its last code counts.
            event => event,
        };
        match event {
            ServerEvent::Incomplete => 0,
            ServerEvent::Malformed => {
                self.lost = true;
                0
            }
            ServerEvent::GreetingLine(line) => {
                let shown = self.reply(&line, false);
                self.server.show(shown);
                line.raw.len()
            }
            // It changes the meaning of the client's next bytes in an unknown way.
            ServerEvent::Unexpected(reply) if matches!(reply.code, 220 | 334 | 354) => {
                self.lost = true;
                0
            }
            ServerEvent::Unexpected(reply) | ServerEvent::MixedCodes(reply) => {
                let shown = self.reply(&reply, false);
                self.server.show(shown);
                reply.raw.len()
            }
            ServerEvent::Reply { reply, expected } => {
                let shown = self.reply(&reply, may_name_anything(&expected));
                self.server.show(shown);
                reply.raw.len()
            }
            ServerEvent::Plaintext | ServerEvent::Opaque => {
                self.server.drop(held.len());
                held.len()
            }
        }
    }

    fn reply(&self, reply: &Reply<'_>, hide: bool) -> Vec<u8> {
        let mut shown = reply.raw.to_vec();
        for line in shown.split_mut(|&b| b == b'\n') {
            let separated = matches!(line.get(3), Some(b' ' | b'-'));
            let Some(text) = line.get_mut(if separated { 4 } else { 3 }..) else { continue };
            if hide || !self.locals.all_known() {
                let word = text.iter().take_while(|b| !b.is_ascii_whitespace()).count();
                let code = EnhancedCode::parse(text).map_or(0, |_| word);
                blank(text.get_mut(code..).unwrap_or_default());
            } else {
                mask(text, &self.locals, &self.own);
            }
        }
        shown
    }

    /// A command as it may be shown; its reply is expected.
    fn command(&mut self, command: &Command<'_>, line: Line<'_>) -> Vec<u8> {
        let mut shown = line.text.to_vec();
        let verb = line.text.trim_ascii_end().len() - command.argument.len();
        let (_, argument) = shown.split_at_mut_checked(verb).unwrap_or_default();
        let mut expected = ExpectedReply::to(command);
        match command.verb {
            Verb::Helo | Verb::Ehlo => mask(argument, &self.locals, &self.own),
            Verb::Mail | Verb::Rcpt => self.mailbox(argument, command),
            Verb::Bdat => match command.chunk() {
                Ok(chunk) => expected = self.session.begin_chunk(chunk, true, self.now),
                Err(_) => blank(argument),
            },
            Verb::Auth => {
                // A mechanism's name is no secret; what follows is.
                let mechanism = known_mechanism(argument);
                blank(argument.get_mut(mechanism..).unwrap_or_default());
            }
            Verb::Unknown => blank(&mut shown),
            _ => blank(argument),
        }
        self.session.expect(expected);
        let ending = if line.len() - line.text.len() == 2 { &b"\r\n"[..] } else { b"\n" };
        shown.extend_from_slice(ending);
        shown
    }

    /// The argument of MAIL or RCPT. Of one that does not follow the syntax, only the keyword is shown.
    fn mailbox(&mut self, argument: &mut [u8], command: &Command<'_>) {
        let Some(range) = command.envelope().ok().map(|envelope| envelope.mailbox_range()) else {
            let keyword = [&b"FROM:"[..], b"TO:"].into_iter().find(|keyword| {
                argument.get(..keyword.len()).is_some_and(|head| head.eq_ignore_ascii_case(keyword))
            });
            let from = keyword.map_or(0, <[u8]>::len);
            // A server may find a mailbox in it, and repeat it.
            let path = command.path_or_argument();
            let local = path.rsplit_once('@').map_or(&*path, |(local, _)| local);
            self.locals.name(local.as_bytes());
            return blank(argument.get_mut(from..).unwrap_or_default());
        };
        let (head, rest) = argument.split_at_mut_checked(range.start).unwrap_or_default();
        let (path, parameters) = rest.split_at_mut_checked(range.len()).unwrap_or_default();
        // Behind the keyword: a bracket, perhaps a source route.
        let keyword = head.iter().position(|&b| b == b':').unwrap_or(head.len());
        let route = head.get_mut(keyword..).unwrap_or_default();
        for byte in route.iter_mut().filter(|b| !b"<@,.: ".contains(b)) {
            *byte = b'x';
        }
        let at = memchr::memrchr(b'@', path).unwrap_or(path.len());
        let (local, domain) = path.split_at_mut_checked(at).unwrap_or_default();
        if !is_role(local) {
            self.locals.name(local);
            let letters = self.locals.letters(local);
            hide_local_part(local, &letters);
        }
        mask(domain.get_mut(1..).unwrap_or_default(), &self.locals, &self.own);
        for parameter in parameters.split_mut(|&b| b == b' ') {
            let name = parameter.iter().take_while(|&&b| b != b'=').count();
            if !is_harmless(parameter.get(..name).unwrap_or_default()) {
                blank(parameter);
            }
        }
    }

    /// Emits the classified frames, in order.
    fn emit_classified(&mut self, emit: &mut Emit<'_>) {
        while let Some((at, waiting)) = self.waiting.pop_front() {
            match waiting {
                WaitingFrame::Final(body) => emit(at, body),
                WaitingFrame::Data { from, count } => {
                    let stream = self.stream(from);
                    if stream.count < count {
                        self.waiting.push_front((at, waiting));
                        return;
                    }
                    for piece in stream.take(count) {
                        emit(
                            at,
                            match piece {
                                Classified::Shown(bytes) => FrameBody::Data { from, bytes },
                                Classified::Dropped(count) => FrameBody::Omitted {
                                    from,
                                    count: count as u64,
                                    reason: Omission::Redacted,
                                },
                            },
                        );
                    }
                }
            }
        }
    }
}

fn rest(mut held: Vec<u8>, used: usize) -> Vec<u8> {
    held.drain(..used.min(held.len()));
    held
}

/// Replies to VRFY, EXPN and unknown commands may name any mailbox, and those to a malformed path may repeat it.
fn may_name_anything(expected: &ExpectedReply) -> bool {
    let (kind, path) = match expected {
        ExpectedReply::Auth | ExpectedReply::Other => return true,
        ExpectedReply::Mail { sender, .. } => (PathKind::Reverse, format!("FROM:<{sender}>")),
        ExpectedReply::Rcpt { recipient, .. } => (PathKind::Forward, format!("TO:<{recipient}>")),
        _ => return false,
    };
    EnvelopeArgument::parse(kind, path.as_bytes()).is_err()
}

/// Local parts that name no person (RFC 5321 §4.5.1, RFC 2142 §4); policy rules exempt them.
fn is_role(local: &[u8]) -> bool {
    local.eq_ignore_ascii_case(b"postmaster") || local.eq_ignore_ascii_case(b"abuse")
}

/// Letters in place of a local part. What a server may route by stays, and the quotes with it, so that the redacted path is
/// rejected or accepted as the original.
fn hide_local_part(local: &mut [u8], letters: &[u8]) {
    let quotes = if local.starts_with(b"\"") { [0, local.len() - 1] } else { [usize::MAX; 2] };
    for (at, (byte, letter)) in local.iter_mut().zip(letters).enumerate() {
        if !quotes.contains(&at) && !b"%!@".contains(byte) {
            *byte = *letter;
        }
    }
}

/// Parameters of MAIL and RCPT without personal data (RFC 1870, 6152, 6531, 8689, 3461, 3030). The closing bracket of a
/// path is one as well.
fn is_harmless(name: &[u8]) -> bool {
    let names: [&[u8]; 8] =
        [b">", b"", b"SIZE", b"BODY", b"SMTPUTF8", b"REQUIRETLS", b"RET", b"NOTIFY"];
    names.iter().any(|harmless| harmless.eq_ignore_ascii_case(name))
}

/// Length of the mechanism's name if it is a known one; anything else may be a secret.
fn known_mechanism(argument: &[u8]) -> usize {
    const KNOWN: [&[u8]; 12] = [
        b"PLAIN",
        b"LOGIN",
        b"CRAM-MD5",
        b"DIGEST-MD5",
        b"SCRAM-SHA-1",
        b"SCRAM-SHA-1-PLUS",
        b"SCRAM-SHA-256",
        b"SCRAM-SHA-256-PLUS",
        b"XOAUTH2",
        b"OAUTHBEARER",
        b"GSSAPI",
        b"EXTERNAL",
    ];
    let name = argument.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let known = KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name));
    if known { name.len() } else { 0 }
}
