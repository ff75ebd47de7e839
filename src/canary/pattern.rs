//! Marks of filters that the built-in table does not have.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `HEADER: VALUE`, where `*` in VALUE stands for any text. Case does not matter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MarkPattern {
    field: String,
    value: String,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it {}; {}", self.problem(), Self::REMEDY)]
pub enum MarkPatternError {
    Colon,
    Name,
    Value,
}

impl MarkPatternError {
    pub const REMEDY: &str =
        "write HEADER: VALUE, such as \"X-Filter-Verdict: *junk*\", where * stands for any text";

    /// Without a subject.
    pub const fn problem(self) -> &'static str {
        match self {
            Self::Colon => "has no colon",
            Self::Name => "has no valid header name before the colon",
            Self::Value => "matches any value",
        }
    }
}

impl MarkPattern {
    /// # Errors
    /// There is no header name, or no value that distinguishes messages.
    pub fn parse(text: &str) -> Result<Self, MarkPatternError> {
        let (field, value) = text.split_once(':').ok_or(MarkPatternError::Colon)?;
        let (field, value) = (field.trim(), value.trim());
        if field.is_empty() || !field.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
            return Err(MarkPatternError::Name);
        }
        // A pattern for any value would call the mere presence of a filter a mark.
        if value.bytes().all(|byte| byte == b'*') {
            return Err(MarkPatternError::Value);
        }
        Ok(Self { field: field.to_owned(), value: value.to_ascii_lowercase() })
    }

    pub(super) fn field(&self) -> &str {
        &self.field
    }

    /// `value` is unfolded and trimmed.
    pub(super) fn matches(&self, value: &str) -> bool {
        let value = value.to_ascii_lowercase();
        let mut parts = self.value.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = value.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some((_, after)) = rest.split_once(part) else { return false };
            rest = after;
        }
        rest.ends_with(last)
    }
}

impl fmt::Display for MarkPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.value)
    }
}

impl From<MarkPattern> for String {
    fn from(pattern: MarkPattern) -> Self {
        pattern.to_string()
    }
}

impl TryFrom<String> for MarkPattern {
    type Error = MarkPatternError;

    fn try_from(text: String) -> Result<Self, MarkPatternError> {
        Self::parse(&text)
    }
}
