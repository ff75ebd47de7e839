//! The files of `src/` as modules, without comments, strings and tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One file of `src/`.
pub(super) struct Module {
    /// Its path in the crate: `["engine", "record"]`; empty for `lib.rs`.
    pub(super) path: Vec<String>,
    /// Relative to `src/`.
    pub(super) file: PathBuf,
    /// Without comments, contents of string literals and test modules.
    pub(super) code: String,
}

/// Every module but those of tests; `main.rs` is another crate.
pub(super) fn modules() -> Vec<Module> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    find(&src, &mut files);
    let mut tests = BTreeSet::new();
    let mut modules = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        let file = file.strip_prefix(&src).unwrap().to_owned();
        let path = module_path(&file);
        if path == ["main"] {
            continue;
        }
        let (code, test_modules) = code(&source);
        tests.extend(test_modules.into_iter().map(|name| [&path[..], &[name]].concat()));
        modules.push(Module { path, file, code });
    }
    modules.retain(|module| !tests.iter().any(|test| module.path.starts_with(test)));
    assert!(modules.len() > 20, "the sources were not found");
    modules.sort_by(|one, other| one.path.cmp(&other.path));
    modules
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn module_path(file: &Path) -> Vec<String> {
    let file = file.with_extension("");
    let mut path: Vec<String> = file.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if path.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib")) {
        path.pop();
    }
    path
}

/// `source` without comments, contents of string literals and `#[cfg(test)]` modules; and the names of those modules.
pub(super) fn code(source: &str) -> (String, Vec<String>) {
    let mut out = String::new();
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if next == '"' {
            string_literal(rest)
        } else if let Some(length) = raw_string(&out, rest) {
            length
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
            continue;
        };
        rest = &rest[skip..];
    }
    let mut tests = Vec::new();
    let code = without_tests(&out, &mut tests);
    (code, tests)
}

/// Length of the string literal that `text` starts with.
fn string_literal(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the raw string literal that `text` starts with, after `before`.
fn raw_string(before: &str, text: &str) -> Option<usize> {
    let rest = text.strip_prefix('r')?;
    let hashes = &rest[..rest.len() - rest.trim_start_matches('#').len()];
    let is_in_word = before.ends_with(|c: char| (c.is_alphanumeric() && c != 'b') || c == '_');
    if is_in_word || !rest[hashes.len()..].starts_with('"') {
        return None;
    }
    let start = 1 + hashes.len() + 1;
    let end = text[start..].find(&format!("\"{hashes}"))?;
    Some(start + end + 1 + hashes.len())
}

/// A test module is another file (`mod tests;`), or it ends with a `}` in the first column.
fn without_tests(code: &str, tests: &mut Vec<String>) -> String {
    let Some((before, module)) = code.split_once("#[cfg(test)]") else {
        return code.to_owned();
    };
    let declaration = module.trim_start();
    let declaration = declaration.strip_prefix("pub(crate) ").unwrap_or(declaration);
    let Some(declaration) = declaration.strip_prefix("mod ") else {
        return before.to_owned() + &without_tests(module, tests);
    };
    let end = declaration.find([';', ' ']).unwrap_or(declaration.len());
    tests.push(declaration[..end].to_owned());
    let after = if declaration[end..].starts_with(';') {
        &declaration[end + 1..]
    } else {
        declaration.split_once("\n}").map_or("", |(_, after)| after)
    };
    before.to_owned() + &without_tests(after, tests)
}

#[test]
fn comments_strings_and_tests_do_not_count() {
    let source = "//! tokio\n/* crate::relay */ fn f() { g(\"\\\" tokio // \"); } // crate::relay\n\
                  #[cfg(test)]\nmod tests {\n    use tokio::test;\n}\nfn g() { '\"' }\n\
                  #[cfg(test)]\nmod more;\nconst R: &str = br#\"crate::relay \" \"#;\n#[cfg(test)]\nfn t() {}\n";
    let (code, tests) = code(source);
    assert_eq!(tests, ["tests", "more"]);
    assert!(!code.contains("tokio") && !code.contains("relay") && !code.contains("more"), "{code}");
    assert!(
        code.contains("fn g()") && code.contains("const R") && code.contains("fn t()"),
        "{code}"
    );
}
