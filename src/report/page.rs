//! Styled text for a terminal.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};

use super::columns::{WIDTH, wrapped};

pub(super) const PLAIN: Style = Style::new();
pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const RED: Style = AnsiColor::Red.on_default();
pub(super) const YELLOW: Style = AnsiColor::Yellow.on_default();

/// Writes lines to `out`, with ANSI styles if `colour` is set.
pub(super) struct Page<'a> {
    pub(super) out: &'a mut dyn Write,
    pub(super) colour: bool,
}

impl Page<'_> {
    /// One line, without trailing spaces.
    pub(super) fn line(&mut self, style: Style, line: &str) -> io::Result<()> {
        let line = line.trim_end();
        if self.colour && style != PLAIN && !line.is_empty() {
            writeln!(self.out, "{style}{line}{style:#}")
        } else {
            writeln!(self.out, "{line}")
        }
    }

    /// A paragraph; lines after the first are indented.
    pub(super) fn paragraph(&mut self, style: Style, text: &str) -> io::Result<()> {
        // All lines leave room for the indentation, the first one too: the text is wrapped in one pass.
        for (i, line) in wrapped(text, WIDTH - 4).iter().enumerate() {
            let indent = if i == 0 { "" } else { "    " };
            self.line(style, &format!("{indent}{line}"))?;
        }
        Ok(())
    }
}
