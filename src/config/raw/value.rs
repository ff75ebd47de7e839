//! One value of a TOML document, and what is wrong with it.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::text::printable;

pub(super) type Value<'d> = Spanned<DeValue<'d>>;

/// An error in a value. The reader adds the key.
#[derive(Debug)]
pub(super) struct ValueError {
    pub(super) span: Range<usize>,
    pub(super) problem: String,
    pub(super) remedy: String,
}

/// A list can have an error in each of its elements.
pub(super) type ValueResult<T> = Result<T, Vec<ValueError>>;

pub(super) fn invalid<T>(
    value: &Value<'_>,
    problem: impl Into<String>,
    remedy: impl Into<String>,
) -> ValueResult<T> {
    Err(vec![ValueError { span: value.span(), problem: problem.into(), remedy: remedy.into() }])
}

/// A value as messages name it.
pub(super) fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string \"{}\"", printable(text)),
        DeValue::Integer(number) => format!("the number {}", printable(&number.to_string())),
        DeValue::Float(number) => format!("the number {}", printable(number.as_str())),
        DeValue::Boolean(boolean) => format!("`{boolean}`"),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}
