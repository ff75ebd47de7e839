//! Errors in a configuration file: position, problem and remedy.

use std::fmt;

/// A place in a file. Both count from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// `None` if the file cannot be read.
    pub position: Option<Position>,
    /// `section.key`, `[section]`, or `TOML` for its syntax; `None` if the file cannot be read.
    pub field: Option<String>,
    pub problem: String,
    pub remedy: String,
}

/// All errors in one file, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    file: String,
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(super) fn new(file: &str, errors: Vec<ConfigError>) -> Self {
        Self { file: file.to_owned(), errors }
    }

    pub(super) fn unreadable(file: &str, error: &std::io::Error) -> Self {
        let error = ConfigError {
            position: None,
            field: None,
            problem: format!("cannot be read ({error})"),
            remedy: "name a file that this user may read".to_owned(),
        };
        Self::new(file, vec![error])
    }

    /// `bytes` are UTF-8 up to `offset`.
    pub(super) fn not_utf8(file: &str, bytes: &[u8], offset: usize) -> Self {
        let text = String::from_utf8_lossy(bytes.get(..offset).unwrap_or_default());
        let byte = bytes.get(offset).copied().unwrap_or_default();
        let error = ConfigError {
            position: Some(LineIndex::new(&text).position(offset)),
            field: Some("TOML".to_owned()),
            problem: format!("the byte 0x{byte:02x} here is not UTF-8"),
            remedy: "save the file in UTF-8".to_owned(),
        };
        Self::new(file, vec![error])
    }

    /// In the order of the file.
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

/// One line per error, `file:line:column: section.key: problem; remedy`, and the count if there are several.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.errors.iter().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file)?;
            if let Some(Position { line, column }) = error.position {
                write!(f, "{line}:{column}:")?;
            }
            if let Some(field) = &error.field {
                write!(f, " {field}:")?;
            }
            write!(f, " {}; {}", error.problem, error.remedy)?;
        }
        match self.errors.len() {
            0 | 1 => Ok(()),
            count => write!(f, "\n{}: {count} errors", self.file),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// Byte offsets to positions.
#[derive(Debug)]
pub(super) struct LineIndex<'t> {
    text: &'t str,
    /// Offset of the first byte of each line.
    starts: Vec<usize>,
}

impl<'t> LineIndex<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        let starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1));
        Self { text, starts: starts.collect() }
    }

    /// The position of the byte at `offset`. An offset beyond the end of the text is on its last line.
    pub(super) fn position(&self, offset: usize) -> Position {
        // The first line starts at 0, so at least one start is not after any offset.
        let line = self.starts.partition_point(|&start| start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or("").char_indices();
        let column = rest.take_while(|&(at, _)| start + at < offset).count();
        Position { line, column: column + 1 }
    }
}
