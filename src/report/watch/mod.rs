//! What people read of traffic that is watched: a page that is drawn again and again, and lines.
//!
//! Pure rendering: whoever watches fills a [`WatchView`], says how large the terminal is, and gets lines that fit. What is
//! wrong stands at the top, in words and in colour. What clients said is escaped.

mod evidence;
mod frame;
mod numbers;
mod paths;
#[cfg(test)]
mod tests;
mod troubles;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Duration;

pub use self::frame::{TerminalSize, frame, joined_names};
use super::json;
use super::replay::rows::{Layout, Row};
use super::replay::{NumberedSession, Page, ReplayReport, words};
use crate::addr::Family;
use crate::traffic::{FlowCounts, MailDirection, PerDirection, PerFamily, Traffic, TrafficWindow};

/// Sessions that the view keeps; no terminal has more lines to spare.
const MAX_LATEST: usize = 256;

/// Who watches what, and since when.
#[derive(Clone, Debug, Default)]
pub struct CaptureSource {
    /// `eBPF` or `libpcap`.
    pub source: String,
    pub interfaces: Vec<String>,
}

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
pub struct WatchView {
    pub capture: CaptureSource,
    pub uptime: Duration,
    /// Sessions that are in progress.
    pub open: u64,
    pub losses: CaptureLosses,
    /// What went wrong with the source, in sentences.
    pub troubles: Vec<String>,
    /// Of the last minute, ten minutes, hour.
    pub windows: [Paths; TrafficWindow::ALL.len()],
    pub pending: [PendingConnections; Family::ALL.len()],
    pub evidence: Vec<EvidenceLine>,
    pub latest: LatestSessions,
}

/// What passed.
pub type Paths = PerFamily<PerDirection<FlowCounts>>;

impl WatchView {
    /// What is known of the paths now.
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

/// What was lost on the way, by who lost it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureLosses {
    /// SYNs that the source could not deliver: perhaps sessions that nobody saw.
    pub openings: u64,
    /// Other packets that it could not deliver.
    pub packets: u64,
    /// Octets that reassembly went on without: not captured at all, cut by a snap length, not waited for, still missing
    /// when the flow ended.
    pub not_captured: u64,
    pub cut: u64,
    pub given_up: u64,
    pub unfinished: u64,
    /// Times that the thread of a dialogue was lost.
    pub desyncs: u64,
}

/// Connections whose SYN nobody has answered yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PendingConnections {
    pub count: u64,
    pub oldest: Duration,
}

/// What traffic proves, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceLine {
    pub sentence: String,
    pub doubtful: bool,
}

/// The sessions that ended last.
#[derive(Clone, Debug, Default)]
pub struct LatestSessions(VecDeque<(u64, Row)>);

impl LatestSessions {
    pub fn push(&mut self, told: &NumberedSession<'_>) {
        if self.0.len() == MAX_LATEST {
            self.0.pop_front();
        }
        self.0.push_back((told.number, Row::of(told.record, told.policy_applied)));
    }

    /// The last `count` of them in lines of `columns`, the head first.
    fn lines(&self, count: usize, columns: usize) -> Vec<(anstyle::Style, String)> {
        let rows = self.0.range(self.0.len().saturating_sub(count)..);
        let last = rows.clone().map(|(number, _)| *number).max().unwrap_or_default();
        let mut layout = Layout::new(rows.clone().map(|(_, row)| row), last, columns);
        let mut lines = vec![(super::replay::BOLD, layout.head())];
        lines.extend(rows.map(|(number, row)| layout.row(*number, row)));
        lines
    }
}

/// Sessions as lines, for who reads them as they end.
pub struct SessionTable {
    layout: Layout,
    colour: bool,
}

impl SessionTable {
    pub fn new(colour: bool) -> Self {
        // Room for numbers of four digits; the columns of a longer one are its own.
        Self { layout: Layout::fixed(1000, super::columns::WIDTH, false), colour }
    }

    /// # Errors
    /// Those of `out`.
    pub fn write_header(&self, out: &mut dyn Write) -> io::Result<()> {
        Page { out, colour: self.colour }.line(super::replay::BOLD, &self.layout.head())
    }

    /// # Errors
    /// Those of `out`.
    pub fn write_session(
        &mut self,
        told: &NumberedSession<'_>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let (style, line) =
            self.layout.row(told.number, &Row::of(told.record, told.policy_applied));
        Page { out, colour: self.colour }.line(style, &line)
    }
}

/// The summary at the end: the heading, the families side by side, what is odd, what traffic proves.
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
    page.say(super::replay::BOLD, &frame::heading(view))?;
    for (style, line) in troubles::losses(&view.losses) {
        page.say(style, &line)?;
    }
    report.totals(page)?;
    for proof in &view.evidence {
        page.say(frame::proof_style(proof), &proof.sentence)?;
    }
    Ok(())
}

/// The line of `--format json` for what was lost, with its line end.
pub fn json_losses(losses: &CaptureLosses) -> String {
    json::losses(losses)
}

/// IPv6 first: it is what is in question.
const ORDER: [(Family, MailDirection); 4] = [
    (Family::Ipv6, MailDirection::Inbound),
    (Family::Ipv4, MailDirection::Inbound),
    (Family::Ipv6, MailDirection::Outbound),
    (Family::Ipv4, MailDirection::Outbound),
];

/// `IPv6 out`
fn label((family, bound): (Family, MailDirection)) -> String {
    format!("{} {bound}", words::family(family))
}
