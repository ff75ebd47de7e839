//! What each fuzz target does with its input. `tests/fuzz_seeds.rs` runs the same over the seed corpus.

#![allow(dead_code, reason = "each target uses one of them")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a finding is a panic")]

#[path = "../engine/driver.rs"]
mod driver;

use std::time::Duration;

use gatepost::addr::{ClientAddr, OriginalDst, Side};
use gatepost::engine::{
    BareNewlines, Event, Outcome, Output, Pregreet, Profile, SessionRecord, TcpFacts, Timeouts,
    Witness,
};
use gatepost::smtp::{
    Command, DataScanner, EnhancedCode, Extensions, Findings, Junk, Line, Piece, Reply, ReplyParse,
    Split, pieces,
};

use self::driver::Driver;

/// A line of a client.
pub(crate) fn command(input: &[u8]) {
    let _ = (Junk::recognise(input), Junk::before_greeting(input));
    let Split::Line(line) = Line::split(input, 2048) else {
        return;
    };
    assert!(line.len() <= input.len().min(2048));
    let mut sent = Vec::new();
    pieces(line, |piece| append(&mut sent, input, piece));
    // What goes on is one line for whoever reads it, and says the same to us.
    let inside = sent.strip_suffix(b"\r\n").expect("ends in CRLF");
    assert!(!inside.contains(&b'\r') && !inside.contains(&b'\n'));
    let (ours, theirs) = (Command::parse(line.text), Command::parse(inside));
    assert_eq!(ours.verb, theirs.verb);
    let _ = ours.path();
    if let Ok(chunk) = ours.chunk() {
        let again = chunk.as_command();
        assert_eq!(Command::parse(again.as_bytes()).chunk(), Ok(chunk));
    }
}

/// Upstream's replies, whole and cut.
pub(crate) fn reply(input: &[u8]) {
    let ReplyParse::Complete(reply) = Reply::parse(input) else {
        return;
    };
    assert!(reply.raw.len() <= input.len() && (200..600).contains(&reply.code));
    assert_eq!(Reply::parse(reply.raw), ReplyParse::Complete(reply));
    for cut in 0..reply.raw.len().min(512) {
        assert_eq!(Reply::parse(&input[..cut]), ReplyParse::Incomplete, "cut at {cut}");
    }
    let _: Option<EnhancedCode> = reply.enhanced();
    let (_, filtered) = Extensions::filter(&reply, &[]);
    let ReplyParse::Complete(again) = Reply::parse(&filtered) else {
        panic!("the filtered reply is none");
    };
    assert_eq!((again.raw.len(), again.code), (filtered.len(), 250));
}

/// A message: the first octet chooses how it is cut.
pub(crate) fn data(input: &[u8]) {
    let Some((&size, input)) = input.split_first() else {
        return;
    };
    let size = usize::from(size).max(1);
    for mode in [BareNewlines::Normalize, BareNewlines::Pass] {
        let whole = scanned(mode, input, input.len().max(1));
        let cut = scanned(mode, input, size);
        assert_eq!(whole, cut, "the same however it is cut");
        let (sent, end, findings) = whole;
        match mode {
            BareNewlines::Normalize => strict(&sent, end.is_some()),
            _ => assert!(input.starts_with(&sent), "relayed as it came"),
        }
        if findings == Findings::default() {
            assert!(input.starts_with(&sent), "clean mail is not touched");
        }
    }
}

fn scanned(mode: BareNewlines, input: &[u8], size: usize) -> (Vec<u8>, Option<usize>, Findings) {
    let mut scanner = DataScanner::new(mode);
    let mut sent = Vec::new();
    for (number, chunk) in input.chunks(size).enumerate() {
        if let Some(end) = scanner.scan(chunk, |piece| append(&mut sent, chunk, piece)) {
            return (sent, Some(number * size + end), scanner.findings());
        }
    }
    (sent, None, scanner.findings())
}

fn append(sent: &mut Vec<u8>, input: &[u8], piece: Piece) {
    match piece {
        Piece::Input(range) => sent.extend_from_slice(&input[range]),
        Piece::Insert(bytes) => sent.extend_from_slice(bytes),
    }
}

/// Normalised content has no bare newline, and its end once, at the end.
fn strict(sent: &[u8], ended: bool) {
    for (at, octet) in sent.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(sent.get(at + 1), Some(&b'\n'), "a bare CR"),
            b'\n' => assert!(at > 0 && sent[at - 1] == b'\r', "a bare LF"),
            _ => {}
        }
    }
    let with_start = [b"\r\n", sent].concat();
    let end = with_start.windows(5).position(|five| five == b"\r\n.\r\n");
    let expected = ended.then(|| with_start.len() - 5);
    assert_eq!(end, expected, "one end, and at the end");
}

/// A session: the first octet chooses the options, then each line is `C…`, `S…` (said with CRLF), `c…`, `s…` (without),
/// `x` (the client closes), `y` (upstream does), `t` (time), `d` (drain), `a` (abort).
pub(crate) fn engine(input: &[u8]) {
    let Some((&options, script)) = input.split_first() else {
        return;
    };
    let mut profile = Profile { xclient: options & 1 != 0, ..Profile::default() };
    if options & 2 != 0 {
        profile.smtp.pregreet = Pregreet::Reject;
    }
    profile.smtp.bare_newlines = match options >> 2 & 3 {
        0 | 3 => BareNewlines::Normalize,
        1 => BareNewlines::Reject,
        _ => BareNewlines::Pass,
    };
    let (client, server) = ("[2001:db8::1]:4000", "[2001:db8::2]:25");
    let splice = options & 16 != 0;
    let mut driver = Driver::new(profile, Timeouts::RFC_5321, client, server, splice);
    let (mut accepted_by_upstream, mut client_closed, mut upstream_closed) = (0, false, false);
    for line in script.split(|&b| b == b'\n') {
        let Some((&what, text)) = line.split_first() else {
            continue;
        };
        let mut bytes = unescaped(text);
        match what {
            b'C' | b'S' => bytes.extend(b"\r\n"),
            _ => {}
        }
        match what {
            b'C' | b'c' if !client_closed => driver.client_says(&bytes),
            b'S' | b's' if !upstream_closed => {
                accepted_by_upstream += bytes.iter().filter(|&&b| b == b'2').count();
                driver.upstream_says(&bytes);
            }
            b'x' if !client_closed => {
                client_closed = true;
                driver.client_closes();
            }
            b'y' if !upstream_closed => {
                upstream_closed = true;
                driver.upstream_closes();
            }
            b't' => driver.wait(Duration::from_secs(100)),
            b'd' => driver.drain(),
            b'a' => driver.abort(Outcome::Shutdown),
            _ => {}
        }
    }
    driver.wait(Duration::from_secs(3600));
    assert!(driver.closed, "every session ends");
    let _ = driver.finish();
    let accepted = |event: &&Event| matches!(event, Event::Message { code: 200..300, .. });
    let accepted = driver.events.iter().filter(accepted).count();
    assert!(accepted <= accepted_by_upstream, "a 2xx that upstream did not give");
}

/// A recorded dialogue: the first octet chooses the options, then each line is `C…`, `S…` (said with CRLF), `c…`, `s…`
/// (without), `g…`, `h…` (so many octets of the client or the server are missing), `m` (the last text a hundred times),
/// `x`, `y` (that side closes).
pub(crate) fn session(input: &[u8]) {
    let Some((&options, script)) = input.split_first() else {
        return;
    };
    let mut profile = Profile::default();
    if options & 1 != 0 {
        profile.smtp.pregreet = Pregreet::Reject;
        profile.smtp.bare_newlines = BareNewlines::Reject;
        (profile.limits.commands, profile.limits.errors) = (10, 3);
    }
    let told = heard(script);
    let whole = witnessed(&profile, options & 2 != 0, &told);
    let single: Vec<Heard> = told.iter().flat_map(Heard::singly).collect();
    assert_eq!(witnessed(&profile, options & 2 != 0, &single), whole, "however it is cut");
}

enum Heard {
    Data(Side, Vec<u8>),
    Gap(Side, u64),
    Closed(Side),
}

impl Heard {
    fn singly(&self) -> Vec<Self> {
        match self {
            Self::Data(side, octets) => {
                octets.iter().map(|&b| Self::Data(*side, vec![b])).collect()
            }
            Self::Gap(side, length) => vec![Self::Gap(*side, *length)],
            Self::Closed(side) => vec![Self::Closed(*side)],
        }
    }
}

fn heard(script: &[u8]) -> Vec<Heard> {
    let mut told = Vec::new();
    for line in script.split(|&b| b == b'\n') {
        let Some((&what, text)) = line.split_first() else {
            continue;
        };
        let side = |of_client: u8| if what == of_client { Side::Client } else { Side::Server };
        match what {
            b'C' | b'S' => {
                told.push(Heard::Data(side(b'C'), [unescaped(text), b"\r\n".into()].concat()))
            }
            b'c' | b's' => told.push(Heard::Data(side(b'c'), unescaped(text))),
            b'g' | b'h' => {
                let length = std::str::from_utf8(text).ok().and_then(|n| n.parse().ok());
                told.push(Heard::Gap(side(b'g'), length.unwrap_or(1)));
            }
            b'm' => {
                if let Some(Heard::Data(side, octets)) = told.last()
                    && octets.len() <= 1000
                {
                    told.push(Heard::Data(*side, octets.repeat(100)));
                }
            }
            b'x' | b'y' => told.push(Heard::Closed(side(b'x'))),
            _ => {}
        }
    }
    told
}

fn witnessed(profile: &Profile, midstream: bool, told: &[Heard]) -> SessionRecord {
    let client = ClientAddr::new("[2001:db8::1]:4000".parse().unwrap());
    let server = OriginalDst::new("[2001:db8::2]:25".parse().unwrap());
    let profile = profile.clone().into();
    let mut witness = Witness::new(profile, client, server, driver::START, midstream);
    let mut out = Output::default();
    let mut said = 0;
    for heard in told {
        match heard {
            Heard::Data(side, octets) => {
                said += octets.len();
                witness.data(*side, octets, driver::START, &mut out);
            }
            Heard::Gap(side, length) => witness.gap(*side, *length, driver::START, &mut out),
            Heard::Closed(side) => witness.closed(*side, driver::START, &mut out),
        }
        assert!(out.actions.is_empty(), "a witness says nothing");
        assert!(witness.held() <= said.min(256 << 10), "memory is bounded");
        out.clear();
    }
    let mut record = witness.finish(TcpFacts::default(), driver::START, &mut out);
    record.smtp.anomalies.sort_unstable();
    record
}

/// `\r`, `\n` and `\0` as in Rust, so that seeds can be read.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (b'\\', Some(b'r')) => out.push(b'\r'),
            (b'\\', Some(b'n')) => out.push(b'\n'),
            (b'\\', Some(b'0')) => out.push(0),
            _ => {
                out.push(byte);
                continue;
            }
        }
        bytes.next();
    }
    out
}
