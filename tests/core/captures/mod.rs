//! The recorded cases of `captures/`: `gatepost replay` prints the contents of their `expect.json`.

mod expectation;

use std::fs;
use std::path::{Path, PathBuf};

use expectation::{EXPECTATION, replay, values};
use serde_json::Value;

const SECTIONS: [&str; 3] = ["## Purpose", "## How it was made", "## What to see"];

/// The folder of each case.
fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

#[test]
fn every_case_is_described() {
    for case in cases() {
        let readme = fs::read_to_string(case.join("README.md")).unwrap();
        let sections: Vec<&str> = readme.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(sections, SECTIONS, "{}", case.display());
    }
}

#[test]
fn every_case_replays_as_expected() {
    let differences = cases().into_iter().flat_map(|case| {
        let differences = differences(&case);
        differences.into_iter().map(move |line| format!("{}: {line}", case.display()))
    });
    let differences: Vec<String> = differences.collect();
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

/// To run after a change of replay's output; review the diff before you commit it.
#[test]
#[ignore = "writes expect.json of every case"]
fn expectations_are_written() {
    for case in cases() {
        expectation::write(&case);
    }
}

/// `live.json` is the log of the gateway while the case was recorded; a replay must give the same verdicts.
#[test]
fn verdicts_replay_as_they_were_given_live() {
    let mut compared = 0;
    for case in cases() {
        let Ok(live) = fs::read_to_string(case.join("live.json")) else { continue };
        let replayed = values(&replay(&case));
        for live in values(&live) {
            let offline = replayed.iter().find(|session| session["client"] == live["client"]);
            let verdict = offline.map_or(&Value::Null, |session| &session["verdict"]);
            assert_eq!(verdict, &live["verdict"], "{}: {}", case.display(), live["client"]);
            compared += 1;
        }
    }
    assert!(compared > 0, "no case has a live.json");
}

/// The differences between `expect.json` and the current output, one a line.
fn differences(folder: &Path) -> Vec<String> {
    let expected = match fs::read_to_string(folder.join(EXPECTATION)) {
        Ok(text) => values(&text),
        Err(error) => return vec![format!("{EXPECTATION}: {error}")],
    };
    let found = values(&replay(folder));
    let mut differences = Vec::new();
    for number in 0..expected.len().max(found.len()) {
        let place = format!("line {}", number + 1);
        compare(&place, expected.get(number), found.get(number), &mut differences);
    }
    differences
}

fn compare(place: &str, expected: Option<&Value>, found: Option<&Value>, out: &mut Vec<String>) {
    match (expected, found) {
        (Some(Value::Object(expected)), Some(Value::Object(found))) => {
            let only_found = found.keys().filter(|key| !expected.contains_key(*key));
            for key in expected.keys().chain(only_found) {
                compare(&format!("{place}.{key}"), expected.get(key), found.get(key), out);
            }
        }
        (Some(Value::Array(expected)), Some(Value::Array(found))) => {
            for at in 0..expected.len().max(found.len()) {
                compare(&format!("{place}[{at}]"), expected.get(at), found.get(at), out);
            }
        }
        _ if expected == found => {}
        _ => {
            let shown = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
            out.push(format!("{place}: expected {}, found {}", shown(expected), shown(found)));
        }
    }
}

#[test]
fn a_difference_is_reported_with_its_place() {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let expected = value(r#"{"a": 1, "b": {"c": [1, 2]}, "gone": null}"#);
    let found = value(r#"{"a": 1, "b": {"c": [1, 3, 4]}, "new": true}"#);
    let mut reported = Vec::new();
    compare("line 1", Some(&expected), Some(&found), &mut reported);
    assert_eq!(
        reported,
        [
            "line 1.b.c[1]: expected 2, found 3",
            "line 1.b.c[2]: expected nothing, found 4",
            "line 1.gone: expected null, found nothing",
            "line 1.new: expected nothing, found true",
        ]
    );
}
