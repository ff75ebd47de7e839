//! The two checks over a set of recordings: every mutant, made by a fixed sequence of random numbers, is read to its end, by
//! the parsers within the memory that they are granted and by `gatepost replay`.
//!
//! `fuzz/bodies/capture.rs` has the properties of one file.

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

/// Octets of mutants that are read of each recording, in whole files, and how many files at most.
const OCTETS: usize = 2_000_000;
const MUTANTS: u64 = 400;

/// Where a mutant is kept that shows a mistake, or that a program is to read.
fn kept(name: &str, octets: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mutated-{name}"));
    fs::write(&path, octets).unwrap();
    path
}

/// Reads `octets` with `limits`; says which mutant it was if that ends in a panic.
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
            let told = |of: &Contents| (of.packets, of.sessions, of.commands, of.errors);
            damaged += u64::from(told(&contents) != told(&whole));
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
    println!("{files} mutants, {damaged} of them told otherwise than the recording; {all:?}");
    // They are damaged, and not so much that nothing is left to be read.
    assert!(damaged > files / 2);
    assert!(all.packets > 10 * files && all.sessions > files / 2 && all.commands > files);
    assert!((1..files / 2).contains(&all.errors));
    // The bounds were met.
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
            let said = String::from_utf8_lossy(&output.stderr);
            let name = recording.path.display();
            assert!(matches!(output.status.code(), Some(0 | 1)), "{name}: {said}");
            assert!(!said.contains("panicked"), "{name}: {said}");
            assert!(fs::read_to_string(metrics).unwrap().contains("# TYPE"), "{name}");
        }
    }
}
