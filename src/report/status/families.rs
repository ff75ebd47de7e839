//! Both families side by side: the last hour as bars and as numbers.

use std::time::Duration;

use maud::{Markup, html};

use super::chart::{Scale, chart};
use super::components::section;
use super::hour::Counts;
use super::{OfFamily, Snapshot};
use crate::addr::Family;
use crate::report::replay::words::{count, duration, family};

/// As people name them.
const ORDER: [Family; Family::ALL.len()] = [Family::Ipv6, Family::Ipv4];

pub(super) fn families(seen: &Snapshot) -> Markup {
    let both = ORDER.map(|family| (family, &seen.families[family as usize]));
    let scale = Scale::of(both.iter().flat_map(|(_, of)| &of.past.minutes));
    let row = |name: &str, value: &dyn Fn(Family, &OfFamily) -> Markup| {
        html! {
            tr role="row" {
                th scope="row" role="rowheader" { (name) }
                @for (family, of) in both { td role="cell" { (value(family, of)) } }
            }
        }
    };
    let counted = |name: &str, value: fn(Counts) -> u32| {
        row(name, &|_, of| html! { (count(value(of.past.all).into())) })
    };
    let drawn = |name, of: &OfFamily| chart(family(name), &of.past.minutes, of.past.all, scale);
    section(
        "families",
        "The last hour",
        html! {
            div class="card" {
                table class="compare" role="table" aria-labelledby="families-h" {
                    thead role="rowgroup" {
                        tr role="row" {
                            td role="cell" {}
                            @for (name, _) in both { th scope="col" role="columnheader" { (family(name)) } }
                        }
                    }
                    tbody role="rowgroup" {
                        (row("Sessions, by the minute", &drawn))
                        (row("Sessions open now", &|_, of| html! { (count(of.open)) }))
                        (counted("Sessions that ended", Counts::sessions))
                        (counted("… refused by the gateway", |all| all.refused))
                        (counted("… failed", |all| all.failed))
                        (counted("Messages accepted", |all| all.messages_taken))
                        (counted("Messages refused", |all| all.messages_refused))
                        (row("Success (of messages)", &|_, of| success(of.past.all)))
                        (row("Greeting after, median / p95", &|_, of| times(of.past.greeting)))
                        (row("Message answered after, median / p95", &|_, of| times(of.past.reply)))
                    }
                }
                p class="legend quiet" {
                    span { span class="key well" {} "above the line: went well" }
                    span { span class="key refused" {} "below it: refused by the gateway" }
                    span { span class="key failed" {} "and failed" }
                }
            }
        },
    )
}

fn success(all: Counts) -> Markup {
    let taken = u64::from(all.messages_taken);
    let tried = taken + u64::from(all.messages_refused);
    html! {
        @match (taken * 100).checked_div(tried) {
            Some(0) if taken > 0 => { "under 1 %" },
            Some(percent) => { (percent) " %" },
            None => span class="none" { "–" },
        }
    }
}

/// Half of all, and 95 % of them.
fn times(times: Option<[Duration; 2]>) -> Markup {
    html! {
        @if let Some([median, most]) = times {
            (duration(median)) " / " (duration(most))
        } @else {
            span class="none" { "–" }
        }
    }
}
