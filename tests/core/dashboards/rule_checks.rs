//! Every rule has its tests, and every alert a runbook entry with a command to run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::board::FOLDER;
use super::rules::{Rule, rules, yaml};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

fn alerts() -> Vec<(Rule, BTreeMap<String, String>)> {
    rules().into_iter().filter_map(|rule| Some((rule.clone(), rule.alert?))).collect()
}

/// Every promtool test.
fn tests() -> Vec<Value> {
    test_files()
        .iter()
        .flat_map(|file| yaml(Path::new(file))["tests"].as_array().unwrap().clone())
        .collect()
}

fn test_files() -> Vec<String> {
    let folder = Path::new(FOLDER).join("prometheus");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.map(|path| path.to_str().unwrap().to_owned());
    files.filter(|path| path.ends_with(".test.yml")).collect()
}

#[test]
fn every_alert_has_a_test_that_fires_and_one_that_is_silent() {
    let tests = tests();
    let each = |part: &str| -> Vec<Value> {
        tests.iter().filter_map(|test| test[part].as_array()).flatten().cloned().collect()
    };
    let (fires, silent) = (each("promql_expr_test"), each("alert_rule_test"));
    for (Rule { name, .. }, texts) in alerts() {
        let firing = format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"}}");
        let shown = fires.iter().find(|test| test["expr"] == firing.as_str());
        let shown = shown.unwrap_or_else(|| panic!("no test in which {name} fires"));
        let labels = shown["exp_samples"][0]["labels"].as_str().unwrap();
        let severity = format!("severity=\"{}\"", texts["severity"]);
        assert!(labels.contains(&severity), "{name}: {labels}");
        // The labels used in its texts exist.
        for text in texts.values() {
            for label in text.split("$labels.").skip(1) {
                let label = label.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                assert!(labels.contains(&format!("{label}=")), "{name} has no label {label}");
            }
        }
        let is_silent = |test: &&Value| {
            test["alertname"] == name.as_str() && test["exp_alerts"].as_array().unwrap().is_empty()
        };
        assert!(silent.iter().any(|test| is_silent(&test)), "no test in which {name} is silent");
    }
}

#[test]
fn every_recording_rule_is_tested() {
    let tests = tests();
    for rule in rules().iter().filter(|rule| rule.alert.is_none()) {
        let covers = |test: &Value| {
            let parts = test["promql_expr_test"].as_array();
            parts.is_some_and(|parts| parts.iter().any(|part| part["expr"] == rule.name.as_str()))
        };
        assert!(tests.iter().any(covers), "no test of {}", rule.name);
    }
}

#[test]
fn every_alert_has_a_runbook_with_a_first_command() {
    for (Rule { name, .. }, texts) in alerts() {
        assert!(["critical", "warning"].contains(&texts["severity"].as_str()), "{name}");
        for part in ["summary", "description", "runbook"] {
            assert!(texts[part].len() > 20, "{name}: {part}");
        }
        assert!(texts["summary"].len() <= 90, "{name}: {}", texts["summary"]);
        let runbook = &texts["runbook"];
        assert!(runbook.starts_with("Run `"), "{name}: {runbook}");
        for command in runbook.split('`').skip(1).step_by(2) {
            if let Some(words) = command.strip_prefix("gatepost ") {
                is_a_command(&name, words);
            }
        }
    }
}

/// Whether the command line accepts the words up to the first option, file or pipe.
fn is_a_command(alert: &str, words: &str) {
    let is_word = |word: &&str| !word.starts_with(['-', '|', '/']);
    let words: Vec<&str> = words.split(' ').take_while(is_word).collect();
    let output = Command::new(GATEPOST).args(&words).arg("--help").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{alert}: `gatepost {}`: {error}", words.join(" "));
}
