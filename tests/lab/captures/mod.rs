//! The recordings in `captures/`: tshark finds in each what its case claims. `make captures` records them again
//! (`captures/record/`).

mod cases;
#[path = "../../core/captures/expectation.rs"]
mod expectation;
pub(crate) mod record;
mod recorder;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::harness::tests;
use crate::support::require_program;
use cases::{CAPTURES, CASES};

tests![
    every_folder_is_a_case_and_stands_in_the_index,
    every_recording_is_small_and_shows_what_it_claims,
];

/// Bytes of a recording: people read them, and the repository's history keeps them for ever.
const MAX_RECORDING: u64 = 60_000;

fn every_folder_is_a_case_and_stands_in_the_index() {
    let folders: BTreeSet<String> = fs::read_dir(CAPTURES)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    let cases: BTreeSet<String> = CASES.iter().map(|case| case.name.to_owned()).collect();
    assert_eq!(folders, cases);

    let index = fs::read_to_string(Path::new(CAPTURES).join("README.md")).unwrap();
    let rows = index.lines().filter_map(|line| line.strip_prefix("| ["));
    let listed: Vec<&str> = rows.filter_map(|row| row.split(']').next()).collect();
    let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(listed, names);
}

fn every_recording_is_small_and_shows_what_it_claims() {
    require_program("tshark", "tshark");
    for case in CASES {
        let recording = case.folder().join("input.pcap");
        let size = fs::metadata(&recording).unwrap().len();
        assert!(size <= MAX_RECORDING, "{}: {size} bytes", case.name);
        assert_eq!(case.failed_claims(&recording), [""; 0], "{}", case.name);
    }
}
