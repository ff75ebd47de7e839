//! Typed reads of the tables of a TOML document. Errors are recorded; reading goes on.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::Diagnostics;
use super::text::join;
use super::value::{Value, ValueResult, found};
use crate::config::keys;

/// The value of a key.
#[derive(Clone, Debug)]
pub(super) enum Field<T> {
    Absent,
    /// An error is recorded already, or the syntax around it is broken: nothing can be concluded from it.
    Invalid,
    Given(Spanned<T>),
}

/// The value of a key that is a list.
pub(super) type List<T> = Field<Vec<Spanned<T>>>;

impl<T> Field<T> {
    /// The value or, without one, the default; also if it is invalid, since no `Config` is made then.
    pub(super) fn or(self, default: T) -> T {
        self.into_option().unwrap_or(default)
    }

    pub(super) fn given(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(super) fn into_option(self) -> Option<T> {
        match self {
            Self::Given(value) => Some(value.into_inner()),
            Self::Absent | Self::Invalid => None,
        }
    }

    pub(super) const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Byte offset of the value.
    pub(super) fn start(&self) -> Option<usize> {
        self.given().map(|value| value.span().start)
    }
}

impl<T: Default> Field<T> {
    pub(super) fn or_default(self) -> T {
        self.or(T::default())
    }
}

impl<T: Copy> Field<T> {
    /// The value in force; `None` if it is invalid.
    pub(super) fn effective(&self, default: T) -> Option<T> {
        match self {
            Self::Given(value) => Some(*value.get_ref()),
            Self::Absent => Some(default),
            Self::Invalid => None,
        }
    }
}

impl<T> Field<Vec<Spanned<T>>> {
    /// The elements of a list.
    pub(super) fn items(&self) -> impl Iterator<Item = &Spanned<T>> {
        self.given().into_iter().flat_map(Spanned::get_ref)
    }
}

#[derive(Clone, Copy, Debug)]
enum TableState<'d> {
    Absent,
    /// Not a table, or possibly lost to broken syntax.
    Unknown,
    Given(&'d DeTable<'d>),
}

/// One table of the file, present or not.
#[derive(Debug)]
pub(super) struct Section<'d, 'n, 't> {
    /// As written between the brackets; empty for the document itself.
    path: String,
    table: TableState<'d>,
    at: usize,
    pub(super) diagnostics: &'n mut Diagnostics<'t>,
}

impl<'d, 'n, 't> Section<'d, 'n, 't> {
    pub(super) const fn document(
        table: &'d DeTable<'d>,
        diagnostics: &'n mut Diagnostics<'t>,
    ) -> Self {
        Self { path: String::new(), table: TableState::Given(table), at: 0, diagnostics }
    }

    /// Byte offset of the section, if the file has it.
    pub(super) const fn start(&self) -> Option<usize> {
        match self.table {
            TableState::Given(_) => Some(self.at),
            TableState::Absent | TableState::Unknown => None,
        }
    }

    /// Reads an optional key.
    pub(super) fn read<T>(
        &mut self,
        key: &str,
        read: impl Fn(&Value<'d>) -> ValueResult<T>,
    ) -> Field<T> {
        debug_assert!(keys::key(&self.path, key).is_some(), "{} is not in `keys`", self.field(key));
        let value = match self.table {
            TableState::Given(table) => table.get(key),
            TableState::Absent => None,
            TableState::Unknown => return Field::Invalid,
        };
        let Some(value) = value else {
            let incomplete = self.diagnostics.is_incomplete();
            return if incomplete { Field::Invalid } else { Field::Absent };
        };
        if self.diagnostics.is_broken(&value.span()) {
            return Field::Invalid;
        }
        match read(value) {
            Ok(read) => Field::Given(Spanned::new(value.span(), read)),
            Err(errors) => {
                let field = self.field(key);
                for error in errors {
                    self.diagnostics.error(error.span.start, &field, error.problem, error.remedy);
                }
                Field::Invalid
            }
        }
    }

    /// Reads a key without a default.
    pub(super) fn require<T>(
        &mut self,
        key: &str,
        read: impl Fn(&Value<'d>) -> ValueResult<T>,
    ) -> Field<T> {
        let field = self.read(key, read);
        if field.is_absent() {
            self.missing(key);
            return Field::Invalid;
        }
        field
    }

    /// Records that `key` is missing.
    pub(super) fn missing(&mut self, key: &str) {
        let example = keys::key(&self.path, key).map(keys::KeySpec::example).unwrap_or_default();
        let remedy = match self.table {
            TableState::Given(_) => format!("add a line such as `{key} = {example}`"),
            TableState::Absent | TableState::Unknown => {
                format!("add the section [{}] with a line such as `{key} = {example}`", self.path)
            }
        };
        let field = self.field(key);
        self.diagnostics.error(self.at, &field, "missing, and there is no default", remedy);
    }

    /// Whether there is anything with this key, also if it is not a section.
    pub(super) fn contains(&self, key: &str) -> bool {
        matches!(self.table, TableState::Given(table) if table.get(key).is_some())
    }

    /// The table `[path.key]`.
    pub(super) fn section(&mut self, key: &str) -> Section<'d, '_, 't> {
        let path = self.field(key);
        let (table, at) = match self.table {
            TableState::Given(table) => match table.get(key) {
                Some(value) => {
                    (self.as_table(value, &path, &format!("[{path}]")), value.span().start)
                }
                None if self.diagnostics.is_incomplete() => (TableState::Unknown, 0),
                None => (TableState::Absent, 0),
            },
            other => (other, 0),
        };
        Section { path, table, at, diagnostics: self.diagnostics }
    }

    /// Whether the file has `key`, valid or not, or may have lost it to broken syntax.
    pub(super) fn has(&self, key: &str) -> bool {
        match self.table {
            TableState::Given(table) => {
                table.get(key).is_some() || self.diagnostics.is_incomplete()
            }
            TableState::Absent => false,
            TableState::Unknown => true,
        }
    }

    /// Whether `key` is written as `[[path.key]]`, or as another list.
    pub(super) fn is_list(&self, key: &str) -> bool {
        let TableState::Given(table) = self.table else { return false };
        table.get(key).is_some_and(|value| matches!(value.get_ref(), DeValue::Array(_)))
    }

    /// The tables of `[[path.key]]`, each read by `read`.
    pub(super) fn sections<T>(
        &mut self,
        key: &str,
        mut read: impl FnMut(&mut Section<'d, '_, 't>) -> T,
    ) -> Vec<T> {
        let path = self.field(key);
        let TableState::Given(table) = self.table else { return Vec::new() };
        let Some(value) = table.get(key) else { return Vec::new() };
        let DeValue::Array(entries) = value.get_ref() else {
            let problem = format!("expected a list of sections, found {}", found(value.get_ref()));
            let remedy = format!("write each as a section [[{path}]]");
            self.diagnostics.error(value.span().start, &format!("[{path}]"), problem, remedy);
            return Vec::new();
        };
        let mut out = Vec::with_capacity(entries.len());
        for entry in entries {
            let table = self.as_table(entry, &path, &format!("[[{path}]]"));
            let (path, at) = (path.clone(), entry.span().start);
            out.push(read(&mut Section { path, table, at, diagnostics: self.diagnostics }));
        }
        out
    }

    fn as_table(&mut self, value: &'d Value<'d>, path: &str, header: &str) -> TableState<'d> {
        match value.get_ref() {
            DeValue::Table(table) => TableState::Given(table),
            other => {
                let problem = format!("expected a section, found {}", found(other));
                let remedy = format!("write {header} and its keys below");
                self.diagnostics.error(value.span().start, &format!("[{path}]"), problem, remedy);
                TableState::Unknown
            }
        }
    }

    /// `section.key`, as messages name it.
    pub(super) fn field(&self, key: &str) -> String {
        join(&self.path, key)
    }
}
