//! The table of sessions, in the order of their numbers.

use std::collections::BTreeMap;
use std::io;

use super::{NAME, NumberedSession};
use crate::humanize::{count, date};
use crate::report::columns::WIDTH;
use crate::report::escape::path_in_columns;
use crate::report::page::{BOLD, DIM, PLAIN, Page};
use crate::report::rows::{SessionTableRow, TableLayout};

/// Stored rows, those with the lowest numbers.
const MAX_ROWS: usize = 1000;

#[derive(Debug, Default)]
pub(super) struct ReplayTable {
    rows: BTreeMap<u64, FileRow>,
    /// In the order of their sessions.
    files: Vec<String>,
    /// Rows that were counted but not stored.
    omitted: u64,
}

#[derive(Debug)]
struct FileRow {
    /// Index into the table's files.
    file: usize,
    row: SessionTableRow,
}

impl ReplayTable {
    pub(super) fn add_session(&mut self, session: &NumberedSession<'_>) {
        // A file whose sessions continue after another file's is listed again.
        let is_new = self.files.last().is_none_or(|last| last != session.file);
        if is_new && self.files.len() < MAX_ROWS {
            self.files.push(session.file.to_owned());
        }
        let file = self.files.len().saturating_sub(1);
        let row = SessionTableRow::new(session.record, session.policy_applied);
        self.rows.insert(session.number, FileRow { file, row });
        if self.rows.len() > MAX_ROWS {
            self.rows.pop_last();
            self.omitted += 1;
        }
    }

    pub(super) fn write(&self, page: &mut Page<'_>) -> io::Result<()> {
        let last = self.rows.keys().next_back().copied().unwrap_or_default();
        let mut layout = TableLayout::new(self.rows.values().map(|row| &row.row), last, WIDTH);
        page.line(BOLD, &layout.header())?;
        let mut before: Option<&FileRow> = None;
        for (number, row) in &self.rows {
            self.write_separator(before, row, page)?;
            before = Some(row);
            let (style, line) = layout.row(*number, &row.row);
            page.line(style, &line)?;
        }
        if self.omitted > 0 {
            let more = count(self.omitted);
            page.paragraph(PLAIN, &format!("… and {more} more; --format json lists them"))?;
        }
        layout.note().map_or(Ok(()), |note| page.paragraph(DIM, note))
    }

    /// A line before the first session of another file or day.
    fn write_separator(
        &self,
        before: Option<&FileRow>,
        row: &FileRow,
        page: &mut Page<'_>,
    ) -> io::Result<()> {
        let day = date(row.row.start);
        let file = match before {
            Some(before) if before.file == row.file => {
                if date(before.row.start) == day {
                    return Ok(());
                }
                String::new()
            }
            _ if self.files.len() > 1 => {
                let file = self.files.get(row.file).map_or("", String::as_str);
                format!("{}, ", path_in_columns(file, NAME))
            }
            None => return Ok(()),
            Some(_) => String::new(),
        };
        page.line(DIM, &format!("-- {file}{day}"))
    }
}
