//! The sections of the page.
//!
//! On a narrow screen the rows of tables become blocks, with the column names from `data-label` before the values. The explicit
//! roles keep them tables for screen readers.

use maud::{Markup, html};

use super::masking::sentence;
use super::session::Tone;
use super::{LiveState, Snapshot, UpstreamRow};
use crate::addr::Family;
use crate::canary::{CanaryStatus, Comparison};
use crate::humanize::{ago, clock, count, date_time, duration, family, short_duration};
use crate::policy::door::{DoorReport, DoorState, DoorStatus, OperatorMode};
use crate::report::canary::detail as canary_detail;
use crate::report::door::{NOT_ENFORCED, proof_event, vantage_sentence};
use crate::time::Timestamp;

/// A coloured label.
fn badge(tone: Tone, word: &str) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (word) } }
}

/// A section with its heading; the script updates it.
pub(super) fn section(id: &str, heading: &str, body: Markup) -> Markup {
    html! {
        section id=(id) data-live aria-labelledby={ (id) "-h" } {
            h2 id={ (id) "-h" } { (heading) }
            (body)
        }
    }
}

/// A table with these columns; each row consists of [`cell`]s.
fn table(labelled_by: &str, columns: &[&str], rows: Markup) -> Markup {
    html! {
        table class="list" role="table" aria-labelledby={ (labelled_by) "-h" } {
            thead role="rowgroup" {
                tr role="row" {
                    @for column in columns {
                        th scope="col" role="columnheader" data-label=(column) { (column) }
                    }
                }
            }
            tbody role="rowgroup" { (rows) }
        }
    }
}

fn cell(label: &str, value: Markup) -> Markup {
    html! { td role="cell" data-label=(label) { div { (value) } } }
}

/// A cell that may be empty; on a narrow screen an empty one is hidden.
fn optional_cell(label: &str, value: Option<&str>) -> Markup {
    match value {
        Some(value) => cell(label, html! { (value) }),
        None => html! { td class="none" role="cell" data-label=(label) { div { "–" } } },
    }
}

/// A sentence with commands in backquotes.
fn with_commands(sentence: &str) -> Markup {
    html! {
        @for (n, part) in sentence.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

pub(super) fn doors(live: &LiveState) -> Markup {
    let report = |family| live.doors.iter().find(|report| report.family == family);
    section(
        "doors",
        "Doors",
        html! {
            div class="two" {
                @for family in Family::ALL.into_iter().rev() {
                    (door(family, report(family), live.at))
                }
            }
        },
    )
}

fn door(of: Family, report: Option<&DoorReport>, now: Timestamp) -> Markup {
    let guarded_door = report.and_then(|report| Some((report, report.status.as_ref()?)));
    html! {
        article class="card" {
            h3 { (family(of)) }
            @if let Some((report, status)) = guarded_door {
                (guarded(report, status))
            } @else {
                p { (badge(Tone::Good, "always open")) }
                p class="quiet" { "The configuration has no [door." (of) "]." }
            }
            @if let Some(report) = report { (signs(report, now)) }
        }
    }
}

/// Signs, most of which change no door: the vantage is down, mail is missing, canaries are filtered away.
fn signs(report: &DoorReport, now: Timestamp) -> Markup {
    html! {
        @if report.silence.is_some() || report.filtered.is_some() || report.vantage.is_some() {
            dl {
                @if let Some(silence) = &report.silence {
                    dt { "Sign" }
                    dd { (badge(Tone::Fair, "mail missing")) " " (sentence(&silence.text(report.family, now))) }
                }
                @if let Some(filtered) = &report.filtered {
                    dt { "Sign" }
                    dd { (badge(Tone::Fair, "mail filtered")) " " (sentence(filtered)) }
                }
                @if let Some(vantage) = &report.vantage {
                    dt { "Vantage" }
                    dd { (sentence(&vantage_sentence(vantage, now))) }
                }
            }
        }
    }
}

fn guarded(report: &DoorReport, status: &DoorStatus) -> Markup {
    let (tone, word) = match status.state {
        DoorState::Open => (Tone::Good, "open"),
        DoorState::Opening => (Tone::Good, "open on trial"),
        DoorState::Closing => (Tone::Fair, "about to close"),
        DoorState::Closed => (Tone::Bad, "closed"),
    };
    let effect = match (status.admits, report.enforced) {
        (true, _) => "accepts new sessions".to_owned(),
        (false, true) => "refuses new sessions".to_owned(),
        (false, false) => format!("not enforced: {NOT_ENFORCED}"),
    };
    let method = if report.refuses == "syn" { "at the SYN" } else { "with 421" };
    let not_before = status.next_at.filter(|at| *at > status.at);
    html! {
        p {
            (badge(tone, word)) " for " strong { (duration(status.at.since(status.since))) } ", " (effect)
            @if status.mode != OperatorMode::Auto { ", manual" }
        }
        dl {
            dt { "Why" }
            dd { (sentence(&status.detail)) }
            dt { "Proof" }
            dd { (proof(status)) }
            dt { "Next" }
            dd {
                (with_commands(&sentence(&status.next)))
                @if let Some(at) = not_before { ", not before " (clock(at)) " UTC" }
            }
            dt { "Refused" }
            dd { (count(report.refused)) " since the start, " (method) }
        }
    }
}

fn proof(status: &DoorStatus) -> Markup {
    html! {
        @match status.proof {
            None => { "none since the start" },
            Some(proof) => {
                (proof_event(proof)) " "
                span title={ (date_time(proof.at)) " UTC" } { (ago(status.at.since(proof.at))) }
            },
        }
    }
}

/// One sentence for each direction that has canaries.
pub(super) fn canaries(live: &LiveState) -> Markup {
    let Some(canaries) = &live.canaries else { return html! {} };
    let known = canaries.iter().filter(|status| status.at.is_some() || status.waiting > 0);
    section(
        "canaries",
        "Canaries",
        html! {
            div class="card" {
                @if known.clone().next().is_none() { p { "None yet." } }
                @else { dl { @for status in known { (canary(status, live.at)) } } }
            }
        },
    )
}

fn canary(status: &CanaryStatus, now: Timestamp) -> Markup {
    let (tone, word) = match (status.comparison, status.at) {
        (Comparison::Equal, _) => (Tone::Good, "treated alike"),
        (Comparison::Ipv6Worse, _) => (Tone::Bad, "IPv6 worse"),
        (Comparison::Ipv4Worse, _) => (Tone::Fair, "IPv4 worse"),
        (Comparison::Unknown, _) => (Tone::Plain, "unknown"),
    };
    html! {
        dt { (status.direction) }
        dd {
            (badge(tone, word)) " "
            @match status.at {
                None => { "Reports about the first pair are due." },
                Some(at) => {
                    (sentence(&canary_detail(status))) ", "
                    span title={ (date_time(at)) " UTC" } { (ago(now.since(at))) }
                },
            }
        }
    }
}

pub(super) fn upstreams(live: &LiveState) -> Markup {
    const COLUMNS: [&str; 4] = ["Upstream", "State", "For", "Last error"];
    let [address, state, unchanged_for, error] = COLUMNS;
    let rows = html! {
        @for upstream in &live.upstreams {
            @let (tone, word) = upstream_state(upstream);
            tr role="row" {
                (cell(address, html! { code { (upstream.name) } }))
                (cell(state, badge(tone, word)))
                @let time = upstream.up.map(|_| duration(upstream.unchanged_for));
                (optional_cell(unchanged_for, time.as_deref()))
                (cell(error, html! {
                    @match upstream.last_error {
                        Some((error, before)) => { (error) ", " (ago(before)) },
                        None => { "none since the start" },
                    }
                }))
            }
        }
    };
    section(
        "upstreams",
        "Upstreams",
        html! {
            div class="card" {
                @if live.upstreams.is_empty() {
                    p { "No upstream is configured: mail is relayed to its original destination." }
                } @else {
                    (table("upstreams", &COLUMNS, rows))
                }
            }
        },
    )
}

const fn upstream_state(upstream: &UpstreamRow) -> (Tone, &'static str) {
    match upstream.up {
        Some(true) => (Tone::Good, "up"),
        Some(false) => (Tone::Bad, "down"),
        None => (Tone::Plain, "not tried yet"),
    }
}

pub(super) fn sessions(snapshot: &Snapshot) -> Markup {
    const COLUMNS: [&str; 12] = [
        "Ended", "Family", "Listener", "Client", "Verdict", "HELO", "From", "To", "Reply",
        "Messages", "Queue ID", "Time",
    ];
    let [ended, of, listener, client, verdict, helo, from, to, reply, messages, queue_id, time] =
        COLUMNS;
    let shows_clients = snapshot.sessions.iter().any(|row| row.client.is_some());
    // Sessions of one listener need no column.
    let mut names = snapshot.sessions.iter().map(|row| &row.listener);
    let first = names.next();
    let shows_listeners = names.any(|name| Some(name) != first);
    // Only where Postfix asks the policy.
    let shows_queue_ids = snapshot.sessions.iter().any(|row| row.queue_id.is_some());
    let is_shown = |column: &&str| match *column {
        "Client" => shows_clients,
        "Listener" => shows_listeners,
        "Queue ID" => shows_queue_ids,
        _ => true,
    };
    let columns: Vec<&str> = COLUMNS.into_iter().filter(is_shown).collect();
    let rows = html! {
        @for row in &snapshot.sessions {
            tr role="row" {
                (cell(ended, html! { time datetime=(row.end) { (clock(row.end)) } }))
                (cell(of, html! { (family(row.family)) }))
                @if shows_listeners { (optional_cell(listener, row.listener.as_deref())) }
                @if shows_clients { (optional_cell(client, row.client.as_deref())) }
                (cell(verdict, html! {
                    (badge(row.tone, row.verdict))
                    @if !row.reason.is_empty() { span class="reason" { (row.reason) } }
                }))
                (optional_cell(helo, row.helo.as_deref()))
                (optional_cell(from, row.from.as_deref()))
                (optional_cell(to, row.to.as_deref()))
                @let code = row.code.map(|code| code.to_string());
                (optional_cell(reply, code.as_deref()))
                @let accepted = (row.messages > 0).then(|| row.messages.to_string());
                (optional_cell(messages, accepted.as_deref()))
                @if shows_queue_ids { (optional_cell(queue_id, row.queue_id.as_deref())) }
                (cell(time, html! { (short_duration(row.duration)) }))
            }
        }
    };
    section(
        "sessions",
        "Latest sessions",
        listed("sessions", &columns, rows, snapshot.sessions.is_empty()),
    )
}

pub(super) fn lookups(live: &LiveState, snapshot: &Snapshot) -> Markup {
    const COLUMNS: [&str; 5] = ["Answered", "Lookup", "Subject", "Answer", "Source"];
    let [answered, lookup, subject, answer, source] = COLUMNS;
    let rows = html! {
        @for row in &snapshot.lookups {
            @let age = row.at.map(|at| ago(live.at.since(at)));
            tr role="row" {
                (optional_cell(answered, age.as_deref()))
                (cell(lookup, html! { (row.kind) }))
                (cell(subject, html! { (row.subject) }))
                (cell(answer, html! { (row.result) }))
                (cell(source, html! { (row.source) }))
            }
        }
    };
    let empty = snapshot.lookups.is_empty();
    section("lookups", "Latest lookups", listed("lookups", &COLUMNS, rows, empty))
}

fn listed(id: &str, columns: &[&str], rows: Markup, is_empty: bool) -> Markup {
    html! {
        div class="card" {
            @if is_empty { p { "None since the start." } } @else { (table(id, columns, rows)) }
        }
    }
}
