//! Randomly damaged copies of the recordings in `captures/`.

mod checks;

use std::fs;
use std::path::{Path, PathBuf};

/// The recordings of the cases.
fn recordings() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
    let folders = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        folders.map(|folder| folder.join("input.pcap")).filter(|file| file.exists()).collect();
    found.sort();
    assert!(found.len() >= 18, "{found:?}");
    found
}

#[test]
fn mutants_are_read_to_their_end_within_bounds() {
    checks::are_read_to_their_end(&recordings());
}

#[test]
fn replay_survives_mutants() {
    checks::replay_survives(&recordings());
}
