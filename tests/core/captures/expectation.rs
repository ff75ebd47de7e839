//! `expect.json`: the output of `gatepost replay --format json` for a case, run in the case's folder.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
/// The expected output.
pub(super) const EXPECTATION: &str = "expect.json";
/// The configuration of the gateway that a case was recorded at, where there was one.
pub(super) const CONFIG: &str = "config.toml";

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

/// Writes the current output of gatepost.
pub(super) fn write(folder: &Path) {
    fs::write(folder.join(EXPECTATION), replay(folder)).unwrap();
}

/// One value a line.
pub(super) fn values(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
