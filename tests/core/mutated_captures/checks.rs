//! The two checks over a set of recordings: the parsers read every mutant to its end within their memory limits, and so does
//! `gatepost replay`. The mutants come from a fixed sequence of random numbers.
//!
//! `fuzz/bodies/capture.rs` checks the properties of one file.

#[path = "../../fuzz/bodies/capture.rs"]
mod capture;
#[path = "mutation.rs"]
mod mutation;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;

use capture::{Contents, LITTLE};
use gatepost::stream::FlowLimits;
use mutation::{Chance, Recording};

/// The most octets of mutants of each recording, in whole files, and the most files.
const OCTETS: usize = 2_000_000;
const MUTANTS: u64 = 400;

/// Writes a mutant that failed, or that a program reads, to a file.
fn kept(name: &str, octets: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mutated-{name}"));
    fs::write(&path, octets).unwrap();
    path
}

/// Reads `octets` with `limits`; names the mutant in case of a panic.
fn read(recording: &Recording, number: u64, octets: &[u8], limits: FlowLimits) -> Contents {
    catch_unwind(AssertUnwindSafe(|| capture::read(octets, limits))).unwrap_or_else(|_| {
        let path = kept("capture.pcap", octets);
        panic!("mutant {number} of {}, kept in {}", recording.path.display(), path.display())
    })
}

pub(crate) fn are_read_to_their_end(recordings: &[PathBuf]) {
    let (mut files, mut damaged, mut all) = (0, 0, Contents::default());
    for path in recordings {
        let recording = Recording::open(path.clone());
        let whole = capture::read(&recording.octets, FlowLimits::default());
        let (mut octets, mut chance) = (0, Chance::new(1));
        for number in 0..MUTANTS {
            let mutant = recording.mutant(number, &mut chance);
            octets += mutant.len();
            if number > 8 && octets > OCTETS {
                break;
            }
            let limits = if number.is_multiple_of(3) { FlowLimits::default() } else { LITTLE };
            let contents = read(&recording, number, &mutant, limits);
            files += 1;
            let counts = |of: &Contents| (of.packets, of.sessions, of.commands, of.errors);
            damaged += u64::from(counts(&contents) != counts(&whole));
            if limits == LITTLE {
                (all.held, all.flows) =
                    (all.held.max(contents.held), all.flows.max(contents.flows));
            }
            all.packets += contents.packets;
            all.sessions += contents.sessions;
            all.commands += contents.commands;
            all.errors += contents.errors;
        }
    }
    println!("{files} mutants, {damaged} of them with other counts than the recording; {all:?}");
    // Many mutants are damaged, but not so much that nothing is left to read.
    assert!(damaged > files / 2);
    assert!(all.packets > 10 * files && all.sessions > files / 2 && all.commands > files);
    assert!((1..files / 2).contains(&all.errors));
    // The limits were reached.
    assert!(all.held > LITTLE.held * 9 / 10 && all.flows == LITTLE.flows);
}

/// The program itself: pairs, facts and metrics too.
pub(crate) fn replay_survives(recordings: &[PathBuf]) {
    for path in recordings {
        let recording = Recording::open(path.clone());
        let (mut octets, mut chance) = (0, Chance::new(2));
        let mut files = Vec::new();
        for number in 0..MUTANTS / 20 {
            let mutant = recording.mutant(number, &mut chance);
            octets += mutant.len();
            if files.is_empty() || octets < OCTETS {
                files.push(kept(&format!("capture-{number}.pcap"), &mutant));
            }
        }
        for format in ["text", "json"] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_gatepost"));
            let metrics = kept("captures.prom", b"");
            command.args(["replay", "--format", format, "--metrics-out"]).arg(&metrics);
            let output = command.args(&files).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            let name = recording.path.display();
            assert!(matches!(output.status.code(), Some(0 | 1)), "{name}: {stderr}");
            assert!(!stderr.contains("panicked"), "{name}: {stderr}");
            assert!(fs::read_to_string(metrics).unwrap().contains("# TYPE"), "{name}");
        }
    }
}
