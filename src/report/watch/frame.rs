//! One screen of the view, as large as the terminal.

use std::time::Duration;

use anstyle::Style;

use super::line::StyledLine;
use super::paths::table;
use super::problems::problems;
use super::{EvidenceLine, WatchView};
use crate::humanize::{count, counted, duration};
use crate::report::escape::{EscapeContext, fitted};
use crate::report::page::{BOLD, PLAIN, YELLOW};
use crate::traffic::TrafficWindow;

/// From this many lines on, blank lines separate the parts.
const SPACIOUS: usize = 24;
/// Minimum lines of the latest sessions, including their header.
const SESSIONS: usize = 4;

/// In characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub columns: usize,
    pub lines: usize,
}

/// The screen's lines without line ends; never more or longer lines than the terminal has.
pub fn frame(view: &WatchView, size: TerminalSize, colour: bool) -> Vec<String> {
    let spacious = size.lines >= SPACIOUS;
    let blank = || spacious.then(StyledLine::default);
    let mut lines = vec![StyledLine::new(BOLD, &heading(view))];

    let problems = problems(view);
    let room = if spacious { 6 } else { 2 };
    let shown = if problems.len() > room { room - 1 } else { room };
    lines.extend(problems.iter().take(shown).map(|(style, line)| StyledLine::new(*style, line)));
    if let Some(more @ 1..) = problems.len().checked_sub(shown) {
        lines.push(StyledLine::new(YELLOW, &format!("and {more} more")));
    }

    let mut evidence: Vec<StyledLine> = Vec::new();
    for line in &view.evidence {
        let sentence = fitted(&line.sentence, EscapeContext::Sentence, size.columns);
        evidence.push(StyledLine::new(evidence_style(line), &sentence));
    }
    let mut left = size.lines.saturating_sub(lines.len());
    let mut tables = Vec::new();
    for window in TrafficWindow::ALL {
        let table = table(window, view.paths(window), size.columns);
        let others = evidence.len() + SESSIONS + if spacious { 3 } else { 0 };
        // The last minute is always shown, the other windows only if the other parts fit too.
        let reserved = if tables.is_empty() { 0 } else { others + SESSIONS };
        let needed = table.len() + usize::from(spacious);
        match left.checked_sub(needed) {
            Some(rest) if rest >= reserved => left = rest,
            _ if tables.is_empty() => left = left.saturating_sub(needed),
            _ => break,
        }
        tables.push(table);
    }
    for table in tables {
        lines.extend(blank());
        lines.extend(table);
    }

    let sessions_at_least = (SESSIONS + usize::from(spacious)).min(left);
    evidence.truncate((left - sessions_at_least).saturating_sub(usize::from(spacious)));
    if !evidence.is_empty() {
        lines.extend(blank());
        lines.extend(evidence);
    }

    lines.extend(blank());
    let room = size.lines.saturating_sub(lines.len() + 1);
    let sessions = view.latest.lines(room, size.columns);
    lines.extend(sessions.iter().map(|(style, line)| StyledLine::new(*style, line)));
    lines.truncate(size.lines);
    lines.iter().map(|line| line.render(size.columns, colour)).collect()
}

pub(super) const fn evidence_style(line: &EvidenceLine) -> Style {
    if line.doubtful { YELLOW } else { PLAIN }
}

/// `eth0 and eth1 via eBPF, 12 min: 5 sessions open, no packet loss`
pub(super) fn heading(view: &WatchView) -> String {
    let losses = &view.losses;
    let open = counted(view.open, "session");
    let state = match losses.syns.saturating_add(losses.packets) {
        0 if losses.hidden > 0 => format!("{open} open, packets may be HIDDEN"),
        0 => format!("{open} open, no packet loss"),
        lost => format!("{open} open, {} LOST", counted(lost, "packet")),
    };
    let (names, source) = (joined_names(&view.capture.interfaces), &view.capture.source);
    // Whole seconds, so that the line does not flicker.
    let uptime = duration(Duration::from_secs(view.uptime.as_secs()));
    format!("{names} via {source}, {uptime}: {state}")
}

/// `eth0`, `eth0 and eth1`, `eth0, eth1 and 5 more`
pub fn joined_names(names: &[String]) -> String {
    let shown = |name: &String| fitted(name, EscapeContext::Word, 15);
    match names {
        [] => "no interface".to_owned(),
        [one] => shown(one),
        [one, other] => format!("{} and {}", shown(one), shown(other)),
        [one, two, three] => format!("{}, {} and {}", shown(one), shown(two), shown(three)),
        [one, two, more @ ..] => {
            format!("{}, {} and {} more", shown(one), shown(two), count(more.len() as u64))
        }
    }
}
