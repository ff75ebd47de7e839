//! The recorded cases of `captures/`: each is complete and shows what it claims, and gatepost says of it what is expected.
//! `make captures` records them again (`captures/record/`).

mod cases;
mod expectation;
mod record;
mod recorder;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cases::{CAPTURES, CASES, Case};
use expectation::values;
use serde_json::Value;

/// Octets of a recording: they are read by people, and stay in the repository's history for ever.
const MAX_RECORDING: u64 = 60_000;

const SECTIONS: [&str; 3] = ["## Purpose", "## How it was made", "## What to see"];

#[test]
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

#[test]
fn every_case_is_described() {
    for Case { name, .. } in CASES {
        let readme = fs::read_to_string(Path::new(CAPTURES).join(name).join("README.md")).unwrap();
        let sections: Vec<&str> = readme.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(sections, SECTIONS, "{name}");
    }
}

#[test]
fn every_recording_is_small_and_shows_what_it_claims() {
    for case in CASES {
        let recording = case.folder().join("input.pcap");
        let size = fs::metadata(&recording).unwrap().len();
        assert!(size <= MAX_RECORDING, "{}: {size} octets", case.name);
        assert_eq!(case.failed_claims(&recording), [""; 0], "{}", case.name);
    }
}

#[test]
fn every_case_replays_as_expected() {
    let differences = CASES.iter().flat_map(|case| {
        let told = expectation::differences(&case.folder());
        told.into_iter().map(|line| format!("{}: {line}", case.name))
    });
    let differences: Vec<String> = differences.collect();
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

/// After a change of what replay tells; look at the difference before it is committed.
#[test]
#[ignore = "writes expect.json of every case"]
fn expectations_are_written() {
    for case in CASES {
        expectation::write(&case.folder());
    }
}

/// What the gateway decided while a case was recorded stands in `live.json`, its own log; offline it comes to the same.
#[test]
fn verdicts_replay_as_they_were_given_live() {
    let mut compared = 0;
    for case in CASES {
        let Ok(live) = fs::read_to_string(case.folder().join("live.json")) else { continue };
        let replayed = values(&expectation::replay(&case.folder()));
        for live in values(&live) {
            let offline = replayed.iter().find(|session| session["client"] == live["client"]);
            let verdict = offline.map_or(&Value::Null, |session| &session["verdict"]);
            assert_eq!(verdict, &live["verdict"], "{}: {}", case.name, live["client"]);
            compared += 1;
        }
    }
    assert!(compared > 0, "no case has a live.json");
}
