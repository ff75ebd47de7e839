//! What is wrong with a configuration file, for people: where, what was found, what to do.

use std::fmt;

/// A place in a file, both counted from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Absent when the file as a whole could not be read.
    pub position: Option<Position>,
    /// `section.key`, `[section]`, or `TOML` for its syntax; absent when it is about the file as a whole.
    pub field: Option<String>,
    /// What was found and why it is wrong.
    pub problem: String,
    pub advice: String,
}

/// Every error of one file, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    file: String,
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(super) fn new(file: &str, errors: Vec<ConfigError>) -> Self {
        Self { file: file.to_owned(), errors }
    }

    /// One error about the file as a whole.
    pub(super) fn whole_file(file: &str, problem: String, advice: &str) -> Self {
        let error = ConfigError { position: None, field: None, problem, advice: advice.to_owned() };
        Self::new(file, vec![error])
    }

    /// `bytes` are text up to the one at `offset`.
    pub(super) fn not_utf8(file: &str, bytes: &[u8], offset: usize) -> Self {
        let text = String::from_utf8_lossy(bytes.get(..offset).unwrap_or_default());
        let byte = bytes.get(offset).copied().unwrap_or_default();
        let error = ConfigError {
            position: Some(Lines::of(&text).position(offset)),
            field: Some("TOML".to_owned()),
            problem: format!("the byte 0x{byte:02x} here is not UTF-8"),
            advice: "save the file in UTF-8".to_owned(),
        };
        Self::new(file, vec![error])
    }

    /// In the order of the file.
    pub fn errors(&self) -> &[ConfigError] {
        &self.errors
    }
}

/// One error a line, `file:line:column: section.key: what is wrong; what to do`, and the count when there are several.
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
            write!(f, " {}; {}", error.problem, error.advice)?;
        }
        match self.errors.len() {
            0 | 1 => Ok(()),
            count => write!(f, "\n{}: {count} errors", self.file),
        }
    }
}

impl std::error::Error for ConfigErrors {}

/// Turns byte offsets into positions.
#[derive(Debug)]
pub(super) struct Lines<'t> {
    text: &'t str,
    /// Offset of each line's first byte.
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(super) fn of(text: &'t str) -> Self {
        let breaks = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        let starts = std::iter::once(0).chain(breaks.map(|(at, _)| at + 1));
        Self { text, starts: starts.collect() }
    }

    /// The position of the byte at `offset`; one beyond the end of the text is still on its last line.
    pub(super) fn position(&self, offset: usize) -> Position {
        // The first line starts at 0, so at least one start is not after any offset.
        let line = self.starts.partition_point(|&start| start <= offset).max(1);
        let start = self.starts.get(line - 1).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or("").char_indices();
        let column = rest.take_while(|&(at, _)| start + at < offset).count();
        Position { line, column: column + 1 }
    }
}
