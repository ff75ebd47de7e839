//! No two types of the crate share a name, unless one wraps the other.

use std::collections::BTreeMap;

use super::code::modules;

/// Names of two types of which one wraps the other, with the reason.
const WRAPPED: [(&str, &str); 0] = [];

/// Names that are still shared: each must go, and then leave this list.
const KNOWN: [&str; 0] = [];

/// The types that a line of code declares for other files.
fn declared(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub")?;
    let rest = match rest.strip_prefix('(') {
        Some(restriction) => restriction.split_once(')')?.1,
        None => rest,
    };
    let (kind, rest) = rest.trim_start().split_once(' ')?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let is_type = ["struct", "enum", "union", "trait", "type"].contains(&kind);
    // A macro declares `$name`.
    (is_type && end > 0).then_some(&rest[..end])
}

#[test]
fn types_have_names_of_their_own() {
    let modules = modules();
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for module in &modules {
        for name in module.code.lines().filter_map(declared) {
            places.entry(name).or_default().push(module.file.display().to_string());
        }
    }
    let is_listed = |name: &str| KNOWN.contains(&name) || WRAPPED.iter().any(|(n, _)| *n == name);
    let shared = places.iter().filter(|(_, files)| files.len() > 1);
    let (listed, new): (Vec<_>, Vec<_>) = shared.partition(|(name, _)| is_listed(name));
    assert!(new.is_empty(), "types of one name: {new:#?}");
    let listed: Vec<&str> = listed.into_iter().map(|(name, _)| *name).collect();
    let names = KNOWN.iter().chain(WRAPPED.iter().map(|(name, _)| name));
    let gone: Vec<&&str> = names.filter(|name| !listed.contains(name)).collect();
    assert!(gone.is_empty(), "no longer shared, take them out of the list: {gone:?}");
}

#[test]
fn declarations_are_found() {
    for (line, name) in [
        ("pub struct Record {", Some("Record")),
        ("    pub(super) enum Kind<T> {", Some("Kind")),
        ("pub(in crate::relay) type Pair = (u8, u8);", Some("Pair")),
        ("pub(crate) trait Lookup: Send {", Some("Lookup")),
        ("struct Private;", None),
        ("pub fn f() {}", None),
        ("pub use a::B;", None),
        ("pub enum $name {", None),
    ] {
        assert_eq!(declared(line), name, "{line}");
    }
}
