//! Everything that the documents name exists: links, files, functions, commands, make targets and configurations.
//!
//! The commands that need other hosts or root run in `tests/lab/docs.rs`.

mod page;

use std::fs;
use std::path::Path;
use std::process::Command;

use clap::Parser as _;
use clap::error::ErrorKind;
use gatepost::cli::Cli;
use gatepost::config::{Config, SECTIONS};

use page::{Page, Section};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap().lines().count();
    assert!(lines < 200, "{lines} lines");
}

#[test]
fn links_lead_to_files_and_headings() {
    let mut count = 0;
    for page in Page::all() {
        for target in page.links() {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = match file {
                "" => page.path.clone(),
                _ => page.path.parent().unwrap().join(file),
            };
            assert!(path.exists(), "{}: nothing is at {target}", page.name());
            if !anchor.is_empty() {
                let there = Page::open(path.to_str().unwrap()).anchors();
                assert!(there.iter().any(|it| it == anchor), "{}: {target}", page.name());
            }
            count += 1;
        }
    }
    assert!(count > 30, "only {count} links were found");
}

#[test]
fn files_that_are_named_exist() {
    const FOLDERS: [&str; 6] =
        ["src/", "tests/", "docs/", "packaging/", "captures/", "dashboards/"];
    let mut count = 0;
    for page in Page::all() {
        for span in page.code_spans() {
            let is_path = FOLDERS.iter().any(|folder| span.starts_with(folder))
                && !span.contains(['*', ' ', '…'])
                && !span.contains("NAME");
            if is_path {
                assert!(Path::new(ROOT).join(&span).exists(), "{}: `{span}`", page.name());
                count += 1;
            }
        }
    }
    assert!(count > 2, "only {count} files were found");
}

/// In the walks of ARCHITECTURE.md a row names a source file, and functions or types of that file.
#[test]
fn walks_name_functions_of_their_files() {
    let page = Page::open("ARCHITECTURE.md");
    let mut count = 0;
    for row in page.prose.lines().filter_map(|line| line.strip_prefix("| `src/")) {
        let (file, rest) = row.split_once("` | ").unwrap();
        let source = fs::read_to_string(Path::new(ROOT).join("src").join(file)).expect(file);
        let names = rest.split(" | ").next().unwrap();
        for name in names.split('`').skip(1).step_by(2) {
            let item = name.rsplit("::").next().unwrap();
            let is_there = ["fn", "struct", "enum", "trait", "const", "type"]
                .iter()
                .any(|keyword| is_defined(&source, &format!("{keyword} {item}")));
            assert!(is_there, "src/{file} does not define {name}");
            count += 1;
        }
    }
    assert!(count > 50, "only {count} functions were found");
}

fn is_defined(source: &str, definition: &str) -> bool {
    let mut ends = source.match_indices(definition).map(|(at, it)| &source[at + it.len()..]);
    ends.any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

/// The table of layers has each module of the crate, in its layer.
#[test]
fn layers_are_those_of_the_crate() {
    let library = fs::read_to_string(Path::new(ROOT).join("src/lib.rs")).unwrap();
    let crate_table = library.lines().filter_map(|line| line.strip_prefix("//! "));
    let page = Page::open("ARCHITECTURE.md");
    assert_eq!(layers(page.prose.lines()), layers(crate_table));
}

/// Layer and module, from rows such as "| 4 | `relay`, `lookup` | …".
fn layers<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(u8, String)> {
    let mut layers: Vec<(u8, String)> = lines
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .filter_map(|(layer, rest)| Some((layer.parse::<u8>().ok()?, rest.split(" |").next()?)))
        .flat_map(|(layer, modules)| {
            let names = modules.split('`').skip(1).step_by(2);
            names.map(move |name| (layer, name.to_owned())).collect::<Vec<_>>()
        })
        .collect();
    layers.sort();
    layers
}

/// Each `gatepost …` of a console block is one that the program accepts. Prose may name it without its values.
#[test]
fn commands_are_accepted_by_the_command_line() {
    let mut count = 0;
    for page in Page::all() {
        let is_ours = |command: &str| command.starts_with("gatepost ");
        let commands = page.sections.iter().flat_map(Section::commands);
        for command in commands.map(|command| command.line).filter(|line| is_ours(line)) {
            if let Err(error) = Cli::try_parse_from(words(&command)) {
                panic!("{}: `{command}`: {error}", page.name());
            }
            count += 1;
        }
        for command in page.code_spans().into_iter().filter(|span| is_ours(span)) {
            // Placeholders are taken for values.
            let filled = command.replace("ADDR:PORT", "[2001:db8::1]:9626");
            let words = words(&filled);
            let ends_early = words.last().is_some_and(|word| word.starts_with("--"));
            let parsed = Cli::try_parse_from(words).map_err(|error| (error.kind(), error));
            match parsed {
                Ok(_) => {}
                Err((
                    ErrorKind::MissingRequiredArgument
                    | ErrorKind::DisplayVersion
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
                    _,
                )) => {}
                Err((ErrorKind::InvalidValue, _)) if ends_early => {}
                Err((_, error)) => panic!("{}: `{command}`: {error}", page.name()),
            }
            count += 1;
        }
    }
    assert!(count > 60, "only {count} commands were found");
}

/// As a shell splits a command without variables and without quotes inside words; the rest after `|`, `&` or `>` is not ours.
fn words(command: &str) -> Vec<&str> {
    let ours = command.split(['|', '&', '>']).next().unwrap();
    ours.split_whitespace().map(|word| word.trim_matches('\'')).collect()
}

#[test]
fn make_targets_exist() {
    let makefile = fs::read_to_string(Path::new(ROOT).join("Makefile")).unwrap();
    let mut count = 0;
    for page in Page::all() {
        let commands = page.sections.iter().flat_map(Section::commands);
        let lines = commands.map(|command| command.line).chain(page.code_spans());
        for line in lines.filter(|line| line.starts_with("make ")) {
            let target = line.split(' ').nth(1).unwrap();
            let rule = format!("\n{target}:");
            assert!(makefile.contains(&rule), "{}: `{line}`", page.name());
            count += 1;
        }
    }
    assert!(count > 10, "only {count} targets were found");
}

#[test]
fn configurations_are_valid() {
    let mut count = 0;
    for page in Page::all() {
        for block in page.blocks("toml").filter(|block| block.text.contains("[listen]")) {
            if let Err(error) = Config::parse(&block.text, &page.name()) {
                panic!("{}: {error}", page.name());
            }
            count += 1;
        }
    }
    assert!(count >= 6, "only {count} configurations were found");
}

/// Every metric in a document is in the table of docs/metrics.md, which the program prints.
#[test]
fn metrics_exist() {
    let table = Page::open("docs/metrics.md");
    let names: Vec<String> = table.code_spans();
    let mut count = 0;
    for page in Page::all() {
        for span in page.code_spans().iter().filter(|span| span.starts_with("gatepost_")) {
            let name = span.split(['{', ' ']).next().unwrap();
            let is_there = match name.strip_suffix('…') {
                Some(prefix) => names.iter().any(|it| it.starts_with(prefix) && it != name),
                None => names.iter().any(|it| it == name),
            };
            assert!(is_there, "{}: `{span}`", page.name());
            count += 1;
        }
    }
    assert!(count > 60, "only {count} metrics were found");
}

/// `section.key`, `[section]`, `[section] key` and `[section] key = value`. The changelog also names old keys.
#[test]
fn configuration_keys_exist() {
    let mut count = 0;
    for page in Page::all().into_iter().filter(|page| page.name() != "CHANGELOG.md") {
        for span in page.code_spans() {
            if let Some((section, key)) = section_and_key(&span) {
                assert!(is_known(section, key), "{}: `{span}`", page.name());
                count += 1;
            }
        }
    }
    assert!(count > 50, "only {count} keys were found");
}

/// An empty key: the section alone.
fn section_and_key(span: &str) -> Option<(&str, &str)> {
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || "_.46".contains(c));
    let (section, rest) = match span.strip_prefix('[') {
        Some(rest) => rest.trim_start_matches('[').split_once(']')?,
        None => {
            let (section, key) = span.rsplit_once('.')?;
            SECTIONS.iter().find(|known| known.path() == section)?;
            (section, key)
        }
    };
    let key = rest.trim_start_matches(']').trim().split([' ', '=']).next()?;
    (!section.is_empty() && is_name(section) && is_name(key)).then_some((section, key))
}

/// `[door.ipv4]` has the keys of `[door.ipv6]`.
fn is_known(section: &str, key: &str) -> bool {
    let path = if section == "door.ipv4" { "door.ipv6" } else { section };
    SECTIONS.iter().any(|known| {
        known.path() == path && (key.is_empty() || known.keys.iter().any(|it| it.name == key))
    })
}

/// Output of one line is a line of the report; longer output is the whole report.
#[test]
fn replay_prints_what_is_documented() {
    let page = Page::open("docs/replay.md");
    let commands: Vec<_> = page.sections.iter().flat_map(Section::commands).collect();
    assert_eq!(commands.len(), 4);
    for command in commands {
        let arguments = command.line.strip_prefix("gatepost ").unwrap().split(' ');
        let output = Command::new(GATEPOST).args(arguments).current_dir(ROOT).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap();
        let (printed, shown) = (printed.trim_end(), command.output.trim_end());
        assert!(
            match shown.lines().count() {
                1 => printed.lines().any(|line| line == shown),
                _ => printed == shown,
            },
            "`{}` printed:\n{printed}",
            command.line
        );
    }
}

/// Each check that the mail server no longer sees has a key that replaces it.
#[test]
fn checks_of_the_mail_server_have_keys() {
    let page = Page::open("docs/mta-checks.md");
    let is_header = |row: &&str| row.contains("keys that replace it") || row.starts_with("|---");
    let rows = page.prose.lines().filter(|line| line.starts_with('|'));
    let rows: Vec<&str> = rows.filter(|row| !is_header(row)).collect();
    let mut named = Vec::new();
    for row in &rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert!(cells.len() == 3 || cells.len() == 6, "{row}");
        let keys: Vec<&str> = cells.last().unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!keys.is_empty(), "no key in {row}");
        for key in keys {
            let (section, name) =
                section_and_key(key).unwrap_or_else(|| panic!("`{key}` in {row}"));
            assert!(is_known(section, name), "`{key}` in {row}");
            named.push(key);
        }
    }
    assert!(rows.len() > 15, "only {} rows", rows.len());
    for key in ["pregreet", "early_data", "bare_newlines", "hide"] {
        assert!(named.contains(&format!("smtp.{key}").as_str()), "smtp.{key}");
    }
}

/// No example has what `config check` warns about.
#[test]
fn no_example_hides_starttls() {
    for page in Page::all() {
        for block in page.sections.iter().flat_map(|section| &section.blocks) {
            assert!(!block.text.contains("STARTTLS\"]"), "{}", page.name());
        }
    }
}

/// `config check` of the policy guide's rules has the documented output.
#[test]
fn the_policy_guide_is_checked_as_documented() {
    let page = Page::open("docs/policy.md");
    let section = page.section("Rules");
    let folder = std::env::temp_dir().join(format!("gatepost-docs-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let toml = section.blocks.iter().find(|block| block.language == "toml").unwrap();
    fs::write(folder.join("gatepost.toml"), &toml.text).unwrap();
    let commands = section.commands();
    assert_eq!(commands.len(), 1);
    let arguments = commands[0].line.strip_prefix("gatepost ").unwrap().split(' ');
    let output = Command::new(GATEPOST).args(arguments).current_dir(&folder).output().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert_eq!(printed, commands[0].output);
}

/// The example of `gatepost door` is from the report's own snapshots.
#[test]
fn the_door_is_shown_as_documented() {
    let snapshots = fs::read_dir(Path::new(ROOT).join("src/report/snapshots")).unwrap();
    let paths = snapshots.map(|entry| entry.unwrap().path());
    let of_doors = paths.filter(|path| path.to_str().unwrap().contains("__door__"));
    let snapshots: String = of_doors.map(|path| fs::read_to_string(path).unwrap()).collect();
    let page = Page::open("docs/policy.md");
    let shown = page.section("The door").blocks.iter().find(|block| block.language == "text");
    for line in shown.unwrap().text.lines() {
        assert!(snapshots.contains(line), "{line:?} is in no snapshot");
    }
}
