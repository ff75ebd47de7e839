//! Walks the tables of a TOML document by typed reads, and notes every mistake instead of stopping at the first.
//!
//! Reading *is* declaring: a key that some section asks for exists, and every other key in the file is a mistake. So each
//! section's keys are written once, in `sections`, and [`Notes::finish`] knows them all when it judges what was left over.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::unknown::{Declared, Leftover};
use super::values::found;
use crate::config::error::{ConfigError, Lines, Position};

pub(super) type Value<'d> = Spanned<DeValue<'d>>;

/// One thing wrong with a value; the reader adds whose value it is.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) span: Range<usize>,
    pub(super) problem: String,
    pub(super) advice: String,
}

/// What reading a value gives; a list can have a fault in each of its elements.
pub(super) type Read<T> = Result<T, Vec<Fault>>;

/// What the file says about a key.
#[derive(Clone, Debug)]
pub(super) enum Field<T> {
    Absent,
    /// A mistake is noted already, or the syntax around it is broken: nothing can be concluded from it.
    Wrong,
    Given(Spanned<T>),
}

impl<T> Field<T> {
    /// The value or, without one, the default. What is wrong gets the default too: no `Config` is made of it.
    pub(super) fn or(self, default: T) -> T {
        match self {
            Self::Given(value) => value.into_inner(),
            Self::Absent | Self::Wrong => default,
        }
    }

    pub(super) fn given(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Wrong => None,
        }
    }

    pub(super) const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T: Copy> Field<T> {
    /// The value in force; `None` when it cannot be known.
    pub(super) fn in_force(&self, default: T) -> Option<T> {
        match self {
            Self::Given(value) => Some(*value.get_ref()),
            Self::Absent => Some(default),
            Self::Wrong => None,
        }
    }
}

/// Everything learned while reading one file.
#[derive(Debug)]
pub(super) struct Notes<'t> {
    lines: Lines<'t>,
    mistakes: Vec<(usize, ConfigError)>,
    declared: Vec<Declared>,
    leftover: Vec<Leftover>,
    /// Offsets of syntax errors: a value that holds one is not judged again.
    broken: Vec<usize>,
    /// Broken syntax may have swallowed keys, so absence proves nothing.
    incomplete: bool,
}

impl<'t> Notes<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            lines: Lines::of(text),
            mistakes: Vec::new(),
            declared: Vec::new(),
            leftover: Vec::new(),
            broken: Vec::new(),
            incomplete: false,
        }
    }

    pub(super) fn position(&self, offset: usize) -> Position {
        self.lines.position(offset)
    }

    pub(super) fn mistake(
        &mut self,
        at: usize,
        field: &str,
        problem: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let mistake = ConfigError {
            position: Some(self.lines.position(at)),
            field: Some(field.to_owned()),
            problem: problem.into(),
            advice: advice.into(),
        };
        self.mistakes.push((at, mistake));
    }

    /// The syntax is broken at `at`.
    pub(super) fn broken(&mut self, at: usize) {
        self.broken.push(at);
        self.incomplete = true;
    }

    fn is_broken(&self, span: &Range<usize>) -> bool {
        self.broken.iter().any(|at| (span.start..=span.end).contains(at))
    }

    /// Every mistake in the order of the file, with those about keys that no section asked for.
    pub(super) fn finish(mut self) -> Vec<ConfigError> {
        for key in std::mem::take(&mut self.leftover) {
            if !self.declared.iter().any(|declared| declared.is(&key)) {
                let (problem, advice) = key.explain(&self.declared);
                self.mistake(key.at, &key.field(), problem, advice);
            }
        }
        self.mistakes.sort_by_key(|&(at, _)| at);
        self.mistakes.into_iter().map(|(_, mistake)| mistake).collect()
    }
}

#[derive(Clone, Copy, Debug)]
enum Table<'d> {
    Absent,
    /// Not a table, or only read to learn its keys.
    Unknowable,
    Given(&'d DeTable<'d>),
}

/// One table of the file, there or not.
#[derive(Debug)]
pub(super) struct Section<'d, 'n, 't> {
    /// As it is written between the brackets; empty for the document itself.
    path: String,
    table: Table<'d>,
    at: usize,
    pub(super) notes: &'n mut Notes<'t>,
}

impl<'d, 'n, 't> Section<'d, 'n, 't> {
    pub(super) fn document(table: &'d DeTable<'d>, notes: &'n mut Notes<'t>) -> Self {
        Self::new(String::new(), Table::Given(table), 0, notes)
    }

    fn new(path: String, table: Table<'d>, at: usize, notes: &'n mut Notes<'t>) -> Self {
        if let Table::Given(table) = table {
            let keys = table.iter().map(|(key, value)| Leftover {
                section: path.clone(),
                key: key.get_ref().to_string(),
                at: key.span().start,
                is_table: is_table(value.get_ref()),
            });
            notes.leftover.extend(keys);
        }
        Self { path, table, at, notes }
    }

    /// Where the section begins, if the file has it.
    pub(super) const fn begins(&self) -> Option<usize> {
        match self.table {
            Table::Given(_) => Some(self.at),
            Table::Absent | Table::Unknowable => None,
        }
    }

    /// Reads a key that may be left out.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Value<'d>) -> Read<T>,
    ) -> Field<T> {
        self.declare(key, false);
        let value = match self.table {
            Table::Given(table) => table.get(key),
            Table::Absent => None,
            Table::Unknowable => return Field::Wrong,
        };
        let Some(value) = value else {
            return if self.notes.incomplete { Field::Wrong } else { Field::Absent };
        };
        if self.notes.is_broken(&value.span()) {
            return Field::Wrong;
        }
        match read(value) {
            Ok(read) => Field::Given(Spanned::new(value.span(), read)),
            Err(faults) => {
                let field = self.field(key);
                for fault in faults {
                    self.notes.mistake(fault.span.start, &field, fault.problem, fault.advice);
                }
                Field::Wrong
            }
        }
    }

    /// Reads a key that must be there; `example` is a line that would do.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl Fn(&Value<'d>) -> Read<T>,
    ) -> Field<T> {
        let field = self.read(key, read);
        if field.is_absent() {
            self.missing(key, example);
            return Field::Wrong;
        }
        field
    }

    /// Notes that `key` is needed; `example` is a line that would do.
    pub(super) fn missing(&mut self, key: &str, example: &str) {
        let advice = match self.table {
            Table::Given(_) => format!("add a line such as `{example}`"),
            Table::Absent | Table::Unknowable => {
                format!("add the section [{}] with a line such as `{example}`", self.path)
            }
        };
        let field = self.field(key);
        self.notes.mistake(self.at, &field, "missing, and there is no default", advice);
    }

    /// A table in this one: `[path.key]`.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'d, '_, 't> {
        self.declare(key, true);
        let path = self.field(key);
        let (table, at) = match self.table {
            Table::Given(table) => match table.get(key) {
                Some(value) => {
                    (self.as_table(value, &path, &format!("[{path}]")), value.span().start)
                }
                None => (Table::Absent, 0),
            },
            other => (other, 0),
        };
        let table = match table {
            Table::Absent if self.notes.incomplete => Table::Unknowable,
            table => table,
        };
        Section::new(path, table, at, self.notes)
    }

    /// The tables of `[[path.key]]`, each read by `read`; read once in vain when there is none, to learn its keys.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&mut Section<'d, '_, 't>) -> T,
    ) -> Vec<T> {
        self.declare(key, true);
        let path = self.field(key);
        let value = match self.table {
            Table::Given(table) => table.get(key),
            Table::Absent | Table::Unknowable => None,
        };
        let entries = match value.map(|value| (value, value.get_ref())) {
            Some((_, DeValue::Array(entries))) => entries.iter().collect(),
            Some((value, _)) => {
                let advice = format!("write each as a section [[{path}]]");
                let problem =
                    format!("expected a list of sections, found {}", found(value.get_ref()));
                self.notes.mistake(value.span().start, &format!("[{path}]"), problem, advice);
                Vec::new()
            }
            None => Vec::new(),
        };
        read(&mut Section::new(path.clone(), Table::Unknowable, 0, self.notes));
        let mut out = Vec::with_capacity(entries.len());
        for entry in entries {
            let table = self.as_table(entry, &path, &format!("[[{path}]]"));
            let at = entry.span().start;
            out.push(read(&mut Section::new(path.clone(), table, at, self.notes)));
        }
        out
    }

    fn as_table(&mut self, value: &'d Value<'d>, path: &str, header: &str) -> Table<'d> {
        match value.get_ref() {
            DeValue::Table(table) => Table::Given(table),
            other => {
                let problem = format!("expected a section, found {}", found(other));
                let advice = format!("write {header} and its keys below");
                self.notes.mistake(value.span().start, &format!("[{path}]"), problem, advice);
                Table::Unknowable
            }
        }
    }

    /// `section.key`, as messages name it.
    pub(super) fn field(&self, key: &str) -> String {
        super::unknown::join(&self.path, key)
    }

    fn declare(&mut self, key: &'static str, is_section: bool) {
        let declared = Declared { section: self.path.clone(), key, is_section };
        if !self.notes.declared.contains(&declared) {
            self.notes.declared.push(declared);
        }
    }
}

/// A table, or a list of tables.
fn is_table(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items.iter().next().is_some_and(|item| item.get_ref().is_table()),
        _ => false,
    }
}
