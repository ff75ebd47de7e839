//! The doors for a person at 3 a.m.: what they do, since when, why, and what would change it.

use std::fmt::Write as _;
use std::time::Duration;

use super::columns::WIDTH;
use super::escape::{Place, fitted};
use crate::addr::Family;
use crate::policy::door::{DoorReport, DoorStatus, OperatorMode, PathProof, ProofSource};
use crate::time::Timestamp;

/// Where sentences begin.
const INDENT: usize = 10;
/// Columns that the words of others may take: what a prober said.
const DETAIL: usize = 240;

/// Lines of at most a hundred columns, with a newline after each.
pub fn doors(told: &[DoorReport]) -> String {
    let mut text = String::new();
    for door in told {
        let name = match door.family {
            Family::Ipv4 => "IPv4",
            Family::Ipv6 => "IPv6",
        };
        match &door.status {
            Some(status) => one(&mut text, name, status, door),
            None => {
                let guards = format!("[door.{}] in the configuration would guard it", door.family);
                line(&mut text, name, &format!("always open: {guards}"));
            }
        }
    }
    text
}

fn one(text: &mut String, name: &str, status: &DoorStatus, door: &DoorReport) {
    let lets_in = if status.admits { "lets new sessions in" } else { "refuses new sessions" };
    let mode = match status.mode {
        OperatorMode::Auto => "",
        OperatorMode::Open | OperatorMode::Close => ", by hand",
    };
    let state = status.state.as_str().to_uppercase();
    let since = since(status.since, status.at);
    line(text, name, &format!("{state}{mode}: {lets_in}, since {since}"));
    line(text, "why", &fitted(&status.detail, Place::Sentence, DETAIL));
    line(text, "proof", &proof(status.proof, status.at));
    let not_before = status.next_at.filter(|at| *at > status.at);
    let not_before =
        not_before.map_or_else(String::new, |at| format!(", not before {}", clock(at)));
    line(text, "next", &format!("{}{not_before}", status.next));
    let how = if door.refuses == "syn" { "at the SYN" } else { "with 421" };
    line(text, "refused", &format!("{} since the start, {how}", door.refused));
}

fn proof(proof: Option<PathProof>, now: Timestamp) -> String {
    match proof {
        None => "none since the start: no message came in, and no probe reached us".to_owned(),
        Some(PathProof { at, by }) => {
            let what = match by {
                ProofSource::Message => "a message was accepted",
                ProofSource::Probe => "a probe from elsewhere reached us",
            };
            format!("{what} at {}", since(at, now))
        }
    }
}

/// `2026-11-23 02:31:07 UTC (17min)`
fn since(at: Timestamp, now: Timestamp) -> String {
    let seconds = Duration::from_secs(now.since(at).as_secs());
    format!("{} ({})", clock(at), humantime::format_duration(seconds))
}

fn clock(at: Timestamp) -> String {
    let text = humantime::format_rfc3339_seconds(at.to_system_time()).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

/// A word in the first columns, and a sentence broken at spaces.
fn line(text: &mut String, first: &str, sentence: &str) {
    let mut column = WIDTH + 1;
    let mut begun = false;
    for word in sentence.split(' ') {
        let length = word.chars().count();
        if column + 1 + length > WIDTH {
            if begun {
                text.push('\n');
            }
            let head = if begun { "" } else { first };
            let indent =
                if first.starts_with("IPv") { head.to_owned() } else { format!("  {head}") };
            let _ = write!(text, "{indent:<INDENT$}{word}");
            (column, begun) = (INDENT + length, true);
        } else {
            let _ = write!(text, " {word}");
            column += 1 + length;
        }
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::door::{Door, DoorSettings, ProbeResults, Signals};

    fn told(door: &Door, at: Timestamp, refused: u64) -> DoorReport {
        let refuses = "syn".to_owned();
        DoorReport { family: door.family(), status: Some(door.status(at)), refuses, refused }
    }

    #[test]
    fn it_reads_like_this() {
        let start = Timestamp::from_nanos(1_767_323_045_000_000_000);
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut door = Door::new(Family::Ipv6, DoorSettings::default(), start);
        let mut text = doors(&[told(&door, start, 0)]);
        let mail = Signals { accepted: Some(at(5)), ..Signals::default() };
        for minute in [5, 45] {
            door.update(&mail, at(minute));
        }
        text += &doors(&[told(&door, at(45), 0)]);
        let probes = ProbeResults {
            last: at(60),
            reached: false,
            in_a_row: 5,
            last_reached: Some(at(30)),
            detail: Some(format!("mx.example.org 2001:db8::25 no_response {}", "x".repeat(80))),
        };
        let signs = Signals { probes: Some(probes), has_vantage: true, ..mail };
        for minute in 60..62 {
            door.update(&signs, at(minute));
        }
        let open =
            DoorReport { family: Family::Ipv4, status: None, refuses: String::new(), refused: 0 };
        text += &doors(&[told(&door, at(62), 1_204), open]);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        insta::assert_snapshot!(text);
    }
}
