//! Problems, the most serious first, each in a line that starts with its kind.

use std::time::Duration;

use anstyle::Style;

use super::{ORDER, WatchView, label};
use crate::addr::Family;
use crate::humanize::{count, counted, duration, family};
use crate::report::escape::printable;
use crate::report::losses::CaptureLosses;
use crate::report::page::{PLAIN, RED, YELLOW};
use crate::stream::FlowOutcome;
use crate::traffic::{FlowCounts, StarttlsState, TrafficWindow};

/// A younger SYN is still on its way; the first retransmission is after a second (RFC 6298 §2).
const PENDING: Duration = Duration::from_secs(1);
/// The retransmitted SYN was lost too.
const PENDING_LONG: Duration = Duration::from_secs(3);

type Count = fn(&FlowCounts) -> u64;

/// Problems of the last ten minutes (an unanswered connection is final after two), and capture losses since the start.
pub(super) fn problems(view: &WatchView) -> Vec<(Style, String)> {
    let mut lines = pending(view);
    lines.extend(view.problems.iter().map(|problem| (RED, printable(problem))));
    let kinds: [(&str, Count); 5] = [
        ("SUSPECTED BLACK HOLE", |tally| tally.black_holes),
        ("NO ANSWER", |tally| tally.outcome(FlowOutcome::Unanswered)),
        ("UNREACHABLE", |tally| tally.outcome(FlowOutcome::Unreachable)),
        ("REFUSED", |tally| tally.outcome(FlowOutcome::Refused)),
        ("TLS FAILED", |tally| {
            tally.tls.get(StarttlsState::Failed.index()).copied().unwrap_or_default()
        }),
    ];
    let unknown: (&str, Count) = ("NOT KNOWN", |tally| tally.outcome(FlowOutcome::Unknown));
    let kinds = kinds.map(|kind| (RED, kind)).into_iter().chain([(YELLOW, unknown)]);
    for (style, (kind, of)) in kinds {
        for (family, bound) in ORDER {
            let tally = view.paths(TrafficWindow::TenMinutes).of(family).of(bound);
            if of(tally) > 0 {
                let connections = counted(tally.connections(), "connection");
                let (label, count) = (label((family, bound)), count(of(tally)));
                let line = format!("{kind}: {label}, {count} of {connections} in 10 minutes");
                lines.push((style, line));
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

fn pending(view: &WatchView) -> Vec<(Style, String)> {
    let mut families: Vec<_> = Family::ALL.into_iter().zip(view.pending).collect();
    families.retain(|(_, pending)| pending.count > 0 && pending.oldest >= PENDING);
    families.sort_by_key(|(_, pending)| std::cmp::Reverse(pending.oldest));
    let lines = families.into_iter().map(|(of, pending)| {
        let style = if pending.oldest >= PENDING_LONG { RED } else { PLAIN };
        let connections = counted(pending.count, &format!("{} connection", family(of)));
        let oldest = duration(pending.oldest);
        (style, format!("waiting for SYN-ACK: {connections}, the oldest for {oldest}"))
    });
    lines.collect()
}

/// Data missing from the numbers of the view.
pub(super) fn losses(losses: &CaptureLosses) -> Vec<(Style, String)> {
    let mut lines = Vec::new();
    if losses.syns > 0 {
        let line = format!(
            "CAPTURE LOSS: {}, possibly as many sessions; increase --buffer",
            counted(losses.syns, "SYN")
        );
        lines.push((RED, line));
    }
    if losses.packets > 0 {
        let packets = counted(losses.packets, "packet");
        lines.push((YELLOW, format!("CAPTURE LOSS: {packets}; increase --buffer")));
    }
    let bytes = losses.missing_bytes();
    if bytes > 0 {
        let bytes = counted(bytes, "byte");
        lines.push((YELLOW, format!("MISSING after reassembly: {bytes}")));
    }
    if losses.lines > 0 {
        let lines_lost = counted(losses.lines, "line");
        lines.push((RED, format!("NOT PRINTED: {lines_lost}; the output was read too slowly")));
    }
    if losses.desyncs > 0 {
        let desyncs = counted(losses.desyncs, "time");
        lines.push((YELLOW, format!("PARSER lost synchronisation {desyncs}")));
    }
    lines
}
