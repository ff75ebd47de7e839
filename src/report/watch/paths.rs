//! The table of paths: each family in each direction, with as many columns as fit.

use anstyle::Style;

use super::frame::Line;
use super::numbers::{percent, short};
use super::{ORDER, Paths, label};
use crate::report::replay::words::duration;
use crate::report::replay::{BOLD, PLAIN, RED, YELLOW};
use crate::stream::FlowOutcome;
use crate::traffic::{FlowCounts, StarttlsState, TrafficWindow};

/// `IPv6 out`
const LABEL: usize = 8;
struct Column {
    head: &'static str,
    width: usize,
    /// The lowest stays longest where the line is short.
    rank: u8,
    value: fn(&FlowCounts) -> String,
    style: fn(&FlowCounts) -> Style,
}

static COLUMNS: [Column; 13] = [
    Column {
        head: "CONNS",
        width: 5,
        rank: 0,
        value: |tally| short(tally.connections()),
        style: plain,
    },
    Column {
        head: "NO ANSWER",
        width: 9,
        rank: 1,
        value: |tally| short(tally.outcome(FlowOutcome::Unanswered)),
        style: |tally| bad(tally.outcome(FlowOutcome::Unanswered)),
    },
    Column {
        head: "REFUSED",
        width: 7,
        rank: 2,
        value: |tally| short(tally.outcome(FlowOutcome::Refused)),
        style: |tally| bad(tally.outcome(FlowOutcome::Refused)),
    },
    Column {
        head: "UNREACH",
        width: 7,
        rank: 8,
        value: |tally| short(tally.outcome(FlowOutcome::Unreachable)),
        style: |tally| bad(tally.outcome(FlowOutcome::Unreachable)),
    },
    Column {
        head: "RESET",
        width: 5,
        rank: 7,
        value: |tally| short(resets(tally)),
        style: |tally| doubtful(resets(tally)),
    },
    Column {
        head: "SYN p50",
        width: 7,
        rank: 4,
        value: |tally| handshake(tally, 50),
        style: plain,
    },
    Column { head: "p95", width: 6, rank: 9, value: |tally| handshake(tally, 95), style: plain },
    Column {
        head: "RESENT",
        width: 6,
        rank: 6,
        value: |tally| percent(tally.retransmitted, tally.data_segments),
        style: resent,
    },
    Column {
        head: "MAIL",
        width: 5,
        rank: 3,
        value: |tally| short(tally.messages.accepted),
        style: plain,
    },
    Column {
        head: "2xx",
        width: 5,
        rank: 12,
        value: |tally| percent(replies(tally, 2), tally.replies.iter().sum()),
        style: plain,
    },
    Column {
        head: "4xx",
        width: 5,
        rank: 10,
        value: |tally| percent(replies(tally, 4), tally.replies.iter().sum()),
        style: |tally| doubtful(replies(tally, 4)),
    },
    Column {
        head: "5xx",
        width: 5,
        rank: 5,
        value: |tally| percent(replies(tally, 5), tally.replies.iter().sum()),
        style: |tally| doubtful(replies(tally, 5)),
    },
    Column {
        head: "TLS",
        width: 5,
        rank: 11,
        value: |tally| percent(tls(tally), tally.sessions),
        style: plain,
    },
];

/// A head and four lines.
pub(super) fn table(window: TrafficWindow, paths: &Paths, columns: usize) -> Vec<Line> {
    let shown = fitting(columns);
    let name = window.as_str().to_uppercase();
    let mut head = Line::new(BOLD, &format!("{name:<LABEL$}"));
    for column in &shown {
        let width = column.width;
        head.push(BOLD, &format!(" {:>width$}", column.head));
    }
    let mut lines = vec![head];
    for (family, bound) in ORDER {
        let tally = paths.of(family).of(bound);
        let mut line = Line::new(PLAIN, &format!("{:<LABEL$}", label((family, bound))));
        for column in &shown {
            let width = column.width;
            line.push((column.style)(tally), &format!(" {:>width$}", (column.value)(tally)));
        }
        lines.push(line);
    }
    lines
}

/// The columns of the lowest ranks that a line has room for, in their own order.
fn fitting(columns: usize) -> Vec<&'static Column> {
    let mut by_rank: Vec<&Column> = COLUMNS.iter().collect();
    by_rank.sort_by_key(|column| column.rank);
    let mut left = columns.saturating_sub(LABEL);
    let mut most = None;
    for column in by_rank {
        match left.checked_sub(column.width + 1) {
            Some(rest) => (left, most) = (rest, Some(column.rank)),
            None => break,
        }
    }
    COLUMNS.iter().filter(|column| most.is_some_and(|most| column.rank <= most)).collect()
}

fn handshake(tally: &FlowCounts, percent: u8) -> String {
    tally.handshakes.percentile(percent).map_or_else(|| "-".to_owned(), duration)
}

fn resets(tally: &FlowCounts) -> u64 {
    tally.resets.iter().sum()
}

fn replies(tally: &FlowCounts, class: usize) -> u64 {
    tally.replies.get(class - 2).copied().unwrap_or_default()
}

fn tls(tally: &FlowCounts) -> u64 {
    tally.tls.get(StarttlsState::Started.index()).copied().unwrap_or_default()
}

const fn plain(_: &FlowCounts) -> Style {
    PLAIN
}

const fn bad(n: u64) -> Style {
    if n > 0 { RED } else { PLAIN }
}

const fn doubtful(n: u64) -> Style {
    if n > 0 { YELLOW } else { PLAIN }
}

/// More than one in twenty.
const fn resent(tally: &FlowCounts) -> Style {
    if tally.retransmitted.saturating_mul(20) > tally.data_segments { YELLOW } else { PLAIN }
}
