//! Syntax errors of TOML. After one typing error (a quote or bracket left open) the parser reports many: only the first
//! error of each value and of each line is recorded.

use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::diagnostics::Diagnostics;
use super::text::{join, printable};
use super::value::Value;

/// Records `errors`, which the parser reported for `text`; `document` is the part that it could read.
pub(super) fn check(
    errors: &[Error],
    document: &DeTable<'_>,
    text: &str,
    diagnostics: &mut Diagnostics<'_>,
) {
    let mut values = Vec::new();
    spans(document, &mut values);
    let mut sections = Vec::new();
    headers(document, "", &mut sections);
    let mut errors: Vec<(Range<usize>, &str)> =
        errors.iter().map(|error| (error.span().unwrap_or(0..0), error.message())).collect();
    errors.sort_by_key(|(span, _)| span.start);

    let mut seen_lines = Vec::new();
    let mut seen_values = Vec::new();
    for (span, message) in errors {
        if message == DUPLICATE {
            let key = printable(text.get(span.clone()).unwrap_or_default());
            let remedy = "keep one of the places that set it";
            let field = field(&key, span.start, &sections);
            diagnostics.error(span.start, &field, "set more than once", remedy);
            continue;
        }
        diagnostics.mark_broken(span.start);
        let line = diagnostics.position(span.start).line;
        let value = values.iter().find(|value| (value.start..=value.end).contains(&span.start));
        let seen = seen_lines.contains(&line) || value.is_some_and(|v| seen_values.contains(v));
        if seen {
            continue;
        }
        seen_lines.push(line);
        seen_values.extend(value.cloned());
        let (problem, expected) = message.split_once(", expected ").unwrap_or((message, ""));
        let remedy = match expected {
            "" => "correct the syntax here (see https://toml.io)".to_owned(),
            "literal string" => "put it in quotes".to_owned(),
            "`,`" => "write `,` here, or close the list before it with `]`".to_owned(),
            expected => format!("write {} here", expected.replace(", ", " or ")),
        };
        diagnostics.error(span.start, "TOML", problem, remedy);
    }
}

/// The message of `toml` about a key or section that occurs twice. The rest of the document is complete.
const DUPLICATE: &str = "duplicate key";

/// `section.key` for a key at `at`, `[section]` for the name in a header.
fn field(key: &str, at: usize, sections: &[(Range<usize>, String)]) -> String {
    let before = sections.iter().filter(|(header, _)| header.start <= at);
    match before.max_by_key(|(header, _)| header.start) {
        Some((header, path)) if header.contains(&at) => format!("[{path}]"),
        Some((_, path)) => join(path, key),
        None => key.to_owned(),
    }
}

/// The position and path of each section header.
fn headers(table: &DeTable<'_>, path: &str, out: &mut Vec<(Range<usize>, String)>) {
    for (key, value) in table {
        let path = join(path, &printable(key.get_ref()));
        let one = std::slice::from_ref(value);
        let entries = match value.get_ref() {
            DeValue::Array(items) => items.iter(),
            _ => one.iter(),
        };
        for entry in entries {
            if let DeValue::Table(table) = entry.get_ref() {
                out.push((entry.span(), path.clone()));
                headers(table, &path, out);
            }
        }
    }
}

/// The positions of the values in `table` and its subtables.
fn spans(table: &DeTable<'_>, out: &mut Vec<Range<usize>>) {
    for value in table.values() {
        match value.get_ref() {
            DeValue::Table(table) => spans(table, out),
            DeValue::Array(items) if items.iter().any(is_table) => {
                let tables = items.iter().filter_map(|item| item.get_ref().as_table());
                tables.for_each(|table| spans(table, out));
            }
            _ => out.push(value.span()),
        }
    }
}

fn is_table(value: &Value<'_>) -> bool {
    value.get_ref().is_table()
}
