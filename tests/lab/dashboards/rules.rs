//! Recording rules and alerts, as promtool reads them and as people do.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::generate::FOLDER;

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// One entry of a file of rules.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Of the alert, or of the series that it records.
    pub(super) name: String,
    pub(super) expr: String,
    /// Labels and annotations of alerts.
    pub(super) alert: Option<BTreeMap<String, String>>,
}

pub(super) fn yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every recording rule and every alert.
pub(super) fn rules() -> Vec<Rule> {
    let files = ["recording.yml", "alerts.yml"];
    let files = files.map(|name| yaml(&Path::new(FOLDER).join("prometheus").join(name)));
    let groups = files.iter().flat_map(|file| file["groups"].as_array().unwrap());
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(rule).collect()
}

fn rule(rule: &Value) -> Rule {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{rule}")).to_owned();
    let expr = text(&rule["expr"]);
    if let Some(name) = rule["record"].as_str() {
        return Rule { name: name.to_owned(), expr, alert: None };
    }
    let said =
        ["labels", "annotations"].into_iter().flat_map(|part| rule[part].as_object().unwrap());
    let said = said.map(|(name, value)| (name.clone(), text(value))).collect();
    Rule { name: text(&rule["alert"]), expr, alert: Some(said) }
}

fn alerts() -> Vec<(Rule, BTreeMap<String, String>)> {
    rules().into_iter().filter_map(|rule| Some((rule.clone(), rule.alert?))).collect()
}

/// Every test of promtool.
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

/// Runs promtool, or says that it cannot.
fn promtool(test: &str, arguments: &[&str]) {
    let output = match Command::new("promtool").args(arguments).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let why = "promtool is not installed (Debian package prometheus)";
            let _ = writeln!(io::stderr(), "SKIPPED: {test}: {why}");
            return;
        }
        output => output.unwrap(),
    };
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}:\n{said}");
}

#[test]
fn promtool_takes_the_configuration_and_its_rules() {
    let file = format!("{FOLDER}/prometheus/prometheus.yml");
    promtool("the rules' syntax", &["check", "config", "--lint-fatal", &file]);
    for name in ["recording.yml", "alerts.yml"] {
        let file = format!("{FOLDER}/prometheus/{name}");
        promtool("the rules' syntax", &["check", "rules", "--lint-fatal", &file]);
    }
}

#[test]
fn every_rule_does_what_its_tests_say() {
    let files = test_files();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    promtool("the rules' tests", &[&["test", "rules"], files.as_slice()].concat());
}

#[test]
fn every_alert_is_shown_to_fire_and_to_be_silent() {
    let tests = tests();
    let each = |part: &str| -> Vec<Value> {
        tests.iter().filter_map(|test| test[part].as_array()).flatten().cloned().collect()
    };
    let (fires, silent) = (each("promql_expr_test"), each("alert_rule_test"));
    for (Rule { name, .. }, said) in alerts() {
        let firing = format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"}}");
        let shown = fires.iter().find(|test| test["expr"] == firing.as_str());
        let shown = shown.unwrap_or_else(|| panic!("no test shows that {name} fires"));
        let labels = shown["exp_samples"][0]["labels"].as_str().unwrap();
        let severity = format!("severity=\"{}\"", said["severity"]);
        assert!(labels.contains(&severity), "{name}: {labels}");
        // What its words name is there to be said.
        for text in said.values() {
            for label in text.split("$labels.").skip(1) {
                let label = label.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
                assert!(labels.contains(&format!("{label}=")), "{name} has no label {label}");
            }
        }
        let is_silent = |test: &&Value| {
            test["alertname"] == name.as_str() && test["exp_alerts"].as_array().unwrap().is_empty()
        };
        assert!(silent.iter().any(|test| is_silent(&test)), "no test shows that {name} is silent");
    }
}

#[test]
fn every_recording_rule_is_tested() {
    let tests = tests();
    for rule in rules().iter().filter(|rule| rule.alert.is_none()) {
        let is_of_it = |test: &Value| {
            let parts = test["promql_expr_test"].as_array();
            parts.is_some_and(|parts| parts.iter().any(|part| part["expr"] == rule.name.as_str()))
        };
        assert!(tests.iter().any(is_of_it), "no test of {}", rule.name);
    }
}

#[test]
fn every_alert_says_what_to_type_first() {
    for (Rule { name, .. }, said) in alerts() {
        assert!(["critical", "warning"].contains(&said["severity"].as_str()), "{name}");
        for part in ["summary", "description", "runbook"] {
            assert!(said[part].len() > 20, "{name}: {part}");
        }
        assert!(said["summary"].len() <= 90, "{name}: {}", said["summary"]);
        let runbook = &said["runbook"];
        assert!(runbook.starts_with("Type `"), "{name}: {runbook}");
        for command in runbook.split('`').skip(1).step_by(2) {
            if let Some(words) = command.strip_prefix("gatepost ") {
                is_a_command(&name, words);
            }
        }
    }
}

/// Whether the gateway's command line takes the words up to the first option, a file or a pipe.
fn is_a_command(alert: &str, words: &str) {
    let is_word = |word: &&str| !word.starts_with(['-', '|', '/']);
    let words: Vec<&str> = words.split(' ').take_while(is_word).collect();
    let output = Command::new(GATEPOST).args(&words).arg("--help").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{alert}: `gatepost {}`: {said}", words.join(" "));
}
