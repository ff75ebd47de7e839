//! `tag=value` lists, as DKIM and DMARC records have them (RFC 6376 §3.2).

/// The tags of a record in their order, names in lower case, white space around both taken off.
pub(super) fn tags(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(';').filter_map(|tag| tag.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect()
}

/// Parts that are no `tag=value`.
pub(super) fn not_tags(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|tag| !tag.is_empty() && !tag.contains('='))
}

/// The value of the first tag of that name.
pub(super) fn value<'a>(tags: &'a [(String, String)], name: &str) -> Option<&'a str> {
    tags.iter().find(|(tag, _)| tag == name).map(|(_, value)| value.as_str())
}
