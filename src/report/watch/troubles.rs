//! What is wrong, the most serious first, each in a line that begins with what it is.

use std::time::Duration;

use anstyle::Style;

use super::{CaptureLosses, ORDER, WatchView, label};
use crate::addr::Family;
use crate::report::escape::printable;
use crate::report::replay::words::{self, count, duration, several};
use crate::report::replay::{PLAIN, RED, YELLOW};
use crate::stream::FlowOutcome;
use crate::traffic::{FlowCounts, TrafficWindow};

/// A SYN that waits for less is on its way; after one second it is sent again (RFC 6298 §2).
const WAITS: Duration = Duration::from_secs(1);
/// The second SYN was lost too.
const WAITS_LONG: Duration = Duration::from_secs(3);

type Count = fn(&FlowCounts) -> u64;

/// What went wrong in the last ten minutes (what nobody answered is certain after two only), and what was lost since the
/// start.
pub(super) fn troubles(view: &WatchView) -> Vec<(Style, String)> {
    let mut lines = waiting(view);
    for trouble in &view.troubles {
        lines.push((RED, printable(trouble)));
    }
    let kinds: [(&str, Count); 4] = [
        ("BLACK HOLE SUSPECTED", |tally| tally.black_holes),
        ("NO ANSWER", |tally| tally.outcome(FlowOutcome::Unanswered)),
        ("UNREACHABLE", |tally| tally.outcome(FlowOutcome::Unreachable)),
        ("REFUSED", |tally| tally.outcome(FlowOutcome::Refused)),
    ];
    for (what, of) in kinds {
        for (family, bound) in ORDER {
            let tally = view.paths(TrafficWindow::TenMinutes).of(family).of(bound);
            if of(tally) > 0 {
                let connections = several(tally.connections(), "connection");
                let (label, count) = (label((family, bound)), count(of(tally)));
                let line = format!("{what}: {label}, {count} of {connections} in 10 minutes");
                lines.push((RED, line));
            }
        }
    }
    lines.extend(losses(&view.losses));
    lines.sort_by_key(|(style, _)| rank(*style));
    lines
}

fn rank(style: Style) -> u8 {
    match style {
        RED => 0,
        YELLOW => 1,
        _ => 2,
    }
}

fn waiting(view: &WatchView) -> Vec<(Style, String)> {
    let mut families: Vec<_> = Family::ALL.into_iter().zip(view.pending).collect();
    families.retain(|(_, waiting)| waiting.count > 0 && waiting.oldest >= WAITS);
    families.sort_by_key(|(_, waiting)| std::cmp::Reverse(waiting.oldest));
    let said = families.into_iter().map(|(family, waiting)| {
        let style = if waiting.oldest >= WAITS_LONG { RED } else { PLAIN };
        let line = format!(
            "waiting for an answer: {} over {}, the oldest for {}",
            count(waiting.count),
            words::family(family),
            duration(waiting.oldest),
        );
        (style, line)
    });
    said.collect()
}

/// What the numbers on the page therefore lack.
pub(super) fn losses(losses: &CaptureLosses) -> Vec<(Style, String)> {
    let mut lines = Vec::new();
    if losses.openings > 0 {
        let line = format!(
            "LOST by the capture: {}, each perhaps a session that is not here; a larger --buffer helps",
            several(losses.openings, "SYN"),
        );
        lines.push((RED, line));
    }
    if losses.packets > 0 {
        let line = format!(
            "LOST by the capture: {}; a larger --buffer helps",
            several(losses.packets, "packet"),
        );
        lines.push((YELLOW, line));
    }
    let CaptureLosses { not_captured, cut, given_up, unfinished, .. } = *losses;
    let octets = [not_captured, cut, given_up, unfinished];
    let octets = octets.into_iter().fold(0, u64::saturating_add);
    if octets > 0 {
        lines.push((YELLOW, format!("MISSING in reassembly: {}", several(octets, "octet"))));
    }
    if losses.desyncs > 0 {
        let times = several(losses.desyncs, "time");
        lines.push((YELLOW, format!("LOST the thread of a dialogue {times}")));
    }
    lines
}
