//! The output of `gatepost watch`: a view that is redrawn, or lines, and a summary.
//!
//! Pure rendering: the caller fills a [`WatchView`] and passes the size of the terminal; the lines fit. Problems are at the
//! top, in text and colour. Client data is escaped.

mod evidence;
mod frame;
mod line;
mod numbers;
mod paths;
mod problems;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

pub use self::frame::{TerminalSize, frame, joined_names};
use super::json;
pub use super::losses::CaptureLosses;
use super::page::{BOLD, Page};
use super::replay::{NumberedSession, ReplayReport};
use super::rows::{SessionTableRow, TableLayout};
use crate::addr::Family;
use crate::humanize;
use crate::traffic::{FlowCounts, MailDirection, PerDirection, PerFamily, Traffic, TrafficWindow};

/// Stored sessions, more than a terminal has lines for.
const MAX_LATEST: usize = 256;

#[derive(Clone, Debug, Default)]
pub struct CaptureSource {
    /// `eBPF` or `libpcap`.
    pub source: String,
    pub interfaces: Vec<String>,
}

/// The data of one screen.
#[derive(Clone, Debug, Default)]
pub struct WatchView {
    pub capture: CaptureSource,
    pub uptime: Duration,
    /// Open sessions.
    pub open: u64,
    pub losses: CaptureLosses,
    /// Errors of the source, in sentences.
    pub problems: Vec<String>,
    /// In the order of [`TrafficWindow::ALL`].
    pub windows: [Paths; TrafficWindow::ALL.len()],
    /// In the order of [`Family::ALL`].
    pub pending: [PendingConnections; Family::ALL.len()],
    pub evidence: Vec<EvidenceLine>,
    pub latest: LatestSessions,
}

pub type Paths = PerFamily<PerDirection<FlowCounts>>;

impl WatchView {
    /// Copies the current tallies and the evidence.
    pub fn set_traffic(&mut self, traffic: &Traffic) {
        self.windows = TrafficWindow::ALL.map(|window| {
            PerFamily::each(|family| {
                PerDirection::each(|bound| traffic.counts(window, family, bound))
            })
        });
        self.evidence = evidence::evidence_lines(&traffic.evidence());
    }

    fn paths(&self, window: TrafficWindow) -> &Paths {
        let [minute, ten_minutes, hour] = &self.windows;
        match window {
            TrafficWindow::Minute => minute,
            TrafficWindow::TenMinutes => ten_minutes,
            TrafficWindow::Hour => hour,
        }
    }
}

/// Connections whose SYN has no answer yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingConnections {
    pub count: u64,
    pub oldest: Duration,
}

/// A sentence about a receive or return path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceLine {
    pub sentence: String,
    pub doubtful: bool,
}

#[derive(Clone, Debug, Default)]
pub struct LatestSessions(VecDeque<(u64, SessionTableRow)>);

impl LatestSessions {
    pub fn push(&mut self, session: &NumberedSession<'_>) {
        if self.0.len() == MAX_LATEST {
            self.0.pop_front();
        }
        self.0.push_back((session.number, row(session)));
    }

    /// A header and the last `count` sessions, in lines of `columns`.
    fn lines(&self, count: usize, columns: usize) -> Vec<(anstyle::Style, String)> {
        let rows = self.0.range(self.0.len().saturating_sub(count)..);
        let last = rows.clone().map(|(number, _)| *number).max().unwrap_or_default();
        let mut layout = TableLayout::new(rows.clone().map(|(_, row)| row), last, columns);
        let mut lines = vec![(BOLD, layout.header())];
        lines.extend(rows.map(|(number, row)| layout.row(*number, row)));
        lines
    }
}

/// Writes each session as a line when it ends.
pub struct SessionTable {
    layout: TableLayout,
    colour: bool,
}

impl SessionTable {
    pub fn new(colour: bool) -> Self {
        // Four digits for numbers; a longer one widens its own line only.
        Self { layout: TableLayout::fixed(1000, super::columns::WIDTH, false), colour }
    }

    /// # Errors
    /// Those of `out`.
    pub fn write_header(&self, out: &mut dyn Write) -> io::Result<()> {
        Page { out, colour: self.colour }.line(BOLD, &self.layout.header())
    }

    /// # Errors
    /// Those of `out`.
    pub fn write_session(
        &mut self,
        session: &NumberedSession<'_>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let (style, line) = self.layout.row(session.number, &row(session));
        Page { out, colour: self.colour }.line(style, &line)
    }
}

fn row(session: &NumberedSession<'_>) -> SessionTableRow {
    SessionTableRow::new(session.record, session.policy_applied)
}

/// The summary at the end: heading, losses, families side by side, findings, evidence.
///
/// # Errors
/// Those of `out`.
pub fn summary(
    view: &WatchView,
    report: &ReplayReport,
    colour: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let page = &mut Page { out, colour };
    page.paragraph(BOLD, &frame::heading(view))?;
    for (style, line) in problems::losses(&view.losses) {
        page.paragraph(style, &line)?;
    }
    report.write_totals(page)?;
    for line in &view.evidence {
        page.paragraph(frame::evidence_style(line), &line.sentence)?;
    }
    Ok(())
}

/// The line of `--format json` for the losses.
pub fn json_losses(losses: &CaptureLosses) -> String {
    json::losses(losses)
}

/// IPv6, the family in question, comes first.
const ORDER: [(Family, MailDirection); 4] = [
    (Family::Ipv6, MailDirection::Inbound),
    (Family::Ipv4, MailDirection::Inbound),
    (Family::Ipv6, MailDirection::Outbound),
    (Family::Ipv4, MailDirection::Outbound),
];

/// `IPv6 out`
fn label((family, bound): (Family, MailDirection)) -> String {
    format!("{} {bound}", humanize::family(family))
}
