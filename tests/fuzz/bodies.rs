//! What each fuzz target does with its input. `tests/fuzz_seeds.rs` runs the same over the seed corpus.

#![allow(dead_code, reason = "each target uses one of them")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a finding is a panic")]

#[path = "../engine/driver.rs"]
mod driver;

use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use gatepost::addr::Family;
use gatepost::engine::{BareNewlines, Event, Outcome, Pregreet, Profile, Timeouts};
use gatepost::policy::facts::{Answer, DomainName, Lookup, Record};
use gatepost::reach::Capture;
use gatepost::smtp::{
    Command, DataScanner, EnhancedCode, Extensions, Findings, Junk, Line, Piece, Reply, ReplyParse,
    Split, pieces,
};
use gatepost::source::{CaptureFile, MAX_PACKET, PacketSource, Writer};
use gatepost::time::Timestamp;
use gatepost::wire::{Decoded, Decoder, LinkType, Packet};

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

/// Packets: the first octet chooses the link type. Each packet is two octets of length, one of what was not captured (in
/// units of 8 octets; 0x80 adds 40 s to the time), and its octets.
pub(crate) fn wire(input: &[u8]) {
    const LINKS: [u16; 6] = [1, 0, 101, 113, 276, 105];
    let Some((&link, mut rest)) = input.split_first() else {
        return;
    };
    let link = LinkType::from_number(LINKS[usize::from(link) % LINKS.len()]);
    let (mut decoder, mut at) = (Decoder::new(), Timestamp::default());
    while let [high, low, beyond, octets @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(octets.len());
        let (octets, after) = octets.split_at(len);
        rest = after;
        at = at + Duration::from_secs(u64::from(beyond >> 7) * 40);
        let wire_len = u32::try_from(len).unwrap() + u32::from(beyond & 0x7f) * 8;
        match decoder.decode(&Packet { at, link, octets, wire_len }) {
            Decoded::Tcp(segment) => assert!(segment.payload.len() <= segment.len as usize),
            Decoded::Udp(datagram) => assert!(datagram.payload.len() <= 65_535),
            _ => {}
        }
    }
}

/// A capture file: the same however it comes, and what was read can be written and read.
pub(crate) fn file(input: &[u8]) {
    let (read, error) = packets(input, usize::MAX);
    if !input.starts_with(&[0x1f, 0x8b]) {
        assert_eq!(packets(input, 5), (read.clone(), error));
    }
    let mut writer = Writer::new(Vec::new(), LinkType::Raw, 0, "").unwrap();
    for (at, octets, wire_len) in &read {
        writer.packet(*at, octets, *wire_len, None).unwrap();
    }
    assert_eq!(packets(&writer.finish().unwrap(), usize::MAX), (read, None));
}

type Captured = (Timestamp, Vec<u8>, u32);

struct Pieces<'a> {
    rest: &'a [u8],
    at_a_time: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = into.len().min(self.at_a_time);
        self.rest.read(&mut into[..count])
    }
}

/// The packets of `input`, which gives so many octets at a time, and what was wrong.
fn packets(input: &[u8], at_a_time: usize) -> (Vec<Captured>, Option<String>) {
    let reader = Pieces { rest: input, at_a_time };
    let mut file = match CaptureFile::from_reader(Path::new("a"), reader, input.len() as u64) {
        Ok(file) => file,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let mut read = Vec::new();
    let error = loop {
        match file.next() {
            Ok(Some(packet)) => read.push((packet.at, packet.octets.to_vec(), packet.wire_len)),
            Ok(None) => break None,
            Err(error) => break Some(error.to_string()),
        }
    };
    assert!(matches!(file.next(), Ok(None)), "an error is said once");
    assert!(read.iter().all(|(_, octets, wire_len)| {
        octets.len() <= MAX_PACKET as usize && *wire_len as usize >= octets.len()
    }));
    (read, error)

/// DNS responses, each after two octets of length (as over TCP), to a capture with little room.
pub(crate) fn dns(input: &[u8]) {
    let mut capture = Capture::with_limit(2048);
    let (mut rest, mut nanos) = (input, 0);
    while let Some((&[high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        capture.message(&after[..length], Timestamp::from_nanos(nanos));
        (rest, nanos) = (&after[length..], nanos + 1);
    }
    let client = "2001:db8::25".parse().unwrap();
    for name in ["a.example", "mx.a.example"].map(|name| DomainName::parse(name).unwrap()) {
        for lookup in [
            Lookup::Reverse(client),
            Lookup::MailExchanges(name.clone()),
            Lookup::Addresses(name.clone(), Family::Ipv4),
            Lookup::Addresses(name, Family::Ipv6),
        ] {
            let Answer::Records(records) = capture.answer(&lookup, Timestamp::from_nanos(nanos))
            else {
                continue;
            };
            assert!(!records.is_empty());
            let asked_for = |record: &Record| match (&lookup, record) {
                (Lookup::Reverse(_), Record::Name(_)) => true,
                (Lookup::MailExchanges(_), Record::Exchange { .. }) => true,
                (Lookup::Addresses(_, family), Record::Address(ip)) => {
                    ip.is_ipv4() == (*family == Family::Ipv4)
                }
                _ => false,
            };
            assert!(records.iter().all(asked_for), "{lookup:?}: {records:?}");
        }
    }
    assert!(capture.server_names().of(client).count() <= 64);
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
