//! Randomly damaged copies of the captures of other projects.

use crate::harness::tests;
use crate::support::shared;

#[path = "../core/mutated_captures/checks.rs"]
mod checks;

tests![mutants_are_read_to_their_end_within_bounds, replay_survives_mutants];

fn mutants_are_read_to_their_end_within_bounds() {
    checks::are_read_to_their_end(&shared::captures());
}

fn replay_survives_mutants() {
    checks::replay_survives(&shared::captures());
}
