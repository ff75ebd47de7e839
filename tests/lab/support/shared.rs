//! Captures of other projects: they stand in `../shared/captures` beside the checkout, and are no part of it.

#![allow(dead_code, reason = "each test that reads them needs a part of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Fewer would mean that they are not all there.
const AT_LEAST: usize = 50;

/// All of them in order; none, said aloud, where they or the program to compare with are not there.
pub(crate) fn captures(program: &str) -> Vec<PathBuf> {
    if !has(program) {
        return Vec::new();
    }
    let folder = folder();
    if !folder.is_dir() {
        println!("NOT TESTED: there are no captures in {}", folder.display());
        return Vec::new();
    }
    let found = below(&folder);
    assert!(found.len() > AT_LEAST, "few captures in {}", folder.display());
    found
}

/// Whether a program is installed; said aloud if not.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("NOT TESTED: {program} is not installed");
    }
    found
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/captures")
}

/// Every pcap and pcapng below a folder.
pub(crate) fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(below(&path));
        } else if path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng") {
            found.push(path);
        }
    }
    found.sort();
    found
}
