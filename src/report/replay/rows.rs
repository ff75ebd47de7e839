//! Rows of sessions, one line each: of a replay's table and of what is watched.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anstyle::Style;

use super::words::{clock, count, duration, ending, not_connected};
use super::{PLAIN, RED, YELLOW};
use crate::addr::Family;
use crate::engine::{Endpoint, SessionRecord, TlsState, TransactionRecord};
use crate::policy::PolicyAction;
use crate::report::columns::{cells, width};
use crate::report::escape::{Place, fitted};
use crate::report::text::refused;
use crate::time::Timestamp;

/// Milliseconds are the last four.
const START: usize = 12;
const SECONDS: usize = 8;
const FAMILY: usize = 4;
const TOOK: usize = 6;
const VERDICT: usize = 8;
/// The least that is left to what happened, where addresses are long and the line is not short.
const MIN_WHAT: usize = 30;
/// A line of fewer columns says only what matters most.
const NARROW: usize = 90;
/// Columns of a HELO that are kept.
const HELO: usize = 40;
/// The port that goes without saying.
const SMTP: u16 = 25;
const ROUTE: &str = "CLIENT → SERVER";

#[derive(Clone, Debug)]
pub(in crate::report) struct Row {
    pub(super) start: Timestamp,
    family: Family,
    client: Endpoint,
    server: Endpoint,
    what: Phrase,
    took: Duration,
    pub(super) verdict: Option<PolicyAction>,
    trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Some,
    Failed,
}

/// `quit, a.example, TLS, mail 1/1 250`
#[derive(Clone, Debug)]
struct Phrase {
    ending: String,
    helo: Option<String>,
    rest: String,
}

impl Row {
    /// `judged`: a policy was applied, so that the verdict means something.
    pub(in crate::report) fn of(record: &SessionRecord, judged: bool) -> Self {
        let code = significant_code(record);
        let trouble = if not_connected(record) || code.is_some_and(|(code, _)| refused(code)) {
            Trouble::Failed
        } else if record.smtp.anomalies.is_empty() {
            Trouble::None
        } else {
            Trouble::Some
        };
        Self {
            start: record.start,
            family: record.family,
            client: record.client,
            server: record.server,
            what: Phrase::of(record),
            took: record.duration,
            verdict: judged.then_some(record.verdict.action),
            trouble,
        }
    }

    fn route_width(&self) -> usize {
        endpoint(self.client.address, None).len()
            + " → ".chars().count()
            + endpoint(self.server.address, self.other_port()).len()
    }

    fn other_port(&self) -> Option<u16> {
        Some(self.server.port).filter(|&port| port != SMTP)
    }
}

/// Where the columns of a line stand.
pub(in crate::report) struct Layout {
    /// Of the longest number.
    number: usize,
    route: usize,
    what: usize,
    /// There is room for everything.
    wide: bool,
    judged: bool,
    addresses: Addresses,
}

impl Layout {
    /// For these rows in lines of `columns`; `last` is the highest number.
    pub(in crate::report) fn new<'a>(
        rows: impl Iterator<Item = &'a Row> + Clone,
        last: u64,
        columns: usize,
    ) -> Self {
        let judged = rows.clone().any(|row| row.verdict.is_some());
        let mut layout = Self::fixed(last, columns, judged);
        let room = layout.route + layout.what;
        let route = rows.clone().map(Row::route_width).max().unwrap_or(0).max(width(ROUTE));
        let what = rows.map(|row| row.what.width()).max().unwrap_or(0);
        let least = MIN_WHAT.min(room / 2);
        let what = what.min(room.saturating_sub(route)).max(what.min(least)).max(13);
        layout.route = route.min(room.saturating_sub(what));
        layout.what = room.saturating_sub(layout.route);
        layout
    }

    /// For rows that are not known yet: addresses and what happened get the same room.
    pub(in crate::report) fn fixed(last: u64, columns: usize, judged: bool) -> Self {
        let number = last.to_string().len().max(2);
        let wide = columns >= NARROW;
        let others = match wide {
            true => number + START + FAMILY + TOOK + 5 + if judged { VERDICT + 1 } else { 0 },
            false => number + SECONDS + 3,
        };
        let room = columns.saturating_sub(others);
        let route = room / 2;
        Self { number, route, what: room - route, wide, judged, addresses: Addresses::default() }
    }

    pub(in crate::report) fn head(&self) -> String {
        let start = if self.wide { "START (UTC)" } else { "START" };
        self.line(["#", start, "IP", ROUTE, "WHAT HAPPENED", "TOOK", "VERDICT"].map(str::to_owned))
    }

    pub(in crate::report) fn row(&mut self, number: u64, row: &Row) -> (Style, String) {
        let verdict = row.verdict.map_or_else(String::new, |action| action.to_string());
        let route = self.addresses.route(row, self.route);
        let line = self.line([
            number.to_string(),
            clock(row.start),
            row.family.to_string(),
            route,
            row.what.fitted(self.what),
            duration(row.took),
            verdict,
        ]);
        let style = match row.trouble {
            Trouble::None => PLAIN,
            Trouble::Some => YELLOW,
            Trouble::Failed => RED,
        };
        (style, line)
    }

    fn line(&self, texts: [String; 7]) -> String {
        let [number, start, family, route, what, took, verdict] = texts;
        let number_columns = self.number;
        let number = format!("{number:>number_columns$}");
        let (route_columns, what_columns) = (self.route, self.what);
        if !self.wide {
            let start = start.chars().take(SECONDS).collect();
            let widths = [number_columns, SECONDS, route_columns, what_columns];
            return cells(&[number, start, route, what], widths).trim_end().to_owned();
        }
        let took = format!("{took:>TOOK$}");
        let verdict = if self.judged { verdict } else { String::new() };
        let widths = [number_columns, START, FAMILY, route_columns, what_columns, TOOK, VERDICT];
        cells(&[number, start, family, route, what, took, verdict], widths).trim_end().to_owned()
    }

    /// Where addresses of these rows look alike when shortened.
    pub(in crate::report) fn note(&self) -> Option<&'static str> {
        let note =
            "~1, ~2: addresses that look like others when shortened; --format json has them whole";
        (!self.addresses.marked.is_empty()).then_some(note)
    }
}

fn endpoint(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

/// Addresses of the table; two that are not the same never look the same.
#[derive(Default)]
struct Addresses {
    /// Whose short form it is: the first one's.
    shortened: HashMap<String, IpAddr>,
    /// The others, by number.
    marked: HashMap<IpAddr, usize>,
}

impl Addresses {
    fn route(&mut self, row: &Row, columns: usize) -> String {
        let columns = columns.saturating_sub(" → ".chars().count());
        let client = endpoint(row.client.address, None);
        let server = endpoint(row.server.address, row.other_port());
        // Half each, and what one does not need is the other's.
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

/// The middle left out: what comes first tells the network, what comes last the host.
fn shortened(text: &str, columns: usize) -> String {
    let kept = columns.saturating_sub(1);
    let tail = kept / 2;
    let head: String = text.chars().take(kept - tail).collect();
    let tail: String = text.chars().skip(text.chars().count().saturating_sub(tail)).collect();
    format!("{head}…{tail}")
}

impl Phrase {
    fn of(record: &SessionRecord) -> Self {
        let smtp = &record.smtp;
        let mut ending = ending(record).to_owned();
        let syns = record.tcp.syns.filter(|&syns| syns > 1 && not_connected(record));
        if let Some(syns) = syns {
            ending = format!("{ending}, {} sent", count(u64::from(syns)));
        }
        let mut rest = String::new();
        match smtp.tls {
            TlsState::Started => rest.push_str(", TLS"),
            TlsState::Refused => rest.push_str(", TLS refused"),
            TlsState::None | TlsState::Offered => {}
        }
        if smtp.transactions_total > 0 {
            let accepted = smtp.transactions.iter().filter(|transaction| is_accepted(transaction));
            let (accepted, total) = (accepted.count() as u64, smtp.transactions_total);
            rest.push_str(&format!(", mail {}/{}", count(accepted), count(total)));
        }
        if let Some((code, enhanced)) = significant_code(record) {
            // Else it is not the mail's.
            rest.push_str(if smtp.transactions.iter().any(is_decided) { " " } else { ", " });
            rest.push_str(&code.to_string());
            if let Some(enhanced) = enhanced {
                rest.push(' ');
                rest.push_str(&enhanced);
            }
        }
        let helo = smtp.helo.as_deref().filter(|helo| !helo.is_empty());
        let helo = helo.map(|helo| fitted(helo, Place::Word, HELO));
        Self { ending, helo, rest }
    }

    fn width(&self) -> usize {
        let helo = self.helo.as_deref().map_or(0, |helo| 2 + width(helo));
        width(&self.ending) + helo + width(&self.rest)
    }

    /// The HELO is cut first.
    fn fitted(&self, columns: usize) -> String {
        let Self { ending, helo, rest } = self;
        let left = columns.saturating_sub(width(ending) + width(rest) + 2);
        match helo.as_deref() {
            Some(helo) if width(helo) <= left => format!("{ending}, {helo}{rest}"),
            // It is escaped already, so the cut may fall within an escape; that it was cut is shown.
            Some(helo) if left > 1 => {
                format!("{ending}, {}{rest}", cells(&[helo.to_owned()], [left]).trim_end())
            }
            _ => format!("{ending}{rest}"),
        }
    }
}

pub(super) fn is_decided(transaction: &TransactionRecord) -> bool {
    transaction.deciding_code().is_some()
}

pub(super) fn is_accepted(transaction: &TransactionRecord) -> bool {
    transaction.deciding_code().is_some_and(|code| !refused(code))
}

/// The reply that says how it went: of the last transaction that was decided, else of the greeting or another refusal;
/// with the enhanced code of a recipient, where it has one.
pub(super) fn significant_code(record: &SessionRecord) -> Option<(u16, Option<String>)> {
    let smtp = &record.smtp;
    let last = smtp.transactions.iter().rev();
    let decided = last.filter_map(|transaction| {
        let code = transaction.deciding_code()?;
        let mut recipients = transaction.rcpt_to.iter().rev();
        let same = recipients.find(|to| transaction.data_code.is_none() && to.code == Some(code));
        Some((code, same.and_then(|to| to.enhanced).map(|enhanced| enhanced.to_string())))
    });
    let refusal = || {
        let greeting = smtp.greeting.filter(|&code| refused(code));
        greeting.or_else(|| smtp.replies.keys().copied().find(|&code| refused(code)))
    };
    decided.into_iter().next().or_else(|| Some((refusal()?, None)))
}
