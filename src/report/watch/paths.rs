//! The table of paths: each family in each direction, with as many columns as fit.

use anstyle::Style;

use super::line::StyledLine;
use super::numbers::{percent, short};
use super::{ORDER, Paths, label};
use crate::humanize::short_duration;
use crate::report::page::{BOLD, PLAIN, RED, YELLOW};
use crate::stream::FlowOutcome::{Refused, Unanswered, Unreachable};
use crate::traffic::{FlowCounts, StarttlsState, TrafficWindow};

/// `IPv6 out`
const LABEL: usize = 8;

struct PathColumn {
    /// Columns with the highest ranks are dropped first from a short line.
    rank: u8,
    head: &'static str,
    width: usize,
    value: fn(&FlowCounts) -> String,
    style: fn(&FlowCounts) -> Style,
}

const fn column(
    rank: u8,
    head: &'static str,
    width: usize,
    value: fn(&FlowCounts) -> String,
    style: fn(&FlowCounts) -> Style,
) -> PathColumn {
    PathColumn { rank, head, width, value, style }
}

static COLUMNS: [PathColumn; 13] = [
    column(0, "CONNS", 5, |t| short(t.connections()), plain),
    column(1, "NO ANSWER", 9, |t| short(t.outcome(Unanswered)), |t| red(t.outcome(Unanswered))),
    column(2, "REFUSED", 7, |t| short(t.outcome(Refused)), |t| red(t.outcome(Refused))),
    column(9, "UNREACH", 7, |t| short(t.outcome(Unreachable)), |t| red(t.outcome(Unreachable))),
    column(8, "RESET", 5, |t| short(t.broken_off), |t| yellow(t.broken_off)),
    column(5, "SYN p50", 7, |t| handshake(t, 50), plain),
    column(10, "p95", 6, |t| handshake(t, 95), plain),
    column(7, "RETRANS", 7, |t| percent(t.retransmitted, t.data_segments), retransmissions),
    column(3, "MAIL", 5, |t| short(t.messages.accepted), plain),
    column(4, "TLS", 5, |t| short(tls(t)), plain),
    column(12, "2xx", 5, |t| percent(replies(t, 2), t.replies.iter().sum()), plain),
    column(
        11,
        "4xx",
        5,
        |t| percent(replies(t, 4), t.replies.iter().sum()),
        |t| yellow(replies(t, 4)),
    ),
    column(
        6,
        "5xx",
        5,
        |t| percent(replies(t, 5), t.replies.iter().sum()),
        |t| yellow(replies(t, 5)),
    ),
];

/// A header and four lines.
pub(super) fn table(window: TrafficWindow, paths: &Paths, columns: usize) -> Vec<StyledLine> {
    let shown = fitting(columns);
    let name = window.as_str().to_uppercase();
    let mut header = StyledLine::new(BOLD, &format!("{name:<LABEL$}"));
    for &PathColumn { head, width, .. } in &shown {
        header.push(BOLD, &format!(" {head:>width$}"));
    }
    let mut lines = vec![header];
    for (family, bound) in ORDER {
        let tally = paths.of(family).of(bound);
        let mut line = StyledLine::new(PLAIN, &format!("{:<LABEL$}", label((family, bound))));
        for &PathColumn { width, value, style, .. } in &shown {
            line.push(style(tally), &format!(" {:>width$}", value(tally)));
        }
        lines.push(line);
    }
    lines
}

/// The columns with the lowest ranks that fit, in their own order.
fn fitting(columns: usize) -> Vec<&'static PathColumn> {
    let mut by_rank: Vec<&PathColumn> = COLUMNS.iter().collect();
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
    tally.handshakes.percentile(percent).map_or_else(|| "-".to_owned(), short_duration)
}

fn replies(tally: &FlowCounts, class: usize) -> u64 {
    tally.replies.get(class - 2).copied().unwrap_or_default()
}

/// Sessions under TLS, whose messages are not in MAIL.
fn tls(tally: &FlowCounts) -> u64 {
    let states = [StarttlsState::Started, StarttlsState::Completed];
    states.iter().filter_map(|state| tally.tls.get(state.index())).sum()
}

const fn plain(_: &FlowCounts) -> Style {
    PLAIN
}

const fn red(n: u64) -> Style {
    if n > 0 { RED } else { PLAIN }
}

const fn yellow(n: u64) -> Style {
    if n > 0 { YELLOW } else { PLAIN }
}

/// Yellow above 5 %.
const fn retransmissions(tally: &FlowCounts) -> Style {
    if tally.retransmitted.saturating_mul(20) > tally.data_segments { YELLOW } else { PLAIN }
}
