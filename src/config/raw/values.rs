//! TOML values to Rust values: words, numbers, durations, lists. What a value of the network looks like is in `net`.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeInteger, DeValue};

use super::reader::{Fault, Read, Value};
use super::unknown::{closest, listed, printable};
use crate::config::parse_size;

/// A value that is wrong: what is wrong with it, what to do.
pub(super) fn fault<T>(
    value: &Value<'_>,
    problem: impl Into<String>,
    advice: impl Into<String>,
) -> Read<T> {
    Err(vec![Fault { span: value.span(), problem: problem.into(), advice: advice.into() }])
}

/// A value of the wrong type.
fn mistyped<T>(value: &Value<'_>, expected: &str, advice: impl Into<String>) -> Read<T> {
    let found = found(value.get_ref());
    fault(value, format!("expected {expected}, found {found}"), advice)
}

/// How a message names what it found.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string \"{}\"", printable(text)),
        DeValue::Integer(number) => format!("the number {}", printable(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", printable(number.as_str())),
        DeValue::Boolean(truth) => format!("`{truth}`"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

/// Any string; `expected` and `example` are for the message.
pub(super) fn text<'v>(value: &'v Value<'_>, expected: &str, example: &str) -> Read<&'v str> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        _ => mistyped(value, expected, format!("write it in quotes, such as {example}")),
    }
}

/// One of a few words, each with its meaning.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)]) -> impl Fn(&Value<'_>) -> Read<T> {
    move |value| {
        let example = words.first().map_or_else(String::new, |(word, _)| format!("\"{word}\""));
        let word = text(value, "a word", &example)?;
        if let Some(&(_, meaning)) = words.iter().find(|(name, _)| *name == word) {
            return Ok(meaning);
        }
        let names = || words.iter().map(|&(name, _)| name);
        let all = listed(names().map(|name| format!("\"{name}\"")));
        let advice = match closest(word, names()) {
            Some(meant) => format!("did you mean \"{meant}\"? It is one of {all}"),
            None => format!("write one of {all}"),
        };
        fault(value, format!("\"{}\" is not known", printable(word)), advice)
    }
}

/// `true` or `false`.
pub(super) fn truth(value: &Value<'_>) -> Read<bool> {
    match value.get_ref() {
        DeValue::Boolean(truth) => Ok(*truth),
        DeValue::String(text) if matches!(&**text, "true" | "false") => {
            mistyped(value, "`true` or `false`", "write it without quotes")
        }
        _ => mistyped(value, "`true` or `false`", "write true or false"),
    }
}

/// A whole number.
pub(super) fn integer<T>(range: RangeInclusive<T>) -> impl Fn(&Value<'_>) -> Read<T>
where
    T: TryFrom<i128> + PartialOrd + Display,
{
    move |value| {
        let (low, high) = (range.start(), range.end());
        let DeValue::Integer(number) = value.get_ref() else {
            let advice = match value.get_ref() {
                DeValue::String(text) if text.parse::<i128>().is_ok() => {
                    "write it without quotes".to_owned()
                }
                _ => format!("write a number from {low} to {high}"),
            };
            return mistyped(value, "a whole number", advice);
        };
        match whole(number).and_then(|number| T::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Ok(number),
            _ => fault(
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
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&Value<'_>) -> Read<Duration> {
    const EXAMPLES: &str = "such as \"5m\", \"30s\" or \"250ms\"";
    move |value| {
        let DeValue::String(text) = value.get_ref() else {
            let advice = match value.get_ref() {
                DeValue::Integer(number) => {
                    format!("write it with its unit and in quotes, \"{number}s\" for seconds")
                }
                _ => format!("write a number with its unit in quotes, {EXAMPLES}"),
            };
            return mistyped(value, "a duration", advice);
        };
        let shown = printable(text);
        let parsed = match humantime::parse_duration(text) {
            Ok(parsed) => parsed,
            Err(why) => {
                let advice = format!("write a number with its unit, {EXAMPLES}");
                return fault(value, format!("\"{shown}\" is not a duration ({why})"), advice);
            }
        };
        if range.contains(&parsed) {
            return Ok(parsed);
        }
        let (low, high) = (spoken(*range.start()), spoken(*range.end()));
        fault(
            value,
            format!("\"{shown}\" is out of range"),
            format!("write a duration from {low} to {high}"),
        )
    }
}

/// A number of octets such as `"64M"`.
pub(super) fn size(range: RangeInclusive<usize>) -> impl Fn(&Value<'_>) -> Read<usize> {
    move |value| {
        let (low, high) = (in_units(*range.start()), in_units(*range.end()));
        let advice = format!("write octets from \"{low}\" to \"{high}\", such as \"64M\"");
        let DeValue::String(text) = value.get_ref() else {
            return mistyped(value, "a size in quotes", advice);
        };
        let shown = printable(text);
        match parse_size(text) {
            Some(octets) if range.contains(&octets) => Ok(octets),
            Some(_) => fault(value, format!("\"{shown}\" is out of range"), advice),
            None => fault(value, format!("\"{shown}\" is not a size"), advice),
        }
    }
}

/// With the largest unit that divides it.
fn in_units(octets: usize) -> String {
    let units = [(30, "G"), (20, "M"), (10, "K")];
    let unit = units.into_iter().find(|&(power, _)| octets.is_multiple_of(1 << power));
    unit.map_or_else(|| octets.to_string(), |(power, unit)| format!("{}{unit}", octets >> power))
}

/// As a person writes it in the file.
pub(super) fn spoken(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A list without duplicates, each element read by `item`; it may be empty.
pub(super) fn list<T: PartialEq>(
    item: impl Fn(&Value<'_>) -> Read<T>,
) -> impl Fn(&Value<'_>) -> Read<Vec<Spanned<T>>> {
    move |value| {
        let DeValue::Array(elements) = value.get_ref() else {
            let advice = match value.get_ref() {
                DeValue::String(text) => format!("write [\"{}\"]", printable(text)),
                DeValue::Integer(number) => format!("write [{}]", printable(&number.to_string())),
                _ => "write the values in brackets, with commas between them".to_owned(),
            };
            return mistyped(value, "a list", advice);
        };
        let mut out: Vec<Spanned<T>> = Vec::with_capacity(elements.len());
        let mut faults = Vec::new();
        for element in elements {
            let read = item(element).and_then(|read| {
                if out.iter().any(|earlier| *earlier.get_ref() == read) {
                    let found = found(element.get_ref());
                    return fault(element, format!("{found} is there twice"), "remove one of them");
                }
                Ok(read)
            });
            match read {
                Ok(read) => out.push(Spanned::new(element.span(), read)),
                Err(wrong) => faults.extend(wrong),
            }
        }
        if faults.is_empty() { Ok(out) } else { Err(faults) }
    }
}

/// A list with at least one element; `advice` is for an empty one.
pub(super) fn some<T: PartialEq>(
    item: impl Fn(&Value<'_>) -> Read<T>,
    advice: &'static str,
) -> impl Fn(&Value<'_>) -> Read<Vec<Spanned<T>>> {
    let list = list(item);
    move |value| {
        let read = list(value)?;
        if read.is_empty() {
            return fault(value, "the list is empty", advice);
        }
        Ok(read)
    }
}

/// Where a file is, or will be.
pub(super) fn path(value: &Value<'_>) -> Read<PathBuf> {
    const EXAMPLE: &str = "\"/var/log/gatepost.log\"";
    let path = text(value, "a path", EXAMPLE)?;
    if path.is_empty() {
        return fault(value, "the path is empty", "leave it out for standard output");
    }
    if path.contains('\0') || path.ends_with('/') {
        let problem = format!("\"{}\" cannot be the name of a file", printable(path));
        return fault(value, problem, format!("write a path such as {EXAMPLE}"));
    }
    Ok(path.into())
}

/// The elements of a list without their places.
pub(super) fn plain<T>(list: Vec<Spanned<T>>) -> Vec<T> {
    list.into_iter().map(Spanned::into_inner).collect()
}
