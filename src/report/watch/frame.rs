//! One page, as large as the terminal.

use std::fmt::Write as _;
use std::time::Duration;

use anstyle::Style;

use super::paths::table;
use super::troubles::troubles;
use super::{EvidenceLine, WatchView};
use crate::report::columns::{cells, width};
use crate::report::escape::{Place, fitted};
use crate::report::replay::words::{count, duration, several};
use crate::report::replay::{BOLD, PLAIN, YELLOW};
use crate::traffic::TrafficWindow;

/// SessionTable from which on blank ones stand between the parts.
const AIRY: usize = 24;
/// SessionTable that the latest sessions get at least, with their head.
const SESSIONS: usize = 4;

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    pub columns: usize,
    pub lines: usize,
}

/// A line in pieces of a style each.
#[derive(Clone, Debug, Default)]
pub(super) struct Line(Vec<(Style, String)>);

impl Line {
    pub(super) fn new(style: Style, text: &str) -> Self {
        Self(vec![(style, text.to_owned())])
    }

    pub(super) fn push(&mut self, style: Style, text: &str) {
        self.0.push((style, text.to_owned()));
    }

    /// At most `columns`, with colour or without.
    fn written(&self, columns: usize, colour: bool) -> String {
        let mut out = String::new();
        let mut left = columns;
        for (style, text) in &self.0 {
            let text = match width(text) {
                needed if needed <= left => text.clone(),
                _ => cells(std::array::from_ref(text), [left]),
            };
            left -= width(&text).min(left);
            // Writing to a string cannot fail.
            let _ = match colour && *style != PLAIN {
                true => write!(out, "{style}{text}{style:#}"),
                false => write!(out, "{text}"),
            };
        }
        out.truncate(out.trim_end().len());
        out
    }
}

/// The page in lines, at most as many and as long as the terminal has; without line ends.
pub fn frame(view: &WatchView, size: TerminalSize, colour: bool) -> Vec<String> {
    let airy = size.lines >= AIRY;
    let blank = || airy.then(Line::default);
    let mut lines = vec![Line::new(BOLD, &heading(view))];

    let troubles = troubles(view);
    let room = if airy { 6 } else { 2 };
    let shown = if troubles.len() > room { room - 1 } else { room };
    lines.extend(troubles.iter().take(shown).map(|(style, line)| Line::new(*style, line)));
    if let Some(more @ 1..) = troubles.len().checked_sub(shown) {
        lines.push(Line::new(YELLOW, &format!("and {more} more like that")));
    }

    let mut evidence: Vec<Line> = Vec::new();
    for said in &view.evidence {
        let sentence = fitted(&said.sentence, Place::Sentence, size.columns);
        evidence.push(Line::new(proof_style(said), &sentence));
    }
    let mut left = size.lines.saturating_sub(lines.len());
    let mut tables = Vec::new();
    for window in TrafficWindow::ALL {
        let table = table(window, view.paths(window), size.columns);
        let others = evidence.len() + SESSIONS + if airy { 3 } else { 0 };
        // The last minute always; the others where all the rest has room.
        let enough = if tables.is_empty() { 0 } else { others + SESSIONS };
        let needed = table.len() + usize::from(airy);
        match left.checked_sub(needed) {
            Some(rest) if rest >= enough => left = rest,
            _ if tables.is_empty() => left = left.saturating_sub(needed),
            _ => break,
        }
        tables.push(table);
    }
    for table in tables {
        lines.extend(blank());
        lines.extend(table);
    }

    let sessions_at_least = (SESSIONS + usize::from(airy)).min(left);
    evidence.truncate((left - sessions_at_least).saturating_sub(usize::from(airy)));
    if !evidence.is_empty() {
        lines.extend(blank());
        lines.extend(evidence);
    }

    lines.extend(blank());
    let room = size.lines.saturating_sub(lines.len() + 1);
    let sessions = view.latest.lines(room, size.columns);
    lines.extend(sessions.iter().map(|(style, line)| Line::new(*style, line)));
    lines.truncate(size.lines);
    lines.iter().map(|line| line.written(size.columns, colour)).collect()
}

pub(super) const fn proof_style(proof: &EvidenceLine) -> Style {
    if proof.doubtful { YELLOW } else { PLAIN }
}

/// `eth0 and eth1 by eBPF, 12 min: 5 sessions open, nothing lost`
pub(super) fn heading(view: &WatchView) -> String {
    let post = &view.capture;
    let losses = &view.losses;
    let open = several(view.open, "session");
    let state = match losses.openings.saturating_add(losses.packets) {
        0 => format!("{open} open, nothing lost"),
        lost => format!("LOST {} packets, {open} open", count(lost)),
    };
    let (names, source) = (joined_names(&post.interfaces), &post.source);
    format!("{names} by {source}, {}: {state}", whole(view.uptime))
}

/// `eth0`, `eth0 and eth1`, `eth0, eth1 and 5 more`
pub fn joined_names(names: &[String]) -> String {
    let shown = |name: &String| fitted(name, Place::Word, 15);
    match names {
        [] => "no interface".to_owned(),
        [one] => shown(one),
        [one, other] => format!("{} and {}", shown(one), shown(other)),
        [one, two, three] => format!("{}, {} and {}", shown(one), shown(two), shown(three)),
        [one, two, more @ ..] => format!("{}, {} and {} more", shown(one), shown(two), more.len()),
    }
}

/// In whole seconds, so that it does not flicker.
fn whole(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        _ => duration(time),
    }
}
