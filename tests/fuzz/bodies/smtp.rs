//! The SMTP parsers: lines, replies, messages.

use gatepost::engine::BareNewlines;
use gatepost::smtp::{
    Command, DataScanner, EnhancedCode, EnvelopeArgument, Extensions, Junk, Line, PathKind, Piece,
    Reply, ReplyParse, ScanFindings, Split, normalized,
};

/// A line of a client.
pub(crate) fn command(input: &[u8]) {
    let _ = Junk::recognise(input);
    let Split::Line(line) = Line::split(input, 2048) else {
        return;
    };
    assert!(line.len() <= input.len().min(2048));
    let mut sent = Vec::new();
    normalized(line, |piece| append(&mut sent, input, piece));
    // The relayed line is one line for every parser, and parses to the same command.
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

/// The argument of MAIL or RCPT: its first octet chooses which, unless it is the keyword's.
pub(crate) fn path(input: &[u8]) {
    let (kind, verb) = match input.first() {
        Some(b'F' | b'f') => (PathKind::Reverse, "MAIL "),
        _ => (PathKind::Forward, "RCPT "),
    };
    let Ok(read) = EnvelopeArgument::parse(kind, input) else {
        return;
    };
    assert_eq!(&input[read.mailbox_range()], read.mailbox().as_bytes());
    // There is one spelling, and it has one reading.
    let canonical = read.canonical();
    assert!(!canonical.contains(char::is_control));
    let argument = canonical.strip_prefix(verb).expect("the verb");
    let again = EnvelopeArgument::parse(kind, argument.as_bytes()).expect("the canonical form");
    assert_eq!((again.canonical(), again.mailbox()), (canonical.clone(), read.mailbox()));
    assert!(again.parameters().eq(read.parameters()));
    let (_, inside) = argument.split_once('<').expect("a bracket");
    assert!(inside.starts_with(&format!("{}>", read.mailbox())));
    if let Some((local, domain)) = read.mailbox().rsplit_once('@')
        && read.rerouting().is_none()
    {
        assert!(!local.contains(['%', '!', '@']), "{canonical}");
        assert!(domain.contains(['.', '[']), "{canonical}");
    }
}

/// Upstream's replies, complete and truncated.
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
    let cleaned = reply.cleaned().unwrap_or_else(|| reply.raw.to_vec());
    let ReplyParse::Complete(clean) = Reply::parse(&cleaned) else {
        panic!("the cleaned reply is none");
    };
    assert_eq!((clean.raw, clean.code, clean.cleaned()), (&cleaned[..], reply.code, None));
    assert!(
        !cleaned.contains(&0)
            && !String::from_utf8_lossy(&cleaned).replace("\r\n", "").contains(['\r', '\n'])
    );
    let (_, filtered) = Extensions::filter(&reply, |_| false, true, &[]);
    let ReplyParse::Complete(again) = Reply::parse(&filtered) else {
        panic!("the filtered reply does not parse");
    };
    assert_eq!((again.raw.len(), again.code), (filtered.len(), 250));
}

/// A message: the first octet chooses the size of its parts.
pub(crate) fn data(input: &[u8]) {
    let Some((&size, input)) = input.split_first() else {
        return;
    };
    let size = usize::from(size).max(1);
    for mode in [BareNewlines::Normalize, BareNewlines::Pass] {
        let whole = scanned(mode, input, input.len().max(1));
        let cut = scanned(mode, input, size);
        assert_eq!(whole, cut, "the segmentation does not matter");
        let (sent, end, findings) = whole;
        match mode {
            BareNewlines::Normalize => strict(&sent, end.is_some()),
            _ => assert!(input.starts_with(&sent), "relayed unchanged"),
        }
        if findings == ScanFindings::default() {
            assert!(input.starts_with(&sent), "clean mail is not changed");
        }
    }
}

fn scanned(
    mode: BareNewlines,
    input: &[u8],
    size: usize,
) -> (Vec<u8>, Option<usize>, ScanFindings) {
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

/// Normalized content has no bare newline, and one end of data, at its end.
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
