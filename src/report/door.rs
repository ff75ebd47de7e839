//! The output of `gatepost door`: the state of each door, since when, why, and the next change.

use std::fmt::Write as _;

use super::columns::{WIDTH, wrapped};
use super::escape::{EscapeContext, fitted};
use crate::humanize::{ago, count, counted, date_time, duration, family};
use crate::policy::door::{
    DoorReport, DoorStatus, OperatorMode, PathProof, ProofSource, VantageStatus,
};
use crate::time::Timestamp;

/// Columns before the sentences.
const INDENT: usize = 10;
/// Columns of the detail, which may quote a prober's message.
const DETAIL: usize = 240;

/// Why a closed door refuses nothing.
pub(super) const NOT_ENFORCED: &str = "mail is not intercepted and goes to the servers directly";

/// Lines of at most 100 columns, each with its line end.
pub fn doors(doors: &[DoorReport]) -> String {
    let mut text = String::new();
    // All are of one moment.
    let now = doors.iter().find_map(|door| door.status.as_ref()).map(|status| status.at);
    for door in doors {
        let name = family(door.family);
        match &door.status {
            Some(status) => guarded(&mut text, name, status, door),
            None => {
                let sentence =
                    format!("always open: the configuration has no [door.{}]", door.family);
                line(&mut text, name, &sentence);
            }
        }
        if let (Some(silence), Some(at)) = (&door.silence, now) {
            line(&mut text, "  sign", &silence.text(door.family, at));
        }
        if let Some(filtered) = &door.filtered {
            line(&mut text, "  sign", &fitted(filtered, EscapeContext::Sentence, DETAIL));
        }
    }
    let vantage = doors.iter().find_map(|door| door.vantage.as_ref());
    if let (Some(vantage), Some(at)) = (vantage, now) {
        let sentence = vantage_sentence(vantage, at);
        line(&mut text, "vantage", &fitted(&sentence, EscapeContext::Sentence, DETAIL));
    }
    text
}

/// State of the vantage.
pub(super) fn vantage_sentence(vantage: &VantageStatus, now: Timestamp) -> String {
    match (vantage.up, vantage.last_answer) {
        (None, _) => "no result yet".to_owned(),
        (Some(true), Some(at)) => format!("up, answered {}", ago(now.since(at))),
        (Some(true), None) => "up".to_owned(),
        (Some(false), last) => {
            let time = duration(now.since(vantage.since));
            let error = vantage.error.as_deref().unwrap_or("no answer");
            let last = match last {
                Some(at) => format!("last answer {}", ago(now.since(at))),
                None => "no answer since the start".to_owned(),
            };
            format!("DOWN for {time}, which proves nothing about mail: {error}; {last}")
        }
    }
}

fn guarded(text: &mut String, name: &str, status: &DoorStatus, door: &DoorReport) {
    let effect = if status.admits { "accepts new sessions" } else { "refuses new sessions" };
    let mode = match status.mode {
        OperatorMode::Auto => "",
        OperatorMode::Open | OperatorMode::Close => ", manual",
    };
    let state = status.state.as_str().to_uppercase();
    let since = since(status.since, status.at);
    let sentence = match door.enforced {
        true => format!("{state}{mode}: {effect}, since {since}"),
        false => format!("{state}{mode}, not enforced: {NOT_ENFORCED}; since {since}"),
    };
    line(text, name, &sentence);
    line(text, "  why", &fitted(&status.detail, EscapeContext::Sentence, DETAIL));
    line(text, "  proof", &proof(status.proof, status.at));
    let not_before = status.next_at.filter(|at| *at > status.at);
    let not_before =
        not_before.map_or_else(String::new, |at| format!(", not before {} UTC", date_time(at)));
    line(text, "  next", &format!("{}{not_before}", status.next));
    let method = if door.refuses == "syn" { "at the SYN" } else { "with 421" };
    line(text, "  refused", &format!("{} since the start, {method}", count(door.refused)));
}

fn proof(proof: Option<PathProof>, now: Timestamp) -> String {
    match proof {
        None => {
            "none since the start: no message, session under TLS or probe has arrived".to_owned()
        }
        Some(proof) => {
            let (event, at) = (proof_event(proof), proof.at);
            format!("{event} at {} UTC ({})", date_time(at), ago(now.since(at)))
        }
    }
}

/// The latest proof, without its time.
pub(super) fn proof_event(proof: PathProof) -> String {
    match proof.by {
        ProofSource::Message => "message accepted".to_owned(),
        ProofSource::Received => "message received in full under TLS".to_owned(),
        ProofSource::Envelope => "session under TLS with accepted recipients completed".to_owned(),
        ProofSource::Session if proof.under_tls > 1 => {
            format!("{} under TLS, the last completed", counted(proof.under_tls, "session"))
        }
        ProofSource::Session => "session under TLS completed".to_owned(),
        ProofSource::Probe => "vantage probe arrived".to_owned(),
    }
}

/// `2026-11-23 02:31:07 UTC (17 min)`
fn since(at: Timestamp, now: Timestamp) -> String {
    format!("{} UTC ({})", date_time(at), duration(now.since(at)))
}

/// A label in the first columns, and a wrapped sentence.
fn line(text: &mut String, label: &str, sentence: &str) {
    let mut label = label;
    for line in wrapped(sentence, WIDTH - INDENT) {
        let _ = writeln!(text, "{label:<INDENT$}{line}");
        label = "";
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::addr::Family;
    use crate::policy::door::{Door, DoorSettings, ProbeResults, Signals, SilenceSign};

    fn report(door: &Door, at: Timestamp, refused: u64) -> DoorReport {
        let refuses = "syn".to_owned();
        DoorReport {
            family: door.family(),
            status: Some(door.status(at)),
            refuses,
            refused,
            vantage: None,
            silence: None,
            filtered: None,
            enforced: true,
        }
    }

    #[test]
    fn doors_as_text() {
        let start = Timestamp::from_nanos(1_767_323_045_000_000_000);
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut door = Door::new(Family::Ipv6, DoorSettings::default(), start);
        let mut text = doors(&[report(&door, start, 0)]);
        let mail = Signals { accepted: Some(at(5)), ..Signals::default() };
        for minute in [5, 45] {
            door.update(&mail, at(minute));
        }
        text += &doors(&[report(&door, at(45), 0)]);
        let probes = ProbeResults {
            last: at(60),
            reached: false,
            in_a_row: 5,
            last_reached: Some(at(30)),
            last_large: None,
            detail: Some(format!("mx.example.org 2001:db8::25 no_response {}", "x".repeat(80))),
        };
        let signs = Signals { probes: Some(probes), has_vantage: true, ..mail };
        for minute in 60..62 {
            door.update(&signs, at(minute));
        }
        let mut vantage = VantageStatus::new(start);
        vantage.on_result(Ok(()), at(60));
        vantage.on_result(Err("the vantage at [2001:db8::9]:9626 did not answer in time"), at(61));
        let silence = SilenceSign { since: at(50), other_sessions: 45, expected: 18.7 };
        let closed = DoorReport {
            vantage: Some(vantage),
            silence: Some(silence),
            filtered: None,
            ..report(&door, at(62), 1_204)
        };
        let open = DoorReport {
            family: Family::Ipv4,
            status: None,
            refuses: String::new(),
            refused: 0,
            vantage: None,
            silence: None,
            filtered: None,
            enforced: true,
        };
        let unenforced = DoorReport { enforced: false, ..report(&door, at(62), 1_204) };
        text += &doors(&[closed, open]);
        text += &doors(&[unenforced]);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        insta::assert_snapshot!(text);
    }
}
