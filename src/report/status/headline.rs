//! One sentence that says what is wrong, or that all is well.

use super::masking::sentence;
use super::session::Tone;
use super::text::{attempt, lasting};
use super::{LiveState, Snapshot, UpstreamRow};
use crate::addr::Family;
use crate::policy::door::{DoorReport, DoorState, DoorStatus, OperatorMode};
use crate::report::replay::words::{family, several};

/// Minutes over which sessions are judged.
const LATELY: usize = 10;
/// Fewer sessions than that tell nothing.
const FEW: u32 = 5;

/// What is to be said first, and the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Headline {
    pub(super) tone: Tone,
    pub(super) sentence: String,
    pub(super) also: Vec<String>,
}

impl Headline {
    pub(super) fn of(now: &LiveState, seen: &Snapshot) -> Self {
        let mut said = Vec::new();
        upstreams(now, &mut said);
        if !now.ready && said.is_empty() {
            said.push((Tone::Bad, format!("The gateway is {}.", now.readiness)));
        }
        for told in &now.doors {
            if let Some(status) = &told.status {
                said.extend(door(told, status));
            }
        }
        for of in Family::ALL.into_iter().rev() {
            said.extend(failing(of, seen));
        }
        // Stable: of what is equally bad, what came first.
        said.sort_by_key(|(tone, _)| std::cmp::Reverse(*tone));
        let tone = said.first().map_or(Tone::Good, |(tone, _)| *tone);
        let mut sentences = said.into_iter().map(|(_, sentence)| sentence);
        match tone {
            Tone::Plain | Tone::Good => {
                Self { tone, sentence: all_is_well(now, seen), also: sentences.collect() }
            }
            Tone::Fair | Tone::Bad => {
                let sentence = sentences.next().unwrap_or_default();
                Self { tone, sentence, also: sentences.collect() }
            }
        }
    }
}

fn all_is_well(now: &LiveState, seen: &Snapshot) -> String {
    let sessions: u32 = seen.families.iter().map(|of| of.past.all.sessions()).sum();
    let shut = now.upstreams.iter().all(|upstream| upstream.up.is_none());
    match sessions {
        0 if shut && !now.upstreams.is_empty() => {
            "All is well so far: the gateway is ready, and nobody has come yet.".to_owned()
        }
        0 => "All is well, and quiet: nobody came in the last hour.".to_owned(),
        _ => {
            let taken: u32 = seen.families.iter().map(|of| of.past.all.messages_taken).sum();
            let messages = several(taken.into(), "message");
            format!("All is well: {messages} accepted in the last hour.")
        }
    }
}

fn upstreams(now: &LiveState, said: &mut Vec<(Tone, String)>) {
    let down: Vec<&UpstreamRow> =
        now.upstreams.iter().filter(|one| one.up == Some(false)).collect();
    let Some(first) = down.iter().max_by_key(|one| one.lasts) else { return };
    let (all, count) = (now.upstreams.len(), down.len());
    let since = lasting(first.lasts);
    let why = first.failed.map_or_else(String::new, |(what, _)| format!(": {}", attempt(what)));
    said.push(if count == all {
        let who =
            if all == 1 { "The upstream".to_owned() } else { format!("None of {all} upstreams") };
        let does = if all == 1 { "has not answered" } else { "has answered" };
        (Tone::Bad, format!("{who} {does} for {since}{why}. No mail gets through."))
    } else {
        let address = first.address;
        let which =
            format!("{count} of {all} upstreams {}", if count == 1 { "does" } else { "do" });
        (
            Tone::Fair,
            format!("{which} not answer, {address} for {since}{why}. The others take the mail."),
        )
    });
}

fn door(told: &DoorReport, status: &DoorStatus) -> Option<(Tone, String)> {
    let name = family(told.family);
    let (since, detail) = (lasting(status.at.since(status.since)), sentence(&status.detail));
    let by_hand = status.mode != OperatorMode::Auto;
    Some(match status.state {
        DoorState::Closed => (Tone::Bad, format!("{name} has been closed for {since}: {detail}.")),
        DoorState::Closing => (Tone::Fair, format!("{name} is about to close: {detail}.")),
        DoorState::Open if by_hand => {
            (Tone::Good, format!("{name} is held open by hand, for {since}."))
        }
        DoorState::Opening => {
            (Tone::Good, format!("{name} is open on trial, for {since}: {detail}."))
        }
        DoorState::Open => return None,
    })
}

/// Most sessions of a family fail, while they do not in the other.
fn failing(of: Family, seen: &Snapshot) -> Option<(Tone, String)> {
    let [here, there] = [of, of.other()].map(|of| seen.families[of as usize].past.latest(LATELY));
    let fails = here.failed >= FEW && here.failed > here.well;
    let only_here = there.failed <= there.well;
    let also = if only_here { "" } else { ", and so do those of the other family" };
    fails.then(|| {
        let (failed, all) =
            (here.failed, several(here.sessions().into(), &format!("{} session", family(of))));
        let sentence = format!("{failed} of {all} in the last {LATELY} min failed{also}.");
        (if only_here { Tone::Bad } else { Tone::Fair }, sentence)
    })
}
