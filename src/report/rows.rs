//! Sessions as rows of a table, for `replay` and `watch`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anstyle::Style;

use super::columns::{cells, width};
use super::escape::{EscapeContext, fitted};
use super::page::{PLAIN, RED, YELLOW};
use super::session::{SessionSummary, SignificantCode, is_unconnected};
use crate::addr::Family;
use crate::engine::{Endpoint, Outcome, SessionRecord, TlsState};
use crate::humanize::{clock_millis, count, short_duration};
use crate::policy::PolicyAction;
use crate::time::Timestamp;

/// `03:04:05.678`
const START: usize = 12;
/// `03:04:05`
const SECONDS: usize = 8;
const FAMILY: usize = 4;
const DURATION: usize = 6;
const VERDICT: usize = 8;
/// Minimum columns of the phrase, next to long addresses.
const MIN_PHRASE: usize = 30;
/// Lines of fewer columns have the most important columns only.
const NARROW: usize = 90;
/// Stored columns of a HELO.
const HELO: usize = 40;
/// The default port, not shown.
const SMTP: u16 = 25;
const ROUTE: &str = "CLIENT → SERVER";
const PHRASE: &str = "SUMMARY";

#[derive(Clone, Debug)]
pub(super) struct SessionTableRow {
    pub(super) start: Timestamp,
    family: Family,
    client: Endpoint,
    server: Endpoint,
    phrase: Phrase,
    duration: Duration,
    verdict: Option<PolicyAction>,
    severity: RowSeverity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RowSeverity {
    Normal,
    Anomalous,
    Failed,
}

/// `quit, a.example, TLS, mail 1/1 250`
#[derive(Clone, Debug)]
struct Phrase {
    ending: String,
    helo: Option<String>,
    rest: String,
}

impl SessionTableRow {
    /// Has a verdict only if a policy was applied.
    pub(super) fn new(record: &SessionRecord, policy_applied: bool) -> Self {
        let summary = SessionSummary::new(record);
        let refused = summary.code.is_some_and(SignificantCode::is_refusal);
        let failed = record.outcome == Outcome::TlsFailed;
        let severity = if is_unconnected(record) || refused || failed {
            RowSeverity::Failed
        } else if record.smtp.anomalies.is_empty() {
            RowSeverity::Normal
        } else {
            RowSeverity::Anomalous
        };
        Self {
            start: record.start,
            family: record.family,
            client: record.client,
            server: record.server,
            phrase: Phrase::new(record, &summary),
            duration: record.duration,
            verdict: policy_applied.then_some(record.verdict.action),
            severity,
        }
    }

    fn route_width(&self) -> usize {
        endpoint(self.client.address, None).len()
            + " → ".chars().count()
            + endpoint(self.server.address, self.unusual_port()).len()
    }

    fn unusual_port(&self) -> Option<u16> {
        Some(self.server.port).filter(|&port| port != SMTP)
    }
}

/// Column widths.
pub(super) struct TableLayout {
    /// Digits of the highest number.
    number: usize,
    route: usize,
    phrase: usize,
    /// All columns fit.
    wide: bool,
    has_verdicts: bool,
    addresses: ShortAddresses,
}

impl TableLayout {
    /// For these rows in lines of `columns`; `last` is the highest number.
    pub(super) fn new<'a>(
        rows: impl Iterator<Item = &'a SessionTableRow> + Clone,
        last: u64,
        columns: usize,
    ) -> Self {
        let has_verdicts = rows.clone().any(|row| row.verdict.is_some());
        let mut layout = Self::fixed(last, columns, has_verdicts);
        let room = layout.route + layout.phrase;
        let routes = rows.clone().map(SessionTableRow::route_width);
        let route = routes.max().unwrap_or(0).max(width(ROUTE));
        let phrase = rows.map(|row| row.phrase.width()).max().unwrap_or(0);
        let least = MIN_PHRASE.min(room / 2);
        let phrase =
            phrase.min(room.saturating_sub(route)).max(phrase.min(least)).max(width(PHRASE));
        layout.route = route.min(room.saturating_sub(phrase));
        layout.phrase = room.saturating_sub(layout.route);
        layout
    }

    /// For rows that are not known yet: addresses and phrase have the same width.
    pub(super) fn fixed(last: u64, columns: usize, has_verdicts: bool) -> Self {
        let number = last.to_string().len().max(2);
        let wide = columns >= NARROW;
        let others = match wide {
            true => {
                number + START + FAMILY + DURATION + 5 + if has_verdicts { VERDICT + 1 } else { 0 }
            }
            false => number + SECONDS + 3,
        };
        let room = columns.saturating_sub(others);
        let route = room / 2;
        let (phrase, addresses) = (room - route, ShortAddresses::default());
        Self { number, route, phrase, wide, has_verdicts, addresses }
    }

    pub(super) fn header(&self) -> String {
        let start = if self.wide { "START (UTC)" } else { "START" };
        self.line(["#", start, "IP", ROUTE, PHRASE, "TOOK", "VERDICT"].map(str::to_owned))
    }

    pub(super) fn row(&mut self, number: u64, row: &SessionTableRow) -> (Style, String) {
        let verdict = row.verdict.map_or_else(String::new, |action| action.to_string());
        let route = self.addresses.route(row, self.route);
        let line = self.line([
            number.to_string(),
            clock_millis(row.start),
            row.family.to_string(),
            route,
            row.phrase.fitted(self.phrase),
            short_duration(row.duration),
            verdict,
        ]);
        let style = match row.severity {
            RowSeverity::Normal => PLAIN,
            RowSeverity::Anomalous => YELLOW,
            RowSeverity::Failed => RED,
        };
        (style, line)
    }

    fn line(&self, texts: [String; 7]) -> String {
        let [number, start, family, route, phrase, duration, verdict] = texts;
        let number_columns = self.number;
        let number = format!("{number:>number_columns$}");
        let (route_columns, phrase_columns) = (self.route, self.phrase);
        if !self.wide {
            let start = start.chars().take(SECONDS).collect();
            let widths = [number_columns, SECONDS, route_columns, phrase_columns];
            return cells(&[number, start, route, phrase], widths).trim_end().to_owned();
        }
        let duration = format!("{duration:>DURATION$}");
        let verdict = if self.has_verdicts { verdict } else { String::new() };
        let widths =
            [number_columns, START, FAMILY, route_columns, phrase_columns, DURATION, VERDICT];
        cells(&[number, start, family, route, phrase, duration, verdict], widths)
            .trim_end()
            .to_owned()
    }

    /// A note if shortened addresses look alike.
    pub(super) fn note(&self) -> Option<&'static str> {
        let note = "~1, ~2: different addresses that look alike when shortened; see --format json";
        (!self.addresses.marked.is_empty()).then_some(note)
    }
}

fn endpoint(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// Shortened addresses of the table. Different addresses never look the same.
#[derive(Default)]
struct ShortAddresses {
    /// The first address with each short form.
    shortened: HashMap<String, IpAddr>,
    /// Marks of later addresses with the same short form.
    marked: HashMap<IpAddr, usize>,
}

impl ShortAddresses {
    fn route(&mut self, row: &SessionTableRow, columns: usize) -> String {
        let columns = columns.saturating_sub(" → ".chars().count());
        let client = endpoint(row.client.address, None);
        let server = endpoint(row.server.address, row.unusual_port());
        // Half each; unused columns go to the other one.
        let half = columns / 2;
        let for_client = client.len().min(half.max(columns.saturating_sub(server.len())));
        let for_server = columns - for_client;
        let client = self.fitted(row.client.address, client, for_client);
        let server = self.fitted(row.server.address, server, for_server);
        format!("{client} → {server}")
    }

    fn fitted(&mut self, address: IpAddr, text: String, columns: usize) -> String {
        if text.len() <= columns {
            return text;
        }
        let short = shortened(&text, columns);
        if *self.shortened.entry(short.clone()).or_insert(address) == address {
            return short;
        }
        let next = self.marked.len() + 1;
        let mark = format!("~{}", self.marked.entry(address).or_insert(next));
        format!("{}{mark}", shortened(&text, columns.saturating_sub(mark.len())))
    }
}

/// Without its middle: the start identifies the network, the end the host.
fn shortened(text: &str, columns: usize) -> String {
    let kept = columns.saturating_sub(1);
    let tail = kept / 2;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(text.chars().count().saturating_sub(tail)).collect();
    format!("{head}…{tail}")
}

impl Phrase {
    fn new(record: &SessionRecord, summary: &SessionSummary) -> Self {
        let smtp = &record.smtp;
        let mut ending = summary.ending.to_owned();
        let syns = record.tcp.syns.filter(|&syns| syns > 1 && is_unconnected(record));
        if let Some(syns) = syns {
            ending = format!("{ending}, {} sent", count(u64::from(syns)));
        }
        let mut rest = String::new();
        match smtp.tls {
            // The ending has it.
            _ if matches!(record.outcome, Outcome::TlsCompleted | Outcome::TlsFailed) => {}
            TlsState::Started | TlsState::Established => rest.push_str(", TLS"),
            TlsState::Failed => rest.push_str(", TLS failed"),
            TlsState::Refused => rest.push_str(", TLS refused"),
            TlsState::None | TlsState::Offered => {}
        }
        if smtp.transactions_total > 0 {
            let (accepted, total) = (summary.messages.accepted, smtp.transactions_total);
            rest.push_str(&format!(", mail {}/{}", count(accepted.into()), count(total)));
        }
        if let Some(code) = summary.code {
            // A comma separates a code that is not the mail's.
            rest.push_str(if summary.messages.any_decided() { " " } else { ", " });
            rest.push_str(&code.to_string());
        }
        let helo = smtp.helo.as_deref().filter(|helo| !helo.is_empty());
        let helo = helo.map(|helo| fitted(helo, EscapeContext::Word, HELO));
        Self { ending, helo, rest }
    }

    fn width(&self) -> usize {
        let helo = self.helo.as_deref().map_or(0, |helo| 2 + width(helo));
        width(&self.ending) + helo + width(&self.rest)
    }

    /// Truncates the HELO first.
    fn fitted(&self, columns: usize) -> String {
        let Self { ending, helo, rest } = self;
        let left = columns.saturating_sub(width(ending) + width(rest) + 2);
        match helo.as_deref() {
            Some(helo) if width(helo) <= left => format!("{ending}, {helo}{rest}"),
            // The HELO is already escaped, so this may truncate within an escape; the `…` shows it.
            Some(helo) if left > 1 => {
                format!("{ending}, {}{rest}", cells(&[helo.to_owned()], [left]).trim_end())
            }
            _ => format!("{ending}{rest}"),
        }
    }
}
