//! The page: header, headline, sections, footer.

use maud::{DOCTYPE, Markup, html};

use super::families::families;
use super::headline::Headline;
use super::masking::escaped;
use super::session::Tone;
use super::{GatewayInfo, LiveState, Snapshot, components};
use crate::humanize::{clock, date_time, duration};

/// Seconds between reloads without JavaScript.
const RELOAD: u32 = 30;

/// The script replaces the elements with `data-live`, each of which has an id.
pub(super) fn page(gateway: &GatewayInfo, live: &LiveState, snapshot: &Snapshot) -> Markup {
    let headline = Headline::new(live, snapshot);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (escaped(&gateway.host)) ": " (title(headline.tone)) }
                link rel="stylesheet" href="/status.css";
                link rel="icon" type="image/svg+xml" href="/status.svg";
                script src="/status.js" defer {}
                noscript { meta http-equiv="refresh" content=(RELOAD); }
            }
            body {
                header {
                    p class="name" { "gatepost on " (escaped(&gateway.host)) }
                    p id="asof" data-live { "as of " (clock(live.at)) " UTC" }
                    noscript { p { "reloads every " (RELOAD) " s" } }
                    p id="link" role="status" hidden {}
                    // Announces only changes of the title to screen readers; everything else changes constantly.
                    p id="announcement" role="status" class="unseen" {}
                }
                main {
                    (top(&headline))
                    (components::doors(live))
                    (families(snapshot))
                    (components::canaries(live))
                    (components::upstreams(live))
                    (components::sessions(snapshot))
                    (components::lookups(live, snapshot))
                }
                (footer(gateway, live))
            }
        }
    }
}

const fn title(tone: Tone) -> &'static str {
    match tone {
        Tone::Good | Tone::Plain => "no problems",
        Tone::Fair => "warning",
        Tone::Bad => "problem",
    }
}

fn top(headline: &Headline) -> Markup {
    let mark = match headline.tone {
        Tone::Good | Tone::Plain => "✓",
        Tone::Fair => "!",
        Tone::Bad => "✕",
    };
    html! {
        section id="headline" data-live class={ "headline " (headline.tone.class()) } {
            h1 { span class="mark" aria-hidden="true" { (mark) } span { (headline.sentence) } }
            @if !headline.also.is_empty() {
                ul { @for also in &headline.also { li { (also) } } }
            }
        }
    }
}

fn footer(gateway: &GatewayInfo, live: &LiveState) -> Markup {
    html! {
        footer {
            dl id="gateway" data-live class="pairs" {
                div { dt { "Version" } dd { (gateway.version) } }
                div {
                    dt { "Uptime" }
                    dd {
                        (duration(live.at.since(gateway.started)))
                        ", since " (date_time(gateway.started)) " UTC"
                    }
                }
                div { dt { "Configuration" } dd { code { (escaped(&gateway.config)) } } }
                div { dt { "Readiness" } dd { (live.readiness) } }
            }
            nav aria-label="machine-readable" {
                @for path in ["/metrics", "/readyz", "/healthz"] { a href=(path) { (path) } " " }
            }
        }
    }
}
