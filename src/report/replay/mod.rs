//! The reports of `gatepost replay`: a summary by family, a table of sessions, findings; and the transcript of one session.
//!
//! Pure rendering of [`SessionRecord`]s; no line is wider than 100 columns. Memory does not grow with the capture: the
//! summary consists of counts, the table keeps 1,000 rows and each kind of finding 20 lines; the rest is counted. The JSON
//! form is unlimited, because each line is written when its session ends.
//!
//! Client and server data is escaped. ANSI colours are used only on request.

mod evidence;
mod findings;
mod summary;
mod table;
#[cfg(test)]
mod tests;
mod transcript;

use std::io::{self, Write};

use self::findings::Findings;
use self::summary::FamilySummary;
use self::table::ReplayTable;
pub use self::transcript::transcript;
use super::json;
use super::page::{BOLD, PLAIN, Page};
use crate::addr::Family;
use crate::engine::SessionRecord;
use crate::humanize::{clock_millis, count, counted, date, duration};
use crate::report::escape::path_in_columns;
use crate::time::Timestamp;
use crate::traffic::Evidence;
use crate::traffic::fallback::Fallback;

/// Columns of a file name.
const NAME: usize = 60;
/// Column order: IPv6, the family in question, comes first.
const FAMILIES: [Family; 2] = [Family::Ipv6, Family::Ipv4];

/// A finished session and its flow.
#[derive(Clone, Copy, Debug)]
pub struct NumberedSession<'a> {
    /// The capture file, or the interfaces.
    pub file: &'a str,
    /// From 1; unique in a report, also over several files.
    pub number: u64,
    pub record: &'a SessionRecord,
    /// A policy was evaluated; otherwise the verdict is meaningless.
    pub policy_applied: bool,
    /// Facts that the policy required and that stayed unknown, as text: `reverse name`.
    pub unknown_facts: &'a [&'a str],
}

/// Totals of the input.
#[derive(Clone, Copy, Debug, Default)]
pub struct InputSummary<'a> {
    pub files: &'a [&'a str],
    /// Packets of any kind.
    pub packets: u64,
    /// Time of the first packet.
    pub first: Option<Timestamp>,
    /// Time of the last packet.
    pub last: Option<Timestamp>,
    /// Ports decoded as SMTP.
    pub ports: &'a [u16],
    /// `None` if the local networks are unknown.
    pub evidence: Option<&'a Evidence<'a>>,
}

/// The text report: collects everything, then writes it.
#[derive(Debug, Default)]
pub struct ReplayReport {
    summary: FamilySummary,
    table: ReplayTable,
    findings: Findings,
}

impl ReplayReport {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add_session(&mut self, session: &NumberedSession<'_>) {
        self.summary.add_session(session);
        self.table.add_session(session);
        self.findings.add_session(session);
    }

    /// Must follow both of its sessions.
    pub fn add_fallback(&mut self, fallback: &Fallback) {
        self.summary.add_fallback(fallback);
        self.findings.add_fallback(fallback);
    }

    /// An unreadable part of a file; `message` names the file.
    pub fn add_damage(&mut self, message: &str) {
        self.findings.add_damage(message);
    }

    /// # Errors
    /// Those of `out`.
    pub fn write(
        &self,
        input: &InputSummary<'_>,
        colour: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let page = &mut Page { out, colour };
        page.paragraph(BOLD, &self.heading(input))?;
        if self.summary.flows() == 0 {
            return self.findings.write(page);
        }
        match self.findings.first() {
            Some((style, line)) => {
                let findings = counted(self.findings.total(), "finding");
                page.paragraph(style, &format!("{findings}; most serious: {line}"))?;
            }
            None => page.paragraph(PLAIN, "No findings.")?,
        }
        page.paragraph(PLAIN, "")?;
        self.summary.write(page)?;
        page.paragraph(PLAIN, "")?;
        self.table.write(page)?;
        if let Some(evidence) = input.evidence {
            page.paragraph(PLAIN, "")?;
            evidence::write(evidence, page)?;
        }
        if !self.findings.is_empty() {
            page.paragraph(PLAIN, "")?;
        }
        self.findings.write(page)
    }

    /// The families side by side, then the findings.
    pub(super) fn write_totals(&self, page: &mut Page<'_>) -> io::Result<()> {
        if self.summary.flows() > 0 {
            self.summary.write(page)?;
        }
        self.findings.write(page)
    }

    /// One line about the input, or why the report is empty.
    fn heading(&self, input: &InputSummary<'_>) -> String {
        let name = match input.files {
            [] => "no file".to_owned(),
            [file] => path_in_columns(file, NAME),
            files => counted(files.len() as u64, "file"),
        };
        if input.packets == 0 {
            return format!("{name}: no packets");
        }
        let packets = counted(input.packets, "packet");
        if self.summary.flows() == 0 {
            let ports: Vec<String> = input.ports.iter().take(32).map(u16::to_string).collect();
            return format!(
                "{name}: {packets}, no SMTP on ports {} and no SMTP greeting on other ports; add ports with --port",
                ports.join(", ")
            );
        }
        match (input.first, input.last) {
            (Some(first), Some(last)) => format!(
                "{name}: {packets} in {} from {} {} UTC",
                duration(last.since(first)),
                date(first),
                clock_millis(first)
            ),
            _ => format!("{name}: {packets}"),
        }
    }
}

/// The session's line of `--format json`. A record over a megabyte is shortened; its totals keep the full counts.
pub fn json_session(session: &NumberedSession<'_>) -> String {
    json::replayed(session.file, session.number, session.record)
}

/// The fallback's line of `--format json`; `from` and `to` are session numbers.
pub fn json_fallback(fallback: &Fallback) -> String {
    json::fallback(fallback)
}

/// The line of `--format json` for the evidence. Only the last 500 destinations are listed; the total counts all.
pub fn json_evidence(evidence: &Evidence<'_>) -> String {
    json::evidence(evidence)
}

/// The line of `--format json` for an unreadable part of a file.
pub fn json_damage(file: &str, message: &str) -> String {
    json::damage(file, message)
}

/// `-` for zero, so that other numbers stand out.
fn number(n: u64) -> String {
    if n == 0 { "-".to_owned() } else { count(n) }
}

const LABEL: usize = 40;
const VALUE: usize = 19;

/// A row of a table with a column per family, in the order of [`FAMILIES`].
fn family_row(label: &str, [six, four]: [String; 2]) -> String {
    format!("{label:<LABEL$} {six:>VALUE$} {four:>VALUE$}")
}
