//! One session as it was said: a line each, with its time and direction.

use std::io::{self, Write};

use super::words::{count, duration, ending, file, has_smtp, reason, several, side};
use super::{BOLD, DIM, NAME, NumberedSession, PLAIN, Page, YELLOW};
use crate::addr::Side;
use crate::engine::{Endpoint, TlsState, TranscriptEntry, TranscriptItem};
use crate::policy::facts::{Fact, FactState, Reason, Source};
use crate::report::columns::{WIDTH, width};
use crate::report::escape::{Place, fitted, verbatim};
use crate::time::Timestamp;

/// Lines of the terminal that one line of the dialogue may take.
const MAX_LINES: usize = 5;
/// Columns before what was said: `+1234.567  C: `.
const MARGIN: usize = 14;

/// Writes what is known of a session, then what was said, line by line.
///
/// # Errors
/// Those of `out`.
pub fn dialogue(
    told: &NumberedSession<'_>,
    said: &[TranscriptEntry],
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let page = &mut Page { out, colour };
    head(told, page)?;
    let mut reader = Reader { start: told.record.start, asked_for_secret: false, any: false };
    for same in said.chunk_by(|a, b| a.from == b.from && is_elided(a) && is_elided(b)) {
        reader.write(same, page)?;
    }
    if !reader.any {
        page.line(PLAIN, "Nothing was said.")?;
    }
    Ok(())
}

fn head(told: &NumberedSession<'_>, page: &mut Page<'_>) -> io::Result<()> {
    let record = told.record;
    let (tcp, smtp) = (&record.tcp, &record.smtp);
    let ends = [record.client, record.server].map(|Endpoint { address, port }| {
        let text = address.to_string();
        format!("{text} port {port}")
    });
    let [client, server] = ends;
    page.say(BOLD, &format!("#{} {}: {client} → {server}", told.number, record.family))?;
    page.say(PLAIN, &format!("    {}", file(told.file)))?;
    page.say(
        PLAIN,
        &format!("from {}, {}: {}", record.start, duration(record.duration), ending(record)),
    )?;

    let mut path = Vec::new();
    if let Some(handshake) = tcp.handshake {
        path.push(format!("handshake {}", duration(handshake)));
    }
    path.push(format!("{} of the client", several(tcp.client_bytes, "octet")));
    path.push(format!("{} of the server", several(tcp.server_bytes, "octet")));
    for (n, what) in
        [(tcp.retransmits, "retransmit"), (tcp.icmp_errors, "ICMP error"), (tcp.gaps, "piece")]
    {
        if let Some(n) = n.filter(|&n| n > 0) {
            let lost = if what == "piece" { " lost by the capture" } else { "" };
            path.push(format!("{}{lost}", several(n, what)));
        }
    }
    if let Some(mtu) = tcp.path_mtu {
        path.push(format!("path MTU {}", count(u64::from(mtu))));
    }
    if tcp.black_hole == Some(true) {
        path.push("black hole suspected".to_owned());
    }
    if let Some(by) = tcp.closed_by {
        path.push(format!("closed by the {}", side(by)));
    }
    page.say(PLAIN, &path.join(", "))?;

    if has_smtp(record) {
        let tls = match smtp.tls {
            TlsState::None => "STARTTLS not offered",
            TlsState::Offered => "STARTTLS offered and not used",
            TlsState::Started => "STARTTLS started",
            TlsState::Refused => "STARTTLS refused",
        };
        let helo = smtp.helo.as_deref().map_or_else(
            || "no HELO".to_owned(),
            |helo| match fitted(helo, Place::Word, NAME) {
                name if name.is_empty() => "HELO without a name".to_owned(),
                name => format!("HELO {name}"),
            },
        );
        let messages = several(smtp.transactions_total, "transaction");
        page.say(PLAIN, &format!("{helo}, {tls}, {messages}"))?;
    }
    if told.policy_applied {
        let verdict = &record.verdict;
        let mut line = format!("verdict {}", verdict.action);
        let reason = verdict.reason.as_deref().map(reason);
        for (what, said) in [(" by rule", &verdict.rule), (" for", &reason)] {
            if let Some(said) = said {
                line.push_str(&format!("{what} \"{}\"", fitted(said, Place::Quoted, 160)));
            }
        }
        page.say(PLAIN, &line)?;
    }
    if let Some(facts) = &record.facts {
        for (name, fact) in facts.named() {
            page.say(PLAIN, &format!("{name}: {}", told_fact(fact)))?;
        }
    }
    page.line(PLAIN, "")
}

/// `yes, mx.a.example (capture)`.
fn told_fact(fact: &Fact) -> String {
    let mut line = match fact.state {
        FactState::True => "yes".to_owned(),
        FactState::False => "no".to_owned(),
        FactState::Unknown => "not known".to_owned(),
    };
    let detail = fact.detail.as_ref().map(ToString::to_string);
    for said in [fact.reason.map(Reason::as_str), detail.as_deref()].into_iter().flatten() {
        line.push_str(&format!(", {}", fitted(said, Place::Sentence, 160)));
    }
    if fact.source != Source::None {
        line.push_str(&format!(" ({})", fact.source.as_str()));
    }
    line
}

struct Reader {
    start: Timestamp,
    /// The server said 334: what the client says next is a user's name or password (RFC 4954).
    asked_for_secret: bool,
    any: bool,
}

impl Reader {
    /// One thing that was said, or several of one side that are told by their length.
    fn write(&mut self, said: &[TranscriptEntry], page: &mut Page<'_>) -> io::Result<()> {
        let Some(TranscriptEntry { at, from, item: what }) = said.first() else {
            return Ok(());
        };
        self.any = true;
        let offset = at.since(self.start);
        let time = format!("+{}.{:03}", offset.as_secs(), offset.subsec_millis());
        let who = match from {
            Side::Client => "C:",
            Side::Server => "S:",
        };
        let octets = || several(said.iter().map(|said| said.item.len()).sum(), "octet");
        let mut row =
            |style, who: &str, text: &str| page.line(style, &format!("{time:>9}  {who} {text}"));
        match what {
            TranscriptItem::Line(lines) => {
                for line in lines.split_inclusive(|&b| b == b'\n') {
                    let line = line.strip_suffix(b"\n").unwrap_or(line);
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    self.line(&time, who, *from, line, page)?;
                }
                Ok(())
            }
            TranscriptItem::Content(_) | TranscriptItem::Omitted(_) => {
                row(DIM, who, &format!("… {} of message", octets()))
            }
            TranscriptItem::Encrypted(_) => row(DIM, who, &format!("… {} encrypted", octets())),
            TranscriptItem::Gap(_) => {
                let who_lost = side(*from);
                row(YELLOW, "--", &format!("the capture lost {} of the {who_lost}", octets()))
            }
            TranscriptItem::Closed => row(DIM, "--", &format!("the {} closes", side(*from))),
        }
    }

    fn line(
        &mut self,
        time: &str,
        who: &str,
        from: Side,
        line: &[u8],
        page: &mut Page<'_>,
    ) -> io::Result<()> {
        let secret = match from {
            Side::Server => {
                self.asked_for_secret = line.starts_with(b"334");
                None
            }
            Side::Client if std::mem::take(&mut self.asked_for_secret) => Some(0),
            Side::Client => initial_response(line),
        };
        // Time and direction take more room only after some hours.
        let margin = MARGIN.max(time.len() + 5);
        let room = WIDTH - margin;
        let shown = secret.and_then(|at| line.get(..at)).unwrap_or(line);
        let (text, read) = verbatim(shown, MAX_LINES * room);
        let (mut lines, rest) = broken(&text, room);
        if !rest.is_empty() || read < shown.len() {
            // Escapes are longer than what they stand for: what is left is told in octets of the whole.
            let all = several(shown.len() as u64, "octet");
            lines.push(format!("… cut; the line has {all}"));
        }
        if let Some(at) = secret.filter(|&at| at < line.len()) {
            let hidden = several((line.len() - at) as u64, "octet");
            let note = format!("… {hidden} of credentials");
            match lines.last_mut() {
                Some(last) if width(last) + width(&note) <= room => last.push_str(&note),
                _ => lines.push(note),
            }
        }
        for (i, text) in lines.iter().enumerate() {
            if i == 0 {
                page.line(PLAIN, &format!("{time:>9}  {who} {text}"))?;
            } else {
                page.line(PLAIN, &format!("{:margin$}{text}", ""))?;
            }
        }
        Ok(())
    }
}

/// NumberedSession by its length.
fn is_elided(said: &TranscriptEntry) -> bool {
    matches!(
        said.item,
        TranscriptItem::Content(_) | TranscriptItem::Omitted(_) | TranscriptItem::Encrypted(_)
    )
}

/// Where the secret of `AUTH PLAIN secret` begins.
fn initial_response(line: &[u8]) -> Option<usize> {
    let verb = line.get(..4)?;
    if !verb.eq_ignore_ascii_case(b"AUTH") {
        return None;
    }
    let is_space = |b: &u8| *b == b' ' || *b == b'\t';
    let words = line.get(4..)?;
    let mechanism = 4 + words.iter().position(|b| !is_space(b))?;
    let end = mechanism + line.get(mechanism..)?.iter().position(is_space)?;
    Some(end + 1)
}

/// At most [`MAX_LINES`] lines of `columns`, and what is left. No escape of [`verbatim`] spans two lines unless it is
/// longer than one.
fn broken(text: &str, columns: usize) -> (Vec<String>, &str) {
    let mut lines = vec![String::new()];
    let (mut rest, mut used) = (text, 0);
    while !rest.is_empty() {
        let end = escape_end(rest);
        let (piece, after) = rest.split_at(end);
        let needed = width(piece);
        if used + needed > columns && used > 0 {
            if lines.len() == MAX_LINES {
                break;
            }
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(piece);
        }
        used += needed;
        rest = after;
    }
    (lines, rest)
}

/// Octets of the character, or of the escape, that `text` starts with.
fn escape_end(text: &str) -> usize {
    let first = text.chars().next().map_or(0, char::len_utf8);
    let end = if text.starts_with("\\x") {
        4
    } else if text.starts_with("\\u{") {
        text.find('}').map_or(first, |at| at + 1)
    } else if text.starts_with("\\\\") {
        2
    } else {
        first
    };
    if text.is_char_boundary(end) { end } else { first }
}
