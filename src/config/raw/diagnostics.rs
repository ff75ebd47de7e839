//! The errors found while reading one file.

use std::ops::Range;

use crate::config::error::{ConfigError, LineIndex, Position};

#[derive(Debug)]
pub(super) struct Diagnostics<'t> {
    lines: LineIndex<'t>,
    /// With the byte offset of each.
    errors: Vec<(usize, ConfigError)>,
    /// Offsets of syntax errors.
    broken: Vec<usize>,
}

impl<'t> Diagnostics<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { lines: LineIndex::new(text), errors: Vec::new(), broken: Vec::new() }
    }

    pub(super) fn position(&self, offset: usize) -> Position {
        self.lines.position(offset)
    }

    /// Records an error of `field` at the byte offset `at`; once, if several listeners share the value.
    pub(super) fn error(
        &mut self,
        at: usize,
        field: &str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let error = ConfigError {
            position: Some(self.lines.position(at)),
            field: Some(field.to_owned()),
            problem: problem.into(),
            remedy: remedy.into(),
        };
        if !self.errors.contains(&(at, error.clone())) {
            self.errors.push((at, error));
        }
    }

    /// Whether there is an error of `field`.
    pub(super) fn has(&self, field: &str) -> bool {
        self.errors.iter().any(|(_, error)| error.field.as_deref() == Some(field))
    }

    /// The syntax is broken at `at`.
    pub(super) fn mark_broken(&mut self, at: usize) {
        self.broken.push(at);
    }

    /// Whether a syntax error is within `span`: the value there is not checked again.
    pub(super) fn is_broken(&self, span: &Range<usize>) -> bool {
        self.broken.iter().any(|at| (span.start..=span.end).contains(at))
    }

    /// Broken syntax may have swallowed keys, so the absence of one proves nothing.
    pub(super) const fn is_incomplete(&self) -> bool {
        !self.broken.is_empty()
    }

    /// All errors, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<ConfigError> {
        self.errors.sort_by_key(|&(at, _)| at);
        self.errors.into_iter().map(|(_, error)| error).collect()
    }
}
