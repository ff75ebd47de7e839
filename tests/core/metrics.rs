//! `gatepost metrics list`, and docs/metrics.md, which contains the same table.

use std::fs;
use std::process::Command;

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

#[test]
fn the_manual_has_the_table_that_the_program_prints() {
    let listed = Command::new(GATEPOST).args(["metrics", "list", "--format", "markdown"]).output();
    let table = String::from_utf8(listed.unwrap().stdout).unwrap();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let (_, shown) = page.split_once("\n\n| name |").expect("a table");
    assert_eq!(
        format!("| name |{shown}"),
        table,
        "replace the table in docs/metrics.md with the printed one"
    );
}

#[test]
fn a_part_of_a_name_finds_its_metrics() {
    let list = |arguments: &[&str]| {
        let output = Command::new(GATEPOST).args(["metrics", "list"]).args(arguments).output();
        let output = output.unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(String::from_utf8);
        (output.status.success(), stdout.unwrap(), stderr.unwrap())
    };
    let (_, doors, _) = list(&["door", "--format", "json"]);
    let doors: Vec<serde_json::Value> = serde_json::from_str(&doors).unwrap();
    let names: Vec<_> = doors.iter().map(|family| family["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["changes_total", "enforced", "proof_age_seconds", "refused_total", "state"]
            .map(|name| format!("gatepost_door_{name}"))
    );
    let (found, _, stderr) = list(&["flux"]);
    assert!(!found && stderr.contains("no metric name contains \"flux\""), "{stderr}");
}

/// Every command prints the same message.
#[test]
fn a_full_disk_is_reported() {
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/gatepost.toml");
    for arguments in
        [&["metrics", "list"][..], &["completions", "bash"], &["config", "check", example]]
    {
        let output = Command::new(GATEPOST).args(arguments).stdout(full()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(
            stderr.starts_with("gatepost: cannot write to standard output; send it to")
                && stderr.contains("No space left"),
            "{arguments:?}: {stderr}"
        );
    }
}
