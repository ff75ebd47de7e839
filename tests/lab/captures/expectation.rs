//! `expect.json`: what `gatepost replay --format json` prints of a case, run in the case's folder.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// The configuration of the gateway that a case was recorded at, where there was one.
pub(super) const CONFIG: &str = "config.toml";
const EXPECTATION: &str = "expect.json";

/// Replays the case, with its configuration where it has one.
pub(super) fn replay(folder: &Path) -> String {
    let mut replay = Command::new(GATEPOST);
    replay.args(["replay", "--format", "json"]).current_dir(folder);
    if folder.join(CONFIG).exists() {
        replay.args(["--config", CONFIG]);
    }
    let Output { status, stdout, stderr } = replay.arg("input.pcap").output().unwrap();
    assert!(
        status.success(),
        "{replay:?} ended with {status}: {}",
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).unwrap()
}

/// Writes what gatepost says now.
pub(super) fn write(folder: &Path) {
    fs::write(folder.join(EXPECTATION), replay(folder)).unwrap();
}

/// Where what gatepost says now is not what stands there, a line each.
pub(super) fn differences(folder: &Path) -> Vec<String> {
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

/// One value a line.
pub(super) fn values(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
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
fn a_difference_is_told_with_its_place() {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let expected = value(r#"{"a": 1, "b": {"c": [1, 2]}, "gone": null}"#);
    let found = value(r#"{"a": 1, "b": {"c": [1, 3, 4]}, "new": true}"#);
    let mut told = Vec::new();
    compare("line 1", Some(&expected), Some(&found), &mut told);
    assert_eq!(
        told,
        [
            "line 1.b.c[1]: expected 2, found 3",
            "line 1.b.c[2]: expected nothing, found 4",
            "line 1.gone: expected null, found nothing",
            "line 1.new: expected nothing, found true",
        ]
    );
}
