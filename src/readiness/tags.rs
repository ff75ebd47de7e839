//! Tag lists (`tag=value; …`) of DKIM and DMARC records (RFC 6376 §3.2).

/// The tags in their order: names in lower case, both sides trimmed.
pub(super) fn tags(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(';').filter_map(|tag| tag.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect()
}

/// Parts without `=`.
pub(super) fn malformed_tags(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|tag| !tag.is_empty() && !tag.contains('='))
}

/// The value of the first tag with this name.
pub(super) fn value<'a>(tags: &'a [(String, String)], name: &str) -> Option<&'a str> {
    tags.iter().find(|(tag, _)| tag == name).map(|(_, value)| value.as_str())
}
