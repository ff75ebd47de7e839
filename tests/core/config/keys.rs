//! The key table: types, ranges and old names against the parser, and the texts generated from the table.

use std::fmt::Write as _;
use std::fs;

use gatepost::config::{Config, ConfigError, DefaultSpec, KeySpec, RENAMED, SECTIONS, SectionSpec};

use super::{folder, update_expected};

const START: &str = "<!-- Generated from src/config/keys.rs -->\n\n";

fn keys() -> impl Iterator<Item = (&'static SectionSpec, &'static KeySpec)> {
    SECTIONS.iter().flat_map(|section| section.keys.iter().map(move |key| (section, key)))
}

/// The error about `key` of `section` with `value`.
fn error(section: &SectionSpec, key: &KeySpec, value: &str) -> ConfigError {
    let parent = match section.header {
        "[policy.when]" => "[[policy]]\n",
        "[listener.upstream]" => "[[listener]]\n",
        _ => "",
    };
    let text = format!("{parent}{}\n{} = {value}\n", section.header, key.name);
    let field = Some(format!("{}.{}", section.path(), key.name));
    let errors = Config::parse(&text, "t").unwrap_err();
    let found = errors.errors().iter().find(|error| error.field == field);
    found.unwrap_or_else(|| panic!("{value} is accepted: {text}{errors}")).clone()
}

#[test]
fn every_key_is_read() {
    for (section, key) in keys() {
        let error = error(section, key, "1979-05-27");
        assert!(error.problem.ends_with("found a date"), "{}.{}", section.path(), key.name);
    }
}

#[test]
fn ranges_and_words_are_those_that_are_checked() {
    let mut count = 0;
    for (section, key) in keys() {
        let (value, expected) = match key.kind.split_once(", ") {
            Some(("integer", range)) => ("99999999999", range),
            Some(("duration", range)) => ("\"9999years\"", range),
            Some(("size", range)) => ("\"9999G\"", range),
            Some(_) if key.kind.starts_with('"') => ("\"no such word\"", key.kind),
            _ => continue,
        };
        let remedy = error(section, key, value).remedy;
        // The example of a size follows its range.
        let remedy = remedy.split(", such as").next().unwrap();
        let is_quoted = remedy.ends_with(&format!(" from {expected}"))
            || remedy.ends_with(&format!(" of {expected}"));
        assert!(is_quoted, "{}.{}: {remedy}", section.path(), key.name);
        count += 1;
    }
    assert!(count > 70, "only {count} keys");
}

#[test]
fn old_names_are_reported_with_the_new_ones() {
    let exists = |path: &str| {
        SECTIONS.iter().any(|section| section.path() == path)
            || keys().any(|(section, key)| path == format!("{}.{}", section.path(), key.name))
    };
    for (old, new) in RENAMED {
        assert!(!exists(old) && exists(new), "{old} -> {new}");
        let (section, name) = old.rsplit_once('.').unwrap_or(("", old));
        let (text, message) = if SECTIONS.iter().any(|section| section.path() == *new) {
            let message = format!("[{old}]: unknown section [{old}]; it is now called [{new}]");
            (format!("[{old}]"), message)
        } else {
            let new = new.rsplit('.').next().unwrap();
            let message = format!("{old}: unknown key `{name}`; it is now called `{new}`");
            (format!("[{section}]\n{name} = 1"), message)
        };
        let errors = Config::parse(&text, "t").unwrap_err().to_string();
        assert!(errors.lines().any(|line| line.ends_with(&message)), "{message}\n{errors}");
    }
}

#[test]
fn the_full_file_is_generated_from_the_table() {
    let path = folder("valid").join("full.toml");
    let expected = full_file();
    if update_expected() {
        fs::write(&path, &expected).unwrap();
    }
    assert!(fs::read_to_string(path).unwrap() == expected, "run with UPDATE_EXPECT=1");
}

#[test]
fn the_documented_keys_are_generated_from_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let page = fs::read_to_string(path).unwrap();
    let (introduction, _) = page.split_once(START).unwrap();
    let expected = format!("{introduction}{START}{}", key_tables());
    if update_expected() {
        fs::write(path, &expected).unwrap();
    }
    assert!(fs::read_to_string(path).unwrap() == expected, "run with UPDATE_EXPECT=1");
}

/// A valid file with every section and key.
fn full_file() -> String {
    let mut out = String::from(
        "# Every section and key of gatepost's configuration, with its default or, without a fixed one, an example.\n\
         # docs/configuration.md has the same in tables.\n",
    );
    let mut before: &[KeySpec] = &[];
    for section in SECTIONS {
        if section.keys == before {
            wrap(&mut out, &format!("\n{}: {}", section.header, section.help));
            continue;
        }
        before = section.keys;
        // They contradict the mode and the form of this file, and its one certificate.
        let contradicts = ["[intercept]", "[[listener]]", "[[tls.certificate]]"];
        let mark = if contradicts.contains(&section.header) { "# " } else { "" };
        out.push('\n');
        wrap(&mut out, section.help);
        writeln!(out, "{mark}{}", section.header).unwrap();
        for key in section.keys {
            let default = match key.default {
                DefaultSpec::Required(_) => "; required".to_owned(),
                DefaultSpec::Text(_) | DefaultSpec::Value(_) => String::new(),
                DefaultSpec::Unset(default, _) => format!("; default: {default}"),
            };
            wrap(&mut out, &format!("{} ({}{default})", key.help, key.kind));
            writeln!(out, "{mark}{} = {}", key.name, key.example()).unwrap();
        }
    }
    out
}

/// `text` as a comment of lines of at most 120 characters.
fn wrap(out: &mut String, text: &str) {
    let mut column = 0;
    for word in text.trim_start().split(' ') {
        let length = word.chars().count() + 1;
        if column > 0 && column + length > 120 {
            out.push('\n');
            column = 0;
        }
        out.push_str(if column == 0 { "# " } else { " " });
        out.push_str(word);
        column += length;
    }
    out.push('\n');
}

fn key_tables() -> String {
    let mut out = String::new();
    let mut before: &[KeySpec] = &[];
    for section in SECTIONS {
        writeln!(out, "### `{}`\n\n{}\n", section.header, section.help).unwrap();
        if section.keys == before {
            continue;
        }
        before = section.keys;
        out.push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
        for key in section.keys {
            let default = match key.default {
                DefaultSpec::Required(_) => "required".to_owned(),
                DefaultSpec::Text(_) | DefaultSpec::Value(_) => format!("`{}`", key.example()),
                DefaultSpec::Unset(default, _) => default.to_owned(),
            };
            let kind = match key.kind.starts_with('"') {
                true => key
                    .kind
                    .split(", ")
                    .map(|word| format!("`{word}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
                false => key.kind.to_owned(),
            };
            writeln!(out, "| `{}` | {kind} | {default} | {} |", key.name, key.help).unwrap();
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}
