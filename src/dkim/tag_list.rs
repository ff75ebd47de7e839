//! Tag lists (`tag=value; …`) of DKIM signatures and keys and of DMARC records (RFC 6376 §3.2).

/// The tags of a DKIM signature or key. Names are case-sensitive and stand once each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TagList<'a>(Vec<(&'a [u8], &'a [u8])>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TagListError {
    /// A part is not `name=value`.
    Malformed,
    Duplicate,
}

impl<'a> TagList<'a> {
    /// Empty parts are skipped, others than the last too: records with `;;` are common.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, TagListError> {
        let mut tags: Vec<(&[u8], &[u8])> = Vec::new();
        for part in text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            if part.is_empty() {
                continue;
            }
            let equals = part.iter().position(|byte| *byte == b'=');
            let (name, value) =
                equals.and_then(|at| part.split_at_checked(at)).ok_or(TagListError::Malformed)?;
            let name = name.trim_ascii_end();
            let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            if !name.first().is_some_and(u8::is_ascii_alphabetic) || !name.iter().all(is_part) {
                return Err(TagListError::Malformed);
            }
            let value = value.get(1..).unwrap_or_default().trim_ascii_start();
            tags.push((name, value));
        }
        let mut names: Vec<&[u8]> = tags.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        if names.is_sorted_by(|one, next| one < next) {
            Ok(Self(tags))
        } else {
            Err(TagListError::Duplicate)
        }
    }

    /// Trimmed at both ends; folded white space inside is left.
    pub(super) fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(tag, _)| *tag == name.as_bytes()).map(|(_, value)| *value)
    }

    /// The elements of a list, `a:b:c`; none if there is no such tag.
    pub(super) fn elements(&self, name: &str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let value = self.get(name);
        value.into_iter().flat_map(|list| list.split(|b| *b == b':').map(<[u8]>::trim_ascii))
    }
}

/// The tags of a DMARC record in their order: names in lower case, both sides trimmed.
pub(crate) fn tags(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(';').filter_map(|tag| tag.split_once('='));
    pairs.map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned())).collect()
}

/// Parts without `=`.
pub(crate) fn malformed_tags(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|tag| !tag.is_empty() && !tag.contains('='))
}

/// The value of the first tag with this name.
pub(crate) fn value<'a>(tags: &'a [(String, String)], name: &str) -> Option<&'a str> {
    tags.iter().find(|(tag, _)| tag == name).map(|(_, value)| value.as_str())
}
