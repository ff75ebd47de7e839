//! The `use` declarations and the paths of a file.

/// One name that a `use` declaration brings in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Import {
    /// As written, `self` at the end left out: `["super", "record", "Record"]`. It ends with `*` for all names.
    pub(super) path: Vec<String>,
    /// The name in this file.
    pub(super) name: String,
    /// `pub use`, also with a restriction.
    pub(super) is_public: bool,
}

/// The imports of `code`, and the paths of several segments in the rest of it.
pub(super) fn of(code: &str) -> (Vec<Import>, Vec<Vec<String>>) {
    let mut imports = Vec::new();
    let mut rest = String::new();
    let mut left = code;
    while let Some(at) = keyword(left, "use") {
        let end = left[at..].find(';').map_or(left.len(), |end| at + end);
        let (before, tree) = (&left[..at], &left[at + "use".len()..end]);
        let last = before.rsplit([';', '}', '{', ']']).next().unwrap_or_default();
        let is_public = last.trim_start().starts_with("pub");
        read_tree(tree, &[], is_public, &mut imports);
        rest.push_str(before);
        left = &left[end..];
    }
    rest.push_str(left);
    (imports, paths(&rest))
}

/// The positions of `word` as a whole word.
fn keyword(code: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '#';
    let mut matches = code.match_indices(word).map(|(at, _)| at);
    matches.find(|&at| {
        !code[..at].ends_with(is_part) && code[at + word.len()..].starts_with(char::is_whitespace)
    })
}

/// Reads `a::{b, c as d}` below `before`.
fn read_tree(tree: &str, before: &[String], is_public: bool, out: &mut Vec<Import>) {
    let tree = tree.trim();
    let (head, group) = match tree.split_once('{') {
        Some((head, group)) => (head, group.strip_suffix('}')),
        None => (tree, None),
    };
    let (head, alias) = match head.split_once(" as ") {
        Some((head, alias)) => (head, Some(alias.trim().to_owned())),
        None => (head, None),
    };
    let segments = head.split("::").map(str::trim).filter(|segment| !segment.is_empty());
    let mut path: Vec<String> = before.iter().cloned().chain(segments.map(str::to_owned)).collect();
    if let Some(group) = group {
        items(group).into_iter().for_each(|item| read_tree(item, &path, is_public, out));
        return;
    }
    if path.len() > 1 && path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    if let Some(last) = path.last() {
        let name = alias.unwrap_or_else(|| last.clone());
        out.push(Import { path, name, is_public });
    }
}

/// The items of a `{…}` group, which may hold groups.
fn items(group: &str) -> Vec<&str> {
    let mut depth = 0;
    let parts = group.split(|c| {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

/// Every `a::b::c` in `code`.
fn paths(code: &str) -> Vec<Vec<String>> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let words = code.split(|c: char| !is_part(c)).filter(|word| word.contains("::"));
    let paths = words.map(|word| {
        let segments = word.split("::").map(|segment| segment.trim_matches(':'));
        segments.filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
    });
    paths.filter(|path: &Vec<String>| path.len() > 1).collect()
}

#[test]
fn use_trees_are_read() {
    let code = "use std::fmt;\npub(super) use a::{b::{self, C as D}, e::*};\nfn f() { super::g::h(); x.y::<u8>(); }";
    let (imports, paths) = of(code);
    let found = imports.iter().map(|import| {
        let public = if import.is_public { "pub " } else { "" };
        format!("{public}{} as {}", import.path.join("::"), import.name)
    });
    let expected = ["std::fmt as fmt", "pub a::b as b", "pub a::b::C as D", "pub a::e::* as *"];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    assert_eq!(paths, [["super", "g", "h"]]);
}
