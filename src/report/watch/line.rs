//! A line of the view, in parts of a style each.

use std::fmt::Write as _;

use anstyle::Style;

use crate::report::columns::{cells, width};
use crate::report::page::PLAIN;

#[derive(Clone, Debug, Default)]
pub(super) struct StyledLine(Vec<(Style, String)>);

impl StyledLine {
    pub(super) fn new(style: Style, text: &str) -> Self {
        Self(vec![(style, text.to_owned())])
    }

    pub(super) fn push(&mut self, style: Style, text: &str) {
        self.0.push((style, text.to_owned()));
    }

    /// At most `columns`, without trailing spaces.
    pub(super) fn render(&self, columns: usize, colour: bool) -> String {
        let mut out = String::new();
        let mut left = columns;
        for (style, text) in &self.0 {
            let text = match width(text) {
                needed if needed <= left => text.clone(),
                _ => cells(std::array::from_ref(text), [left]),
            };
            left -= width(&text).min(left);
            // Writing to a string cannot fail.
            let _ = match colour && *style != PLAIN {
                true => write!(out, "{style}{text}{style:#}"),
                false => write!(out, "{text}"),
            };
        }
        out.truncate(out.trim_end().len());
        out
    }
}
