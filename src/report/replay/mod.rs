//! What people read of a replay: a summary by family, a table of sessions, what is odd; and one session's dialogue.
//!
//! Pure rendering of [`SessionRecord`]s; no line is wider than 100 columns. Memory does not grow with the capture: the
//! summary is counts, the table keeps 1,000 rows, each kind of oddity 20 lines; the rest is counted.
//! The JSON form has no bounds: it is written line by line, as each session ends.
//!
//! What clients and servers said is escaped; colour is ANSI, and only where the caller asks for it.

mod dialogue;
mod evidence;
mod findings;
mod quantile;
pub(super) mod rows;
mod summary;
mod table;
#[cfg(test)]
mod tests;
pub(super) mod words;

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

pub use self::dialogue::dialogue;
use self::findings::Findings;
use self::summary::Summary;
use self::table::Table;
use super::columns::{WIDTH, wrapped};
use super::json;
use crate::engine::SessionRecord;
use crate::time::Timestamp;
use crate::traffic::Evidence;
use crate::traffic::fallback::Fallback;

pub(super) const PLAIN: Style = Style::new();
pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const RED: Style = AnsiColor::Red.on_default();
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();

/// Columns of a file's name.
const NAME: usize = 60;

/// A flow and the session on it, when it is over.
#[derive(Clone, Copy, Debug)]
pub struct NumberedSession<'a> {
    /// Where it was captured.
    pub file: &'a str,
    /// From 1; no two of a report are the same, also over several files.
    pub number: u64,
    pub record: &'a SessionRecord,
    /// A policy was applied, so that the verdict means something.
    pub policy_applied: bool,
    /// Facts that the policy asked for and nothing answered, in words: `reverse name`.
    pub unknown_facts: &'a [&'a str],
}

/// What all of the input was.
#[derive(Clone, Copy, Debug, Default)]
pub struct InputSummary<'a> {
    pub files: &'a [&'a str],
    /// Packets of any kind.
    pub packets: u64,
    /// Of the first and the last packet.
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    /// Ports that were taken for SMTP.
    pub ports: &'a [u16],
    /// What it proves, where it is known which side is ours.
    pub evidence: Option<&'a Evidence<'a>>,
}

/// The text report: told everything, then written once.
#[derive(Debug, Default)]
pub struct ReplayReport {
    summary: Summary,
    table: Table,
    findings: Findings,
}

impl ReplayReport {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn add_session(&mut self, told: &NumberedSession<'_>) {
        self.summary.session(told);
        self.table.session(told);
        self.findings.session(told);
    }

    /// After both of its sessions.
    pub fn add_fallback(&mut self, pair: &Fallback) {
        self.summary.fall_back(pair);
        self.findings.fall_back(pair);
    }

    /// A file is damaged: what could not be read of it, its name included.
    pub fn add_damage(&mut self, message: &str) {
        self.findings.damage(message);
    }

    /// # Errors
    /// Those of `out`.
    pub fn write(
        &self,
        reading: &InputSummary<'_>,
        colour: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let page = &mut Page { out, colour };
        page.say(BOLD, &self.head(reading))?;
        if self.summary.flows() == 0 {
            return self.findings.write(page);
        }
        match self.findings.first() {
            Some((style, line)) => {
                page.say(
                    style,
                    &format!(
                        "{} odd; the most serious: {line}",
                        words::count(self.findings.total())
                    ),
                )?;
            }
            None => page.say(PLAIN, "Nothing odd.")?,
        }
        page.say(PLAIN, "")?;
        self.summary.write(page)?;
        page.say(PLAIN, "")?;
        self.table.write(page)?;
        if let Some(evidence) = reading.evidence {
            page.say(PLAIN, "")?;
            evidence::write(evidence, page)?;
        }
        if !self.findings.is_silent() {
            page.say(PLAIN, "")?;
        }
        self.findings.write(page)
    }

    /// The families side by side, then what is odd.
    pub(super) fn totals(&self, page: &mut Page<'_>) -> io::Result<()> {
        if self.summary.flows() > 0 {
            self.summary.write(page)?;
        }
        self.findings.write(page)
    }

    /// One line on the input, or why there is nothing else to tell.
    fn head(&self, reading: &InputSummary<'_>) -> String {
        let name = match reading.files {
            [] => "no file".to_owned(),
            [file] => words::file(file),
            files => words::several(files.len() as u64, "file"),
        };
        if reading.packets == 0 {
            return format!("{name}: no packets");
        }
        let packets = words::several(reading.packets, "packet");
        if self.summary.flows() == 0 {
            let mut ports = String::new();
            for port in reading.ports.iter().take(32) {
                ports.push_str(if ports.is_empty() { "" } else { ", " });
                ports.push_str(&port.to_string());
            }
            return format!(
                "{name}: {packets}, no SMTP flow on ports {ports}, and no server greeted on another; \
                 --port names others"
            );
        }
        let mut head = format!("{name}: {packets}");
        if let (Some(first), Some(last)) = (reading.first, reading.last) {
            let (date, clock) = (words::date(first), words::clock(first));
            let took = words::duration(last.since(first));
            head = format!("{head} in {took} from {date} {clock} UTC");
        }
        head
    }
}

/// The session's line of `--format json`, with its line end. A record over a megabyte is shortened; its totals tell how
/// much there was.
pub fn json_session(told: &NumberedSession<'_>) -> String {
    json::replayed(told.file, told.number, told.record)
}

/// A fall-back's line of `--format json`, with its line end; `from` and `to` are the sessions' numbers.
pub fn json_fallback(pair: &Fallback) -> String {
    json::fall_back(pair)
}

/// The line of `--format json` for what all of it proves, with its line end. Of very many destinations only the last tried
/// are listed; the total tells how many there are.
pub fn json_evidence(evidence: &Evidence<'_>) -> String {
    json::evidence(evidence)
}

/// The line of `--format json` for what could not be read of a file, with its line end.
pub fn json_damage(file: &str, message: &str) -> String {
    json::damage(file, message)
}

/// Where lines go.
pub(super) struct Page<'a> {
    pub(super) out: &'a mut dyn Write,
    pub(super) colour: bool,
}

impl Page<'_> {
    /// One line, as it is.
    pub(super) fn line(&mut self, style: Style, line: &str) -> io::Result<()> {
        let line = line.trim_end();
        if self.colour && style != PLAIN && !line.is_empty() {
            writeln!(self.out, "{style}{line}{style:#}")
        } else {
            writeln!(self.out, "{line}")
        }
    }

    /// A paragraph; lines after the first are set in.
    pub(super) fn say(&mut self, style: Style, text: &str) -> io::Result<()> {
        // Room for the indentation is left in every line, so that it need not be known which is the first.
        for (i, line) in wrapped(text, WIDTH - 4).iter().enumerate() {
            let indent = if i == 0 { "" } else { "    " };
            self.line(style, &format!("{indent}{line}"))?;
        }
        Ok(())
    }
}
