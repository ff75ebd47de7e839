//! promtool checks the rules and runs their tests.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::tests;
use crate::support::require_program;

use super::board::FOLDER;

tests![promtool_accepts_the_configuration_and_its_rules, every_rule_passes_its_tests];

fn promtool_accepts_the_configuration_and_its_rules() {
    let file = format!("{FOLDER}/prometheus/prometheus.yml");
    promtool(&["check", "config", "--lint-fatal", &file]);
    for name in ["recording.yml", "alerts.yml"] {
        let file = format!("{FOLDER}/prometheus/{name}");
        promtool(&["check", "rules", "--lint-fatal", &file]);
    }
}

fn every_rule_passes_its_tests() {
    let files = test_files();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    promtool(&[&["test", "rules"], files.as_slice()].concat());
}

fn test_files() -> Vec<String> {
    let folder = Path::new(FOLDER).join("prometheus");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.map(|path| path.to_str().unwrap().to_owned());
    files.filter(|path| path.ends_with(".test.yml")).collect()
}

fn promtool(arguments: &[&str]) {
    require_program("promtool", "prometheus");
    let output = Command::new("promtool").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}:\n{text}");
}
