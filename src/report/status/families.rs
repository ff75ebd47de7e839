//! The last hour of both families, as charts and numbers.

use std::time::Duration;

use maud::{Markup, html};

use super::chart::{Scale, chart};
use super::components::section;
use super::hour::SessionCounts;
use super::{FamilySnapshot, Snapshot};
use crate::addr::Family;
use crate::humanize::{count, family, short_duration};

/// IPv6, the family in question, comes first.
const ORDER: [Family; Family::ALL.len()] = [Family::Ipv6, Family::Ipv4];

pub(super) fn families(snapshot: &Snapshot) -> Markup {
    let both = ORDER.map(|family| (family, &snapshot.families[family as usize]));
    let scale = Scale::of(both.iter().flat_map(|(_, of)| &of.hour.minutes));
    let row = |name: &str, value: &dyn Fn(Family, &FamilySnapshot) -> Markup| {
        html! {
            tr role="row" {
                th scope="row" role="rowheader" { (name) }
                @for (family, of) in both { td role="cell" { (value(family, of)) } }
            }
        }
    };
    let total = |name: &str, value: fn(SessionCounts) -> u32| {
        row(name, &|_, of| html! { (count(value(of.hour.all).into())) })
    };
    let drawing =
        |name, of: &FamilySnapshot| chart(family(name), &of.hour.minutes, of.hour.all, scale);
    section(
        "families",
        "Last hour",
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
                        (row("Sessions per minute", &drawing))
                        (row("Open sessions", &|_, of| html! { (count(of.open)) }))
                        (total("Finished sessions", SessionCounts::sessions))
                        (total("… refused by the gateway", |all| all.refused))
                        (total("… failed", |all| all.failed))
                        @if both.iter().any(|(_, of)| of.hour.all.under_tls > 0) {
                            (total("… under TLS, replies not visible", |all| all.under_tls))
                        }
                        @if both.iter().any(|(_, of)| of.hour.all.messages_received > 0) {
                            (total("Messages received under TLS", |all| all.messages_received))
                        }
                        (row("Accepted messages", &|_, of| messages(of.hour.all, of.hour.all.messages_accepted)))
                        (row("Refused messages", &|_, of| messages(of.hour.all, of.hour.all.messages_refused)))
                        (row("Accepted share of messages", &|_, of| accepted_share(of.hour.all)))
                        (row("Time to greeting, median / p95", &|_, of| quantiles(of.hour.greeting)))
                        (row("Reply to a message, median / p95", &|_, of| quantiles(of.hour.reply)))
                    }
                }
                p class="legend quiet" {
                    span { span class="key succeeded" {} "above the line: successful" }
                    span { span class="key refused" {} "below: refused by the gateway" }
                    span { span class="key failed" {} "failed" }
                }
            }
        },
    )
}

/// No number where messages went by unseen, and no other was seen.
fn messages(all: SessionCounts, number: u32) -> Markup {
    let seen = all.messages_accepted.saturating_add(all.messages_refused) > 0;
    html! {
        @if seen || all.under_tls == 0 { (count(number.into())) } @else { span class="none" { "–" } }
    }
}

fn accepted_share(all: SessionCounts) -> Markup {
    let accepted = u64::from(all.messages_accepted);
    let decided = accepted + u64::from(all.messages_refused);
    html! {
        @match (accepted * 100).checked_div(decided) {
            Some(0) if accepted > 0 => { "under 1 %" },
            Some(percent) => { (percent) " %" },
            None => span class="none" { "–" },
        }
    }
}

fn quantiles(times: Option<[Duration; 2]>) -> Markup {
    html! {
        @if let Some([median, p95]) = times {
            (short_duration(median)) " / " (short_duration(p95))
        } @else {
            span class="none" { "–" }
        }
    }
}
