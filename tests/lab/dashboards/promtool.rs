//! promtool checks the rules and runs their tests.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::tests;
use crate::support::require_program;

use super::board::FOLDER;

tests![
    promtool_accepts_the_configuration_and_its_rules,
    promtool_accepts_the_metrics_of_a_replay,
    every_rule_passes_its_tests,
];

fn promtool_accepts_the_configuration_and_its_rules() {
    let file = format!("{FOLDER}/prometheus/prometheus.yml");
    promtool(&["check", "config", "--lint-fatal", &file]);
    for name in ["recording.yml", "alerts.yml"] {
        let file = format!("{FOLDER}/prometheus/{name}");
        promtool(&["check", "rules", "--lint-fatal", &file]);
    }
}

fn promtool_accepts_the_metrics_of_a_replay() {
    require_program("promtool", "prometheus");
    let file = std::env::temp_dir().join(format!("gatepost-{}.prom", std::process::id()));
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/captures/plain-ipv6/input.pcap");
    let replay = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["replay", capture, "--metrics-out"])
        .arg(&file)
        .output();
    let metrics = fs::read(&file);
    let _missing = fs::remove_file(&file);
    assert!(replay.unwrap().status.success());

    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]);
    let pipes = promtool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = pipes.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(&metrics.unwrap()).unwrap();
    assert_success("check metrics", &promtool.wait_with_output().unwrap());
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
    assert_success(&arguments.join(" "), &output);
}

fn assert_success(arguments: &str, output: &Output) {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "promtool {arguments}:\n{text}");
}
