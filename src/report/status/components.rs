//! The sections of the page, one after the other.
//!
//! On a narrow screen the rows of tables become blocks, and the names of columns stand before the values, from `data-label`.
//! A table that is laid out so is none any more to those who hear the page: the roles say that it still is.

use maud::{Markup, html};

use super::masking::sentence;
use super::session::Tone;
use super::text::{ago, attempt, clock, date, lasting};
use super::{LiveState, Snapshot, UpstreamRow};
use crate::addr::Family;
use crate::policy::door::{
    DoorReport, DoorState, DoorStatus, OperatorMode, PathProof, ProofSource,
};
use crate::report::replay::words::{count, duration, family};

/// A word in its colour.
fn badge(tone: Tone, word: &str) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (word) } }
}

/// A section with its heading, which the script keeps up to date.
pub(super) fn section(id: &str, heading: &str, body: Markup) -> Markup {
    html! {
        section id=(id) data-live aria-labelledby={ (id) "-h" } {
            h2 id={ (id) "-h" } { (heading) }
            (body)
        }
    }
}

/// A table with these columns; each row is what [`cell`]s are in.
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

/// A cell that may have nothing in it: on a narrow screen it takes no room then.
fn may(label: &str, value: Option<&str>) -> Markup {
    match value {
        Some(value) => cell(label, html! { (value) }),
        None => html! { td class="none" role="cell" data-label=(label) { div { "–" } } },
    }
}

/// Commands within the sentence, which stand between backquotes.
fn commands(sentence: &str) -> Markup {
    html! {
        @for (n, part) in sentence.split('`').enumerate() {
            @if n % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

pub(super) fn doors(now: &LiveState) -> Markup {
    let told = |family| now.doors.iter().find(|told| told.family == family);
    section(
        "doors",
        "Doors",
        html! {
            div class="two" {
                @for family in Family::ALL.into_iter().rev() { (door(family, told(family))) }
            }
        },
    )
}

fn door(of: Family, told: Option<&DoorReport>) -> Markup {
    let known = told.and_then(|told| Some((told, told.status.as_ref()?)));
    html! {
        article class="card" {
            h3 { (family(of)) }
            @if let Some((told, status)) = known {
                (guarded(told, status))
            } @else {
                p { (badge(Tone::Good, "always open")) }
                p class="quiet" { "Nothing guards it: there is no [door." (of) "] in the configuration." }
            }
        }
    }
}

fn guarded(told: &DoorReport, status: &DoorStatus) -> Markup {
    let (tone, word) = match status.state {
        DoorState::Open => (Tone::Good, "open"),
        DoorState::Opening => (Tone::Good, "open on trial"),
        DoorState::Closing => (Tone::Fair, "about to close"),
        DoorState::Closed => (Tone::Bad, "closed"),
    };
    let does = if status.admits { "lets new sessions in" } else { "refuses new sessions" };
    let how = if told.refuses == "syn" { "at the SYN" } else { "with 421" };
    let not_before = status.next_at.filter(|at| *at > status.at);
    html! {
        p {
            (badge(tone, word)) " for " strong { (lasting(status.at.since(status.since))) } ", " (does)
            @if status.mode != OperatorMode::Auto { ", by hand" }
        }
        dl {
            dt { "Why" }
            dd { (sentence(&status.detail)) }
            dt { "Proof" }
            dd { (proof(status.proof, status)) }
            dt { "Next" }
            dd {
                (commands(&sentence(&status.next)))
                @if let Some(at) = not_before { ", not before " (clock(at)) " UTC" }
            }
            dt { "Refused" }
            dd { (count(told.refused)) " since the start, " (how) }
        }
    }
}

fn proof(proof: Option<PathProof>, status: &DoorStatus) -> Markup {
    html! {
        @match proof {
            None => { "none since the start" },
            Some(PathProof { at, by }) => {
                @let what = match by {
                    ProofSource::Message => "a message was accepted",
                    ProofSource::Probe => "a probe from elsewhere reached us",
                };
                (what) " " span title=(date(at)) { (ago(status.at.since(at))) }
            },
        }
    }
}

pub(super) fn upstreams(now: &LiveState) -> Markup {
    const COLUMNS: [&str; 4] = ["Upstream", "Health", "For", "Last error"];
    let [address, health, lasts, error] = COLUMNS;
    let rows = html! {
        @for upstream in &now.upstreams {
            @let (tone, word) = healthy(upstream);
            tr role="row" {
                (cell(address, html! { code { (upstream.address) } }))
                (cell(health, badge(tone, word)))
                @let since = upstream.up.map(|_| lasting(upstream.lasts));
                (may(lasts, since.as_deref()))
                (cell(error, html! {
                    @match upstream.failed {
                        Some((what, before)) => { (attempt(what)) ", " (ago(before)) },
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
                @if now.upstreams.is_empty() {
                    p { "None is configured: mail goes on to where its client meant to go." }
                } @else {
                    (table("upstreams", &COLUMNS, rows))
                }
            }
        },
    )
}

const fn healthy(upstream: &UpstreamRow) -> (Tone, &'static str) {
    match upstream.up {
        Some(true) => (Tone::Good, "answers"),
        Some(false) => (Tone::Bad, "does not answer"),
        None => (Tone::Plain, "not tried yet"),
    }
}

pub(super) fn sessions(seen: &Snapshot) -> Markup {
    const COLUMNS: [&str; 10] =
        ["Ended", "Family", "Client", "Verdict", "HELO", "From", "To", "Reply", "Messages", "Took"];
    let [ended, of, client, verdict, helo, from, to, reply, messages, took] = COLUMNS;
    let shows_clients = seen.sessions.iter().any(|row| row.client.is_some());
    let columns: Vec<&str> =
        COLUMNS.into_iter().filter(|column| shows_clients || *column != client).collect();
    let rows = html! {
        @for row in &seen.sessions {
            tr role="row" {
                (cell(ended, html! { time datetime=(row.end) { (clock(row.end)) } }))
                (cell(of, html! { (family(row.family)) }))
                @if shows_clients { (may(client, row.client.as_deref())) }
                (cell(verdict, html! {
                    (badge(row.tone, row.verdict))
                    @if !row.why.is_empty() { span class="why" { (row.why) } }
                }))
                (may(helo, row.helo.as_deref()))
                (may(from, row.from.as_deref()))
                (may(to, row.to.as_deref()))
                @let code = row.code.map(|code| code.to_string());
                (may(reply, code.as_deref()))
                @let taken = (row.messages > 0).then(|| row.messages.to_string());
                (may(messages, taken.as_deref()))
                (cell(took, html! { (duration(row.duration)) }))
            }
        }
    };
    section(
        "sessions",
        "Latest sessions",
        listed("sessions", &columns, rows, seen.sessions.is_empty()),
    )
}

pub(super) fn facts(now: &LiveState, seen: &Snapshot) -> Markup {
    const COLUMNS: [&str; 5] = ["Learnt", "What", "About", "Result", "From"];
    let [learnt, what, about, result, source] = COLUMNS;
    let rows = html! {
        @for row in &seen.facts {
            @let age = row.at.map(|at| ago(now.at.since(at)));
            tr role="row" {
                (may(learnt, age.as_deref()))
                (cell(what, html! { (row.kind) }))
                (cell(about, html! { (row.about) }))
                (cell(result, html! { (row.result) }))
                (cell(source, html! { (row.source) }))
            }
        }
    };
    section("facts", "Latest facts", listed("facts", &COLUMNS, rows, seen.facts.is_empty()))
}

fn listed(id: &str, columns: &[&str], rows: Markup, is_empty: bool) -> Markup {
    html! {
        div class="card" {
            @if is_empty { p { "None since the start." } } @else { (table(id, columns, rows)) }
        }
    }
}
