//! Captures of other projects, in `../shared/captures` beside the checkout.

use std::fs;
use std::path::{Path, PathBuf};

use super::cannot_run;

/// Fewer means an incomplete folder.
const AT_LEAST: usize = 50;

/// All of them in order; without them, the test is ignored.
pub(crate) fn captures() -> Vec<PathBuf> {
    let found = below(&folder());
    assert!(found.len() > AT_LEAST, "few captures in {}", folder().display());
    found
}

pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/captures");
    if !folder.is_dir() {
        cannot_run("needs the captures of other projects in ../shared/captures");
    }
    folder
}

/// Every pcap and pcapng below a folder, except in `crafted`: those are inputs that gatepost does not read yet as its README
/// asks, and no other project's expectations come with them.
pub(crate) fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.ends_with("crafted") {
            continue;
        }
        if path.is_dir() {
            found.extend(below(&path));
        } else if path.extension().is_some_and(|kind| kind == "pcap" || kind == "pcapng") {
            found.push(path);
        }
    }
    found.sort();
    found
}
