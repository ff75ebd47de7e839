//! The transcript of one session: one line per SMTP line, with time and direction.

use std::io::{self, Write};

use super::{NAME, NumberedSession};
use crate::addr::Side;
use crate::engine::{Endpoint, TlsState, TranscriptEntry, TranscriptItem};
use crate::humanize::{count, counted, duration, family};
use crate::policy::facts::{Fact, FactState, Reason, Source};
use crate::report::columns::{WIDTH, width};
use crate::report::escape::{EscapeContext, fitted, path_in_columns, verbatim};
use crate::report::page::{BOLD, DIM, PLAIN, Page, YELLOW};
use crate::report::session::has_smtp;
use crate::report::wording;
use crate::time::Timestamp;

/// Terminal lines of one transcript line.
const MAX_LINES: usize = 5;
/// Columns before the text: `+1234.567  C: `.
const MARGIN: usize = 14;
/// Columns of a rule name, a reason or a fact's detail.
const DETAIL: usize = 160;

/// Writes a summary of the session, then its transcript.
///
/// # Errors
/// Those of `out`.
pub fn transcript(
    session: &NumberedSession<'_>,
    entries: &[TranscriptEntry],
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let page = &mut Page { out, colour };
    write_head(session, page)?;
    let mut writer =
        TranscriptWriter { start: session.record.start, after_334: false, empty: true };
    let joins = |a: &TranscriptEntry, b: &TranscriptEntry| {
        a.from == b.from && has_length_only(a) && has_length_only(b)
    };
    for entries in entries.chunk_by(joins) {
        writer.write(entries, page)?;
    }
    if writer.empty {
        page.line(PLAIN, "No SMTP data.")?;
    }
    Ok(())
}

fn write_head(session: &NumberedSession<'_>, page: &mut Page<'_>) -> io::Result<()> {
    let record = session.record;
    let [client, server] = [record.client, record.server]
        .map(|Endpoint { address, port }| format!("{address} port {port}"));
    let (number, family) = (session.number, family(record.family));
    page.paragraph(BOLD, &format!("#{number} {family}: {client} → {server}"))?;
    page.paragraph(PLAIN, &format!("    {}", path_in_columns(session.file, NAME)))?;
    let (took, ending) = (duration(record.duration), wording::ending(record));
    page.paragraph(PLAIN, &format!("from {}, {took}: {ending}", record.start))?;
    page.paragraph(PLAIN, &tcp_summary(session))?;
    if has_smtp(record) {
        let smtp = &record.smtp;
        let tls = match smtp.tls {
            TlsState::None => "STARTTLS not offered",
            TlsState::Offered => "STARTTLS offered, not used",
            TlsState::Started => "STARTTLS started",
            TlsState::Refused => "STARTTLS refused",
            TlsState::Established => "TLS established",
            TlsState::Failed => "TLS failed",
        };
        let helo = smtp.helo.as_deref().map_or_else(
            || "no HELO".to_owned(),
            |helo| match fitted(helo, EscapeContext::Word, NAME) {
                name if name.is_empty() => "HELO without a name".to_owned(),
                name => format!("HELO {name}"),
            },
        );
        let transactions = counted(smtp.transactions_total, "transaction");
        page.paragraph(PLAIN, &format!("{helo}, {tls}, {transactions}"))?;
    }
    if session.policy_applied {
        let verdict = &record.verdict;
        let mut line = format!("verdict {}", verdict.action);
        let reason = verdict.reason.as_deref().map(wording::verdict_reason);
        for (before, text) in [(" by rule", &verdict.rule), (" for", &reason)] {
            if let Some(text) = text {
                let text = fitted(text, EscapeContext::Quoted, DETAIL);
                line.push_str(&format!("{before} \"{text}\""));
            }
        }
        page.paragraph(PLAIN, &line)?;
    }
    if let Some(facts) = &record.facts {
        for (name, fact) in facts.named() {
            page.paragraph(PLAIN, &format!("{name}: {}", fact_text(fact)))?;
        }
    }
    page.line(PLAIN, "")
}

/// `handshake 1.1 ms, 1,812 bytes from the client, 640 bytes from the server, closed by the client`
fn tcp_summary(session: &NumberedSession<'_>) -> String {
    let tcp = &session.record.tcp;
    let mut parts = Vec::new();
    if let Some(handshake) = tcp.handshake {
        parts.push(format!("handshake {}", duration(handshake)));
    }
    parts.push(format!("{} from the client", counted(tcp.client_bytes, "byte")));
    parts.push(format!("{} from the server", counted(tcp.server_bytes, "byte")));
    for (n, noun, after) in [
        (tcp.retransmits, "retransmission", ""),
        (tcp.icmp_errors, "ICMP error", ""),
        (tcp.gaps, "gap", " in the capture"),
    ] {
        if let Some(n) = n.filter(|&n| n > 0) {
            parts.push(format!("{}{after}", counted(n, noun)));
        }
    }
    if let Some(mtu) = tcp.path_mtu {
        parts.push(format!("path MTU {}", count(u64::from(mtu))));
    }
    if tcp.black_hole == Some(true) {
        parts.push("suspected path MTU black hole".to_owned());
    }
    if let Some(by) = tcp.closed_by {
        parts.push(format!("closed by the {}", wording::side(by)));
    }
    parts.join(", ")
}

/// `yes, mx.a.example (capture)`
fn fact_text(fact: &Fact) -> String {
    let mut line = match fact.state {
        FactState::True => "yes".to_owned(),
        FactState::False => "no".to_owned(),
        FactState::Unknown => "unknown".to_owned(),
    };
    let detail = fact.detail.as_ref().map(ToString::to_string);
    for text in [fact.reason.map(Reason::as_str), detail.as_deref()].into_iter().flatten() {
        line.push_str(&format!(", {}", fitted(text, EscapeContext::Sentence, DETAIL)));
    }
    if fact.source != Source::None {
        line.push_str(&format!(" ({})", fact.source.as_str()));
    }
    line
}

struct TranscriptWriter {
    start: Timestamp,
    /// The last reply was 334: the next client line is a user name or password (RFC 4954 §4).
    after_334: bool,
    empty: bool,
}

impl TranscriptWriter {
    /// One entry, or several of one side that are shown with their total length only.
    fn write(&mut self, entries: &[TranscriptEntry], page: &mut Page<'_>) -> io::Result<()> {
        let Some(TranscriptEntry { at, from, item: what }) = entries.first() else {
            return Ok(());
        };
        self.empty = false;
        let offset = at.since(self.start);
        let time = format!("+{}.{:03}", offset.as_secs(), offset.subsec_millis());
        let prefix = match from {
            Side::Client => "C:",
            Side::Server => "S:",
        };
        let side = wording::side(*from);
        let bytes = || counted(entries.iter().map(|entry| entry.item.len()).sum(), "byte");
        let mut row = |style, prefix: &str, text: &str| {
            page.line(style, &format!("{time:>9}  {prefix} {text}"))
        };
        match what {
            TranscriptItem::Line(lines) => {
                for line in lines.split_inclusive(|&b| b == b'\n') {
                    let line = line.strip_suffix(b"\n").unwrap_or(line);
                    let line = line.strip_suffix(b"\r").unwrap_or(line);
                    self.write_line(&time, *from, line, page)?;
                }
                Ok(())
            }
            TranscriptItem::Content(_) | TranscriptItem::Omitted(_) => {
                row(DIM, prefix, &format!("… {} of message", bytes()))
            }
            TranscriptItem::Encrypted(_) => row(DIM, prefix, &format!("… {} encrypted", bytes())),
            TranscriptItem::Gap(_) => {
                row(YELLOW, "--", &format!("gap in the capture: {} from the {side}", bytes()))
            }
            TranscriptItem::Closed => row(DIM, "--", &format!("the {side} closes")),
        }
    }

    fn write_line(
        &mut self,
        time: &str,
        from: Side,
        line: &[u8],
        page: &mut Page<'_>,
    ) -> io::Result<()> {
        let (prefix, secret) = match from {
            Side::Server => {
                self.after_334 = line.starts_with(b"334");
                ("S:", None)
            }
            Side::Client if std::mem::take(&mut self.after_334) => ("C:", Some(0)),
            Side::Client => ("C:", initial_response(line)),
        };
        // The time is wider only after some hours.
        let margin = MARGIN.max(time.len() + 5);
        let room = WIDTH - margin;
        let shown = secret.and_then(|at| line.get(..at)).unwrap_or(line);
        let (text, read) = verbatim(shown, MAX_LINES * room);
        let (mut lines, rest) = split_lines(&text, room);
        if !rest.is_empty() || read < shown.len() {
            let all = counted(shown.len() as u64, "byte");
            lines.push(format!("… truncated; the line has {all}"));
        }
        if let Some(at) = secret.filter(|&at| at < line.len()) {
            let hidden = counted((line.len() - at) as u64, "byte");
            let note = format!("… {hidden} of credentials");
            match lines.last_mut() {
                Some(last) if width(last) + width(&note) <= room => last.push_str(&note),
                _ => lines.push(note),
            }
        }
        for (i, text) in lines.iter().enumerate() {
            if i == 0 {
                page.line(PLAIN, &format!("{time:>9}  {prefix} {text}"))?;
            } else {
                page.line(PLAIN, &format!("{:margin$}{text}", ""))?;
            }
        }
        Ok(())
    }
}

/// Whether only its length is shown.
fn has_length_only(entry: &TranscriptEntry) -> bool {
    matches!(
        entry.item,
        TranscriptItem::Content(_) | TranscriptItem::Omitted(_) | TranscriptItem::Encrypted(_)
    )
}

/// Offset of the initial response of `AUTH PLAIN response` (RFC 4954 §4).
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

/// At most [`MAX_LINES`] lines of `columns`, and the rest. An escape of [`verbatim`] spans two lines only if it is longer than
/// one.
fn split_lines(text: &str, columns: usize) -> (Vec<String>, &str) {
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

/// Bytes of the character or escape at the start of `text`.
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
