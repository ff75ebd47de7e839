//! Keys and sections that do not exist: a new name, or a suggestion.

use toml::de::{DeTable, DeValue};

use super::diagnostics::Diagnostics;
use super::text::{closest, join, listed, printable};
use super::value::Value;
use crate::config::keys::{self, SECTIONS, SectionSpec};

/// Records every unknown key and section of `document`.
pub(super) fn check(document: &DeTable<'_>, diagnostics: &mut Diagnostics<'_>) {
    walk(document, "", "", diagnostics);
}

/// `written` is the path of `table` in the file, `path` the one in force: they differ in a renamed section.
fn walk(table: &DeTable<'_>, written: &str, path: &str, diagnostics: &mut Diagnostics<'_>) {
    for (key, value) in table {
        let (at, key) = (key.span().start, key.get_ref());
        let (field, full) = (join(written, &printable(key)), join(path, key));
        let is_section = keys::section(&full).is_some() && tables(value).next().is_some();
        if keys::key(path, key).is_some() && !is_section {
            continue;
        }
        let renamed = keys::renamed(&full);
        if keys::section(&full).is_some() {
            tables(value).for_each(|table| walk(table, &field, &full, diagnostics));
        } else if tables(value).next().is_some() {
            let new = renamed.and_then(keys::section);
            let remedy = new.map_or_else(
                || suggest_section(&full, key),
                |new| format!("it is now called {}", new.header),
            );
            let problem = format!("unknown section [{field}]");
            diagnostics.error(at, &format!("[{field}]"), problem, remedy);
            if let Some(new) = new {
                tables(value).for_each(|table| walk(table, &field, new.path(), diagnostics));
            }
        } else {
            let remedy = match renamed.and_then(|new| new.rsplit('.').next()) {
                Some(new) if written == path => format!("it is now called `{new}`"),
                Some(new) => format!("it is now called `{new}` in [{path}]"),
                None => suggest_key(path, key),
            };
            diagnostics.error(at, &field, format!("unknown key `{}`", printable(key)), remedy);
        }
    }
}

/// A table, or those of a list of tables.
fn tables<'v, 'd>(value: &'v Value<'d>) -> impl Iterator<Item = &'v DeTable<'d>> {
    let items = match value.get_ref() {
        DeValue::Array(items) => &items[..],
        _ => std::slice::from_ref(value),
    };
    items.iter().filter_map(|item| item.get_ref().as_table())
}

fn suggest_section(path: &str, name: &str) -> String {
    // `[stress]` for `[timeouts.stress]`, then misspelt names.
    let last = |section: &&SectionSpec| section.path().rsplit('.').next() == Some(name);
    let meant = SECTIONS.iter().find(last).or_else(|| {
        let path = closest(path, SECTIONS.iter().map(SectionSpec::path))?;
        keys::section(path)
    });
    match meant {
        Some(meant) => format!("did you mean {}?", meant.header),
        None => {
            let headers = SECTIONS.iter().map(|section| section.header.to_owned());
            format!("the sections are {}", listed(headers))
        }
    }
}

fn suggest_key(path: &str, name: &str) -> String {
    let names = |section: &'static SectionSpec| section.keys.iter().map(|key| key.name);
    let here = || keys::section(path).into_iter().flat_map(names);
    let elsewhere = SECTIONS.iter().filter(|section| names(section).any(|key| key == name));
    let elsewhere: Vec<_> = elsewhere.map(|section| section.header).collect();
    match (closest(name, here()), elsewhere.is_empty()) {
        (Some(near), true) => return format!("did you mean `{near}`?"),
        (Some(near), false) => {
            let sections = elsewhere.join(" or ");
            return format!("did you mean `{near}`, or does it belong in {sections}?");
        }
        (None, false) => return format!("it belongs in {}", elsewhere.join(" or ")),
        (None, true) => {}
    }
    if let Some(near) = closest(name, SECTIONS.iter().flat_map(names)) {
        let section = SECTIONS.iter().find(|section| names(section).any(|key| key == near));
        let header = section.map_or("", |section| section.header);
        return format!("did you mean `{near}` in {header}?");
    }
    if !path.is_empty() {
        let keys = listed(here().map(|key| format!("`{key}`")));
        return format!("[{path}] has {keys}");
    }
    match closest(name, SECTIONS.iter().map(SectionSpec::path)) {
        Some(section) => format!("did you mean the section [{section}]?"),
        None => "move it to a section, such as [listen]".to_owned(),
    }
}
