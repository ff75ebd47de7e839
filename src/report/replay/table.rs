//! The table of sessions: one row each, in the order of their numbers.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::words::{clock, count, date, duration, ending, file as file_name, not_connected};
use super::{BOLD, DIM, PLAIN, Page, RED, Told, YELLOW};
use crate::addr::Family;
use crate::engine::{Endpoint, SessionRecord, Tls, TransactionRecord};
use crate::policy::Action;
use crate::report::columns::{WIDTH, cells, width};
use crate::report::escape::{Place, fitted};
use crate::report::text::{deciding_code, refused};
use crate::time::Timestamp;

/// Rows that are kept and shown; those of the lowest numbers.
const MAX_ROWS: usize = 1000;
const START: usize = 12;
const FAMILY: usize = 4;
const TOOK: usize = 6;
const VERDICT: usize = 8;
/// The least that is left to what happened, where addresses are long.
const MIN_WHAT: usize = 30;
/// Columns of a HELO that are kept.
const HELO: usize = 40;
/// The port that goes without saying.
const SMTP: u16 = 25;

#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<u64, Row>,
    /// In the order in which they were told.
    files: Vec<String>,
    unkept: u64,
}

#[derive(Debug)]
struct Row {
    file: usize,
    start: Timestamp,
    family: Family,
    client: Endpoint,
    server: Endpoint,
    what: Phrase,
    took: Duration,
    verdict: Option<Action>,
    trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Some,
    Failed,
}

/// `quit, a.example, TLS, mail 1/1 250`
#[derive(Debug)]
struct Phrase {
    ending: String,
    helo: Option<String>,
    rest: String,
}

impl Table {
    pub(super) fn session(&mut self, told: &Told<'_>) {
        let record = told.record;
        if self.files.last().is_none_or(|last| last != told.file) {
            // A file whose sessions are told again after another's gets one more line, and that is right.
            if self.files.len() < MAX_ROWS {
                self.files.push(told.file.to_owned());
            }
        }
        let code = telling_code(record);
        let trouble = if not_connected(record) || code.is_some_and(|(code, _)| refused(code)) {
            Trouble::Failed
        } else if record.smtp.anomalies.is_empty() {
            Trouble::None
        } else {
            Trouble::Some
        };
        let row = Row {
            file: self.files.len().saturating_sub(1),
            start: record.start,
            family: record.family,
            client: record.client,
            server: record.server,
            what: Phrase::of(record),
            took: record.duration,
            verdict: told.judged.then_some(record.verdict.action),
            trouble,
        };
        self.rows.insert(told.number, row);
        if self.rows.len() > MAX_ROWS {
            self.rows.pop_last();
            self.unkept += 1;
        }
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> io::Result<()> {
        let judged = self.rows.values().any(|row| row.verdict.is_some());
        let number = self.rows.keys().next_back().map_or(1, |last| last.to_string().len()).max(2);
        let fixed = number + START + FAMILY + TOOK + 5 + if judged { VERDICT + 1 } else { 0 };
        let room = WIDTH - fixed;
        let routes = self.rows.values().map(|row| row.route_width());
        let route = routes.max().unwrap_or(0).max("CLIENT → SERVER".chars().count());
        let whats = self.rows.values().map(|row| row.what.width());
        let what = whats.max().unwrap_or(0);
        let what = what.min(room.saturating_sub(route)).max(what.min(MIN_WHAT)).max(13);
        let route = route.min(room - what);
        let widths = [number, START, FAMILY, route, room - route, TOOK, VERDICT];
        let line = |texts: [&str; 7]| cells(&texts.map(str::to_owned), widths);

        let verdict = if judged { "VERDICT" } else { "" };
        let number_head = format!("{:>number$}", "#");
        let took = format!("{:>TOOK$}", "TOOK");
        let head = [
            number_head.as_str(),
            "START (UTC)",
            "IP",
            "CLIENT → SERVER",
            "WHAT HAPPENED",
            &took,
            verdict,
        ];
        page.line(BOLD, &line(head))?;

        let mut addresses = Addresses::default();
        let mut before: Option<&Row> = None;
        for (n, row) in &self.rows {
            self.part(before, row, page)?;
            before = Some(row);
            let verdict = row.verdict.map_or_else(String::new, |action| action.to_string());
            let texts = [
                format!("{n:>number$}"),
                clock(row.start),
                row.family.to_string(),
                addresses.route(row, route),
                row.what.fitted(room - route),
                format!("{:>TOOK$}", duration(row.took)),
                verdict,
            ];
            let style = match row.trouble {
                Trouble::None => PLAIN,
                Trouble::Some => YELLOW,
                Trouble::Failed => RED,
            };
            page.line(style, &cells(&texts, widths))?;
        }
        if self.unkept > 0 {
            let more = count(self.unkept);
            page.say(PLAIN, &format!("… and {more} more; --format json lists all"))?;
        }
        if !addresses.marked.is_empty() {
            let note = "~1, ~2: addresses that look like others when shortened; --format json has them whole";
            page.say(DIM, note)?;
        }
        Ok(())
    }

    /// Where another file or another day begins.
    fn part(&self, before: Option<&Row>, row: &Row, page: &mut Page<'_>) -> io::Result<()> {
        let day = date(row.start);
        let file = match before {
            Some(before) if before.file == row.file => {
                if date(before.start) == day {
                    return Ok(());
                }
                String::new()
            }
            _ if self.files.len() > 1 => {
                let file = self.files.get(row.file).map_or("", String::as_str);
                format!("{}, ", file_name(file))
            }
            None => return Ok(()),
            Some(_) => String::new(),
        };
        page.line(DIM, &format!("-- {file}{day}"))
    }
}

impl Row {
    fn route_width(&self) -> usize {
        endpoint(self.client.address, None).len()
            + " → ".chars().count()
            + endpoint(self.server.address, self.other_port()).len()
    }

    fn other_port(&self) -> Option<u16> {
        Some(self.server.port).filter(|&port| port != SMTP)
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
        let columns = columns - " → ".chars().count();
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
            Tls::Started => rest.push_str(", TLS"),
            Tls::Refused => rest.push_str(", TLS refused"),
            Tls::None | Tls::Offered => {}
        }
        if smtp.transactions_total > 0 {
            let accepted = smtp.transactions.iter().filter(|transaction| is_accepted(transaction));
            let (accepted, total) = (accepted.count() as u64, smtp.transactions_total);
            rest.push_str(&format!(", mail {}/{}", count(accepted), count(total)));
        }
        if let Some((code, enhanced)) = telling_code(record) {
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
    deciding_code(transaction).is_some()
}

pub(super) fn is_accepted(transaction: &TransactionRecord) -> bool {
    deciding_code(transaction).is_some_and(|code| !refused(code))
}

/// The reply that says how it went: of the last transaction that was decided, else of the greeting or another refusal;
/// with the enhanced code of a recipient, where it has one.
pub(super) fn telling_code(record: &SessionRecord) -> Option<(u16, Option<String>)> {
    let smtp = &record.smtp;
    let last = smtp.transactions.iter().rev();
    let decided = last.filter_map(|transaction| {
        let code = deciding_code(transaction)?;
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
