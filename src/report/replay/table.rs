//! The table of sessions: one row each, in the order of their numbers.

use std::collections::BTreeMap;
use std::io;

use super::rows::{Layout, Row};
use super::words::{count, date, file as file_name};
use super::{BOLD, DIM, NumberedSession, PLAIN, Page};
use crate::report::columns::WIDTH;

/// Rows that are kept and shown; those of the lowest numbers.
const MAX_ROWS: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<u64, Placed>,
    /// In the order in which they were told.
    files: Vec<String>,
    unkept: u64,
}

#[derive(Debug)]
struct Placed {
    file: usize,
    row: Row,
}

impl Table {
    pub(super) fn session(&mut self, told: &NumberedSession<'_>) {
        if self.files.last().is_none_or(|last| last != told.file) {
            // A file whose sessions are told again after another's gets one more line, and that is right.
            if self.files.len() < MAX_ROWS {
                self.files.push(told.file.to_owned());
            }
        }
        let file = self.files.len().saturating_sub(1);
        self.rows
            .insert(told.number, Placed { file, row: Row::of(told.record, told.policy_applied) });
        if self.rows.len() > MAX_ROWS {
            self.rows.pop_last();
            self.unkept += 1;
        }
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> io::Result<()> {
        let last = self.rows.keys().next_back().copied().unwrap_or_default();
        let mut layout = Layout::new(self.rows.values().map(|placed| &placed.row), last, WIDTH);
        page.line(BOLD, &layout.head())?;
        let mut before: Option<&Placed> = None;
        for (n, placed) in &self.rows {
            self.part(before, placed, page)?;
            before = Some(placed);
            let (style, line) = layout.row(*n, &placed.row);
            page.line(style, &line)?;
        }
        if self.unkept > 0 {
            let more = count(self.unkept);
            page.say(PLAIN, &format!("… and {more} more; --format json lists all"))?;
        }
        layout.note().map_or(Ok(()), |note| page.say(DIM, note))
    }

    /// Where another file or another day begins.
    fn part(
        &self,
        before: Option<&Placed>,
        placed: &Placed,
        page: &mut Page<'_>,
    ) -> io::Result<()> {
        let day = date(placed.row.start);
        let file = match before {
            Some(before) if before.file == placed.file => {
                if date(before.row.start) == day {
                    return Ok(());
                }
                String::new()
            }
            _ if self.files.len() > 1 => {
                let file = self.files.get(placed.file).map_or("", String::as_str);
                format!("{}, ", file_name(file))
            }
            None => return Ok(()),
            Some(_) => String::new(),
        };
        page.line(DIM, &format!("-- {file}{day}"))
    }
}
