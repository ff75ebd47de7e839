//! Names and texts in messages: suggestions, lists, untrusted text.

/// The candidate that `word` is probably a misspelling of.
pub(super) fn closest<S: AsRef<str>>(
    word: &str,
    candidates: impl IntoIterator<Item = S>,
) -> Option<S> {
    candidates
        .into_iter()
        .filter(|candidate| is_near(word, candidate.as_ref()))
        .min_by_key(|candidate| distance(word, candidate.as_ref()))
}

/// One edit in three letters, at least one, is a typing error; more is another word.
fn is_near(word: &str, candidate: &str) -> bool {
    distance(word, candidate) <= (candidate.chars().count() / 3).max(1)
}

fn distance(word: &str, candidate: &str) -> usize {
    // The distance takes time in proportion to both lengths, and no name is that long.
    if word.len() > 64 {
        return usize::MAX;
    }
    strsim::damerau_levenshtein(&word.to_ascii_lowercase(), &candidate.to_ascii_lowercase())
}

/// `section.key`
pub(super) fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// Text of the file, cut and without control characters.
pub(super) fn printable(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// `a, b, c`
pub(super) fn listed(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().collect::<Vec<_>>().join(", ")
}
