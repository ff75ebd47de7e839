//! The page: its frame, the sentence at the top and what stands at the bottom.

use maud::{DOCTYPE, Markup, html};

use super::families::families;
use super::headline::Headline;
use super::masking::shown;
use super::session::Tone;
use super::text::{clock, date, lasting};
use super::{GatewayInfo, LiveState, Snapshot, components};

/// Seconds after which a browser without JavaScript asks again.
const RELOAD: u32 = 30;

/// The whole of it. Parts with `data-live` are what the script swaps; each has an id.
pub(super) fn page(gateway: &GatewayInfo, now: &LiveState, seen: &Snapshot) -> Markup {
    let headline = Headline::of(now, seen);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (shown(&gateway.host)) ": " (title(headline.tone)) }
                link rel="stylesheet" href="/status.css";
                link rel="icon" type="image/svg+xml" href="/status.svg";
                script src="/status.js" defer {}
                noscript { meta http-equiv="refresh" content=(RELOAD); }
            }
            body {
                header {
                    p class="name" { "gatepost on " (shown(&gateway.host)) }
                    p id="asof" data-live { "as of " (clock(now.at)) " UTC" }
                    noscript { p { "reloads every " (RELOAD) " s" } }
                    p id="link" role="status" hidden {}
                    // The title, when it changes, for those who hear the page: all else changes all the time.
                    p id="heard" role="status" class="unseen" {}
                }
                main {
                    (top(&headline))
                    (components::doors(now))
                    (families(seen))
                    (components::upstreams(now))
                    (components::sessions(seen))
                    (components::facts(now, seen))
                }
                (bottom(gateway, now))
            }
        }
    }
}

const fn title(tone: Tone) -> &'static str {
    match tone {
        Tone::Good | Tone::Plain => "all is well",
        Tone::Fair => "worth a look",
        Tone::Bad => "something is wrong",
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

fn bottom(gateway: &GatewayInfo, now: &LiveState) -> Markup {
    html! {
        footer {
            dl id="gateway" data-live class="pairs" {
                div { dt { "Version" } dd { (gateway.version) } }
                div {
                    dt { "Up" }
                    dd { (lasting(now.at.since(gateway.started))) ", since " (date(gateway.started)) }
                }
                div { dt { "Configuration" } dd { code { (shown(&gateway.config)) } } }
                div { dt { "Readiness" } dd { (now.readiness) } }
            }
            nav aria-label="for machines" {
                @for path in ["/metrics", "/readyz", "/healthz"] { a href=(path) { (path) } " " }
            }
        }
    }
}
