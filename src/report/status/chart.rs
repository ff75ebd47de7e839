//! The sessions of a family in the last hour as an inline SVG, one bar per minute.
//!
//! Successful sessions are above the line, refused and failed ones below it, so that the chart needs no colours. Both families
//! have the same scale. Geometry is in attributes and colours in the style sheet, because the page's content security policy
//! forbids inline styles.

use maud::{Markup, html};

use super::hour::{MINUTES, SessionCounts};
use crate::humanize::count;

/// Width of a bar and the space next to it.
const STEP: usize = 4;
const BAR: usize = 3;
const WIDTH: usize = STEP * MINUTES;
/// Heights above and below the line.
const UP: f64 = 48.0;
const DOWN: f64 = 20.0;

/// Sessions per unit of height; never zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale(f64);

impl Scale {
    /// Fits all of `minutes`.
    pub(super) fn of<'a>(minutes: impl Iterator<Item = &'a SessionCounts>) -> Self {
        let most = minutes.fold(f64::MIN_POSITIVE, |most, counts| {
            let down = f64::from(counts.refused) + f64::from(counts.failed);
            most.max(f64::from(counts.succeeded) / UP).max(down / DOWN)
        });
        Self(most)
    }

    fn height(self, sessions: u32) -> f64 {
        // A single session is visible.
        if sessions == 0 { 0.0 } else { (f64::from(sessions) / self.0).max(1.0) }
    }
}

pub(super) fn chart(
    family: &str,
    minutes: &[SessionCounts; MINUTES],
    all: SessionCounts,
    scale: Scale,
) -> Markup {
    let most = minutes.iter().map(|counts| counts.sessions()).max().unwrap_or_default();
    let description = format!(
        "{family} sessions per minute in the last hour: {} successful, {} refused, {} failed; \
         at most {most} per minute",
        all.succeeded, all.refused, all.failed
    );
    html! {
        svg class="chart" viewBox={ "0 0 " (WIDTH) " " (UP + DOWN) } preserveAspectRatio="none" role="img"
            aria-label=(description) {
            title { (description) }
            @for (n, counts) in minutes.iter().enumerate() {
                @let x = n * STEP;
                @let (succeeded, refused, failed) =
                    (scale.height(counts.succeeded), scale.height(counts.refused), scale.height(counts.failed));
                (bar("succeeded", x, UP - succeeded, succeeded))
                (bar("refused", x, UP + 1.0, refused))
                (bar("failed", x, UP + 1.0 + refused, failed))
            }
            rect class="line" x="0" y=(UP) width=(WIDTH) height="1" {}
        }
        p class="axis" aria-hidden="true" {
            span { "60 min ago" }
            span class="most" { "at most " (count(most.into())) " per minute" }
            span { "now" }
        }
    }
}

fn bar(class: &str, x: usize, y: f64, height: f64) -> Markup {
    html! {
        @if height > 0.0 {
            rect class=(class) x=(x) y=(number(y)) width=(BAR) height=(number(height)) {}
        }
    }
}

/// A tenth is less than a pixel.
fn number(n: f64) -> String {
    format!("{n:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_within_the_chart() {
        let mut minutes = [SessionCounts::default(); MINUTES];
        for (n, counts) in (0..).zip(&mut minutes) {
            *counts = SessionCounts {
                succeeded: n * 1000,
                refused: n * 7,
                failed: u32::from(n == 59),
                ..*counts
            };
        }
        minutes[3] =
            SessionCounts { refused: u32::MAX, failed: u32::MAX, ..SessionCounts::default() };
        let svg = chart("IPv6", &minutes, SessionCounts::default(), Scale::of(minutes.iter()));
        let number = |rect: &str, name: &str| -> f64 {
            let rest = rect.split_once(&format!(" {name}=\"")).unwrap().1;
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        let svg = svg.into_string();
        let rects: Vec<&str> = svg.split("<rect").skip(1).collect();
        assert!(rects.len() > MINUTES, "{svg}");
        for rect in rects {
            let (x, y) = (number(rect, "x"), number(rect, "y"));
            assert!(x + number(rect, "width") <= WIDTH as f64, "{rect}");
            // Very low bars are enlarged to be visible.
            assert!(y >= 0.0 && y + number(rect, "height") <= UP + DOWN + 2.0, "{rect}");
        }
        assert!(!svg.contains("style="));
        let none = [SessionCounts::default(); MINUTES];
        let empty =
            chart("IPv4", &none, SessionCounts::default(), Scale::of(none.iter())).into_string();
        assert_eq!(empty.matches("<rect").count(), 1, "{empty}");
    }
}
