//! TOML values to Rust values: words, numbers, durations, sizes, lists. Values about the network are in `net`.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::text::{closest, listed, printable};
use super::value::{Value, ValueResult, found, invalid};
use crate::config::size::parse_size;

/// A value of the wrong type.
fn mistyped<T>(value: &Value<'_>, expected: &str, remedy: impl Into<String>) -> ValueResult<T> {
    let found = found(value.get_ref());
    invalid(value, format!("expected {expected}, found {found}"), remedy)
}

/// Any string; `expected` and `example` are parts of the message.
pub(super) fn string<'v>(
    value: &'v Value<'_>,
    expected: &str,
    example: &str,
) -> ValueResult<&'v str> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => mistyped(value, expected, format!("write it in quotes, such as {example}")),
    }
}

/// One of a few words, each with its value.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Value<'_>) -> ValueResult<T> {
    move |value| {
        let example = words.first().map_or_else(String::new, |(word, _)| format!("\"{word}\""));
        let word = string(value, "a word", &example)?;
        if let Some(&(_, found)) = words.iter().find(|(name, _)| *name == word) {
            return Ok(found);
        }
        let names = || words.iter().map(|&(name, _)| name);
        let all = listed(names().map(|name| format!("\"{name}\"")));
        let remedy = match closest(word, names()) {
            Some(meant) => format!("did you mean \"{meant}\"? It is one of {all}"),
            None => format!("write one of {all}"),
        };
        invalid(value, format!("\"{}\" is not a valid value", printable(word)), remedy)
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &Value<'_>) -> ValueResult<bool> {
    match value.get_ref() {
        DeValue::Boolean(boolean) => Ok(*boolean),
        DeValue::String(text) if matches!(&**text, "true" | "false") => {
            mistyped(value, "`true` or `false`", "write it without quotes")
        }
        _ => mistyped(value, "`true` or `false`", "write true or false"),
    }
}

/// A whole number.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&Value<'_>) -> ValueResult<T>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |value| {
        let (low, high) = (range.start(), range.end());
        let DeValue::Integer(number) = value.get_ref() else {
            let remedy = match value.get_ref() {
                DeValue::String(text) if text.parse::<i128>().is_ok() => {
                    "write it without quotes".to_owned()
                }
                _ => format!("write a number from {low} to {high}"),
            };
            return mistyped(value, "a whole number", remedy);
        };
        match whole(number).and_then(|number| T::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Ok(number),
            _ => invalid(
                value,
                format!("{} is out of range", printable(&number.to_string())),
                format!("write a number from {low} to {high}"),
            ),
        }
    }
}

fn whole(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A duration such as `"5m"`.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&Value<'_>) -> ValueResult<Duration> {
    const EXAMPLES: &str = "such as \"5m\", \"30s\" or \"250ms\"";
    move |value| {
        let DeValue::String(text) = value.get_ref() else {
            let remedy = match value.get_ref() {
                DeValue::Integer(number) => {
                    format!("write it with its unit and in quotes, \"{number}s\" for seconds")
                }
                _ => format!("write a number with its unit in quotes, {EXAMPLES}"),
            };
            return mistyped(value, "a duration", remedy);
        };
        let shown = printable(text);
        let parsed = match humantime::parse_duration(text) {
            Ok(parsed) => parsed,
            Err(why) => {
                let remedy = format!("write a number with its unit, {EXAMPLES}");
                return invalid(value, format!("\"{shown}\" is not a duration ({why})"), remedy);
            }
        };
        if range.contains(&parsed) {
            return Ok(parsed);
        }
        let (low, high) = (format_duration(*range.start()), format_duration(*range.end()));
        invalid(
            value,
            format!("\"{shown}\" is out of range"),
            format!("write a duration from {low} to {high}"),
        )
    }
}

/// A size in bytes, such as `"64M"`.
pub(super) fn size(range: RangeInclusive<usize>) -> impl Fn(&Value<'_>) -> ValueResult<usize> {
    move |value| {
        let (low, high) = (in_units(*range.start()), in_units(*range.end()));
        let remedy = format!("write a size from \"{low}\" to \"{high}\", such as \"64M\"");
        let DeValue::String(text) = value.get_ref() else {
            return mistyped(value, "a size in quotes", remedy);
        };
        let shown = printable(text);
        match parse_size(text) {
            Some(bytes) if range.contains(&bytes) => Ok(bytes),
            Some(_) => invalid(value, format!("\"{shown}\" is out of range"), remedy),
            None => invalid(value, format!("\"{shown}\" is not a size"), remedy),
        }
    }
}

/// In the largest unit that divides it.
fn in_units(bytes: usize) -> String {
    let units = [(30, "G"), (20, "M"), (10, "K")];
    let unit = units.into_iter().find(|&(power, _)| bytes.is_multiple_of(1 << power));
    unit.map_or_else(|| bytes.to_string(), |(power, unit)| format!("{}{unit}", bytes >> power))
}

/// As written in the file.
pub(super) fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A list without duplicates, each element read by `item`. It may be empty.
pub(super) fn list<T: PartialEq>(
    item: impl Fn(&Value<'_>) -> ValueResult<T>,
) -> impl Fn(&Value<'_>) -> ValueResult<Vec<Spanned<T>>> {
    move |value| {
        let DeValue::Array(elements) = value.get_ref() else {
            let remedy = match value.get_ref() {
                DeValue::String(text) => format!("write [\"{}\"]", printable(text)),
                DeValue::Integer(number) => format!("write [{}]", printable(&number.to_string())),
                _ => "write the values in brackets, with commas between them".to_owned(),
            };
            return mistyped(value, "a list", remedy);
        };
        let mut out: Vec<Spanned<T>> = Vec::with_capacity(elements.len());
        let mut errors = Vec::new();
        for element in elements {
            let read = item(element).and_then(|read| {
                if out.iter().any(|earlier| *earlier.get_ref() == read) {
                    let found = found(element.get_ref());
                    return invalid(
                        element,
                        format!("{found} is listed twice"),
                        "remove one of them",
                    );
                }
                Ok(read)
            });
            match read {
                Ok(read) => out.push(Spanned::new(element.span(), read)),
                Err(wrong) => errors.extend(wrong),
            }
        }
        if errors.is_empty() { Ok(out) } else { Err(errors) }
    }
}

/// A list with at least one element; `remedy` is that for an empty one.
pub(super) fn non_empty<T: PartialEq>(
    item: impl Fn(&Value<'_>) -> ValueResult<T>,
    remedy: &'static str,
) -> impl Fn(&Value<'_>) -> ValueResult<Vec<Spanned<T>>> {
    let list = list(item);
    move |value| {
        let read = list(value)?;
        if read.is_empty() {
            return invalid(value, "the list is empty", remedy);
        }
        Ok(read)
    }
}

/// The path of a file, which need not exist.
pub(super) fn path(value: &Value<'_>) -> ValueResult<PathBuf> {
    const EXAMPLE: &str = "\"/var/log/gatepost.log\"";
    let path = string(value, "a path", EXAMPLE)?;
    if path.is_empty() {
        return invalid(value, "the path is empty", "leave it out for standard output");
    }
    if path.contains('\0') || path.ends_with('/') {
        let problem = format!("\"{}\" cannot be the name of a file", printable(path));
        return invalid(value, problem, format!("write a path such as {EXAMPLE}"));
    }
    Ok(path.into())
}

/// The path of a file that has to exist; `example` is one, in TOML.
pub(super) fn file(example: &str) -> impl Fn(&Value<'_>) -> ValueResult<PathBuf> {
    move |value| {
        let path = string(value, "a path", example)?;
        if path.is_empty() || path.contains('\0') || path.ends_with('/') {
            let problem = format!("\"{}\" cannot be the name of a file", printable(path));
            return invalid(value, problem, format!("write a path such as {example}"));
        }
        Ok(path.into())
    }
}

/// The elements of a list without their positions.
pub(super) fn into_values<T>(list: Vec<Spanned<T>>) -> Vec<T> {
    list.into_iter().map(Spanned::into_inner).collect()
}
