//! Keys and sections that do not exist: what was probably meant.

/// A key or section that the reader asked for, so it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) section: String,
    pub(super) key: &'static str,
    pub(super) is_section: bool,
}

/// A key or section that the file has.
#[derive(Clone, Debug)]
pub(super) struct Leftover {
    pub(super) section: String,
    pub(super) key: String,
    /// Byte offset of the key.
    pub(super) at: usize,
    pub(super) is_table: bool,
}

impl Declared {
    pub(super) fn is(&self, key: &Leftover) -> bool {
        self.section == key.section && self.key == key.key
    }

    fn path(&self) -> String {
        join(&self.section, self.key)
    }
}

impl Leftover {
    /// As messages name it.
    pub(super) fn field(&self) -> String {
        let field = join(&self.section, &printable(&self.key));
        if self.is_table { format!("[{field}]") } else { field }
    }

    /// What is wrong with it, and what to do.
    pub(super) fn explain(&self, declared: &[Declared]) -> (&'static str, String) {
        if self.is_table {
            ("there is no such section", self.explain_section(declared))
        } else {
            ("there is no such key", self.explain_key(declared))
        }
    }

    fn explain_section(&self, declared: &[Declared]) -> String {
        let sections = || declared.iter().filter(|declared| declared.is_section);
        let path = join(&self.section, &self.key);
        // `[stress]` for `[timeouts.stress]`, then misspelt names.
        let meant = sections()
            .find(|section| section.key == self.key)
            .map(Declared::path)
            .or_else(|| closest(&path, sections().map(Declared::path)));
        match meant {
            Some(meant) => format!("did you mean [{meant}]?"),
            None => format!(
                "the sections are {}",
                listed(sections().map(|section| format!("[{}]", section.path())))
            ),
        }
    }

    fn explain_key(&self, declared: &[Declared]) -> String {
        let keys = || declared.iter().filter(|declared| !declared.is_section);
        let here = || keys().filter(|declared| declared.section == self.section);
        let elsewhere = keys()
            .filter(|declared| declared.key == self.key)
            .map(|declared| format!("[{}]", declared.section));
        let elsewhere = listed_or(elsewhere);
        let near = closest(&self.key, here().map(|declared| declared.key.to_owned()));
        match (near, elsewhere) {
            (Some(near), None) => format!("did you mean `{near}`?"),
            (Some(near), Some(sections)) => {
                format!("did you mean `{near}`, or does it belong in {sections}?")
            }
            (None, Some(sections)) => format!("it belongs in {sections}"),
            (None, None) => {
                let path = join(&self.section, &self.key);
                let near = keys().min_by_key(|declared| distance(&self.key, declared.key));
                match near.filter(|declared| is_near(&self.key, declared.key)) {
                    Some(near) => format!("did you mean `{}` in [{}]?", near.key, near.section),
                    None if self.section.is_empty() => match closest(
                        &path,
                        declared.iter().filter(|d| d.is_section).map(Declared::path),
                    ) {
                        Some(section) => format!("did you mean the section [{section}]?"),
                        None => "every key stands in a section, such as [listen]".to_owned(),
                    },
                    None => format!(
                        "[{}] has {}",
                        self.section,
                        listed(here().map(|declared| format!("`{}`", declared.key)))
                    ),
                }
            }
        }
    }
}

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

/// One edit in three letters, at least one, is a slip; more is another word.
fn is_near(word: &str, candidate: &str) -> bool {
    distance(word, candidate) <= (candidate.chars().count() / 3).max(1)
}

fn distance(word: &str, candidate: &str) -> usize {
    // Longer words are no slips, and the distance takes time in proportion to both lengths.
    if word.len() > 64 {
        return usize::MAX;
    }
    strsim::damerau_levenshtein(&word.to_ascii_lowercase(), &candidate.to_ascii_lowercase())
}

pub(super) fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// What stands in a file, cut and without control characters, so that it can be shown.
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

fn listed_or(items: impl Iterator<Item = String>) -> Option<String> {
    let items: Vec<_> = items.collect();
    (!items.is_empty()).then(|| items.join(" or "))
}
