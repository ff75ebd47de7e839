//! README, docs/ and the changelog name only what there is: files that they link to, and commands that the program takes.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use clap::error::ErrorKind;
use gatepost::cli::Cli;

fn pages() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(here.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let docs = docs.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    docs.chain(["README.md", "CHANGELOG.md"].map(|name| here.join(name))).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (before, after) in text.match_indices("](").map(|(at, _)| text.split_at(at)) {
            let (target, _) = after[2..].split_once(')').unwrap();
            // In code it is no link.
            if target.contains("://")
                || before.lines().last().unwrap().matches('`').count() % 2 == 1
            {
                continue;
            }
            let file = target.split('#').next().unwrap();
            let there = file.is_empty() || page.parent().unwrap().join(file).exists();
            assert!(there, "{}: nothing is at {target}", page.display());
            count += 1;
        }
    }
    assert!(count > 10, "only {count} links were found");
}

/// Each `gatepost …` of a console block is one that the program takes. A line of text in docs/ may name it without what follows.
#[test]
fn commands_are_what_the_program_takes() {
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        let is_ours = |command: &&str| command.starts_with("gatepost ");
        let typed = text.lines().filter_map(|line| line.trim_start().strip_prefix("$ "));
        for command in typed.filter(is_ours) {
            if let Err(error) = Cli::try_parse_from(words(command)) {
                panic!("{}: `{command}`: {error}", page.display());
            }
            count += 1;
        }
        let is_in_docs = page.parent().unwrap().ends_with("docs");
        let lines = text.lines().filter(|_| is_in_docs);
        for command in lines.flat_map(|line| line.split('`').skip(1).step_by(2)).filter(is_ours) {
            // What stands for a value is taken for one.
            let filled = command.replace("ADDR:PORT", "[2001:db8::1]:9626");
            let words = words(&filled);
            let ends_early = words.last().is_some_and(|word| word.starts_with("--"));
            let parsed = Cli::try_parse_from(words).map_err(|error| (error.kind(), error));
            match parsed {
                Ok(_) | Err((ErrorKind::MissingRequiredArgument, _)) => count += 1,
                Err((ErrorKind::InvalidValue, _)) if ends_early => count += 1,
                Err((_, error)) => panic!("{}: `{command}`: {error}", page.display()),
            }
        }
    }
    assert!(count > 20, "only {count} commands were found");
}

/// As a shell would split a command with neither variables nor quotes within words; what follows `|` or `&` is not ours.
fn words(command: &str) -> Vec<&str> {
    let ours = command.split(['|', '&', '>']).next().unwrap();
    ours.split_whitespace().map(|word| word.trim_matches('\'')).collect()
}
