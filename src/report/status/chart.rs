//! The sessions of a family's last hour, a bar a minute, as SVG in the page.
//!
//! Up is what went well, down what was refused or failed: the eye needs no colour for it. Both families are drawn to one
//! scale. Geometry stands in attributes and colours in the style sheet: the page's policy forbids styles in elements.

use maud::{Markup, html};

use super::hour::{Counts, MINUTES};
use crate::report::replay::words::count;

/// Of a minute: the bar and the gap beside it.
const STEP: usize = 4;
const BAR: usize = 3;
const WIDTH: usize = STEP * MINUTES;
/// Above the line, and below it.
const UP: f64 = 48.0;
const DOWN: f64 = 20.0;

/// Sessions in a unit of height; never zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale(f64);

impl Scale {
    /// The one for all of `minutes`.
    pub(super) fn of<'a>(minutes: impl Iterator<Item = &'a Counts>) -> Self {
        let most = minutes.fold(f64::MIN_POSITIVE, |most, counts| {
            let down = f64::from(counts.refused) + f64::from(counts.failed);
            most.max(f64::from(counts.well) / UP).max(down / DOWN)
        });
        Self(most)
    }

    fn height(self, sessions: u32) -> f64 {
        // What there is can be seen.
        if sessions == 0 { 0.0 } else { (f64::from(sessions) / self.0).max(1.0) }
    }
}

pub(super) fn chart(
    family: &str,
    minutes: &[Counts; MINUTES],
    all: Counts,
    scale: Scale,
) -> Markup {
    let most = minutes.iter().map(|counts| counts.sessions()).max().unwrap_or_default();
    let words = format!(
        "{family}, sessions of each minute of the last hour: {} went well, {} refused, {} failed; \
         at most {most} in a minute",
        all.well, all.refused, all.failed
    );
    html! {
        svg class="chart" viewBox={ "0 0 " (WIDTH) " " (UP + DOWN) } preserveAspectRatio="none" role="img"
            aria-label=(words) {
            title { (words) }
            @for (n, counts) in minutes.iter().enumerate() {
                @let x = n * STEP;
                @let (well, refused, failed) =
                    (scale.height(counts.well), scale.height(counts.refused), scale.height(counts.failed));
                (bar("well", x, UP - well, well))
                (bar("refused", x, UP + 1.0, refused))
                (bar("failed", x, UP + 1.0 + refused, failed))
            }
            rect class="line" x="0" y=(UP) width=(WIDTH) height="1" {}
        }
        p class="axis" aria-hidden="true" {
            span { "60 min ago" }
            span class="most" { "at most " (count(most.into())) " a minute" }
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

/// One digit after the point is finer than a pixel.
fn number(n: f64) -> String {
    format!("{n:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_within_the_picture() {
        let mut minutes = [Counts::default(); MINUTES];
        for (n, counts) in (0..).zip(&mut minutes) {
            *counts =
                Counts { well: n * 1000, refused: n * 7, failed: u32::from(n == 59), ..*counts };
        }
        minutes[3] = Counts { refused: u32::MAX, failed: u32::MAX, ..Counts::default() };
        let drawn = chart("IPv6", &minutes, Counts::default(), Scale::of(minutes.iter()));
        let number = |rect: &str, name: &str| -> f64 {
            let rest = rect.split_once(&format!(" {name}=\"")).unwrap().1;
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        let drawn = drawn.into_string();
        let rects: Vec<&str> = drawn.split("<rect").skip(1).collect();
        assert!(rects.len() > MINUTES, "{drawn}");
        for rect in rects {
            let (x, y) = (number(rect, "x"), number(rect, "y"));
            assert!(x + number(rect, "width") <= WIDTH as f64, "{rect}");
            // Bars that would be too low to be seen are a little higher.
            assert!(y >= 0.0 && y + number(rect, "height") <= UP + DOWN + 2.0, "{rect}");
        }
        assert!(!drawn.contains("style="));
        let none = [Counts::default(); MINUTES];
        let empty = chart("IPv4", &none, Counts::default(), Scale::of(none.iter())).into_string();
        assert_eq!(empty.matches("<rect").count(), 1, "{empty}");
    }
}
