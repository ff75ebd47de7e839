//! Domain names in signatures and in From fields, as text in the form that DNS compares.

use std::borrow::Cow;

use idna::AsciiDenyList;

/// RFC 1035 §2.3.4, without the root's label.
const MAX_DOMAIN: usize = 253;
const MAX_LABEL: usize = 63;

/// `name` in lower case with U-labels as A-labels (RFC 8616 §4); `None` if it is no domain name. Underscores are accepted,
/// since real names have them.
pub(super) fn canonical_domain(name: &[u8]) -> Option<String> {
    let ascii = if name.is_ascii() {
        Cow::Borrowed(std::str::from_utf8(name).ok()?)
    } else {
        idna::domain_to_ascii_cow(name, AsciiDenyList::EMPTY).ok()?
    };
    let is_label = |label: &str| {
        let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(is_part)
    };
    (ascii.len() <= MAX_DOMAIN && ascii.split('.').all(is_label))
        .then(|| ascii.to_ascii_lowercase())
}

/// Whether `name` is `domain` or below it; both in canonical form.
pub(super) fn is_within(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|below| below.is_empty() || below.ends_with('.'))
}
