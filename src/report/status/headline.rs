//! The headline: the most serious problem in one sentence, or that there is none.

use super::hour::SessionCounts;
use super::masking::sentence;
use super::session::Tone;
use super::{LiveState, Snapshot, UpstreamRow};
use crate::addr::Family;
use crate::canary::Comparison;
use crate::humanize::{counted, duration, family};
use crate::policy::door::{DoorReport, DoorState, DoorStatus, OperatorMode};
use crate::report::canary::detail as canary_detail;
use crate::report::door::NOT_ENFORCED;

/// Minutes in which the share of failed sessions is measured.
const MINUTES: usize = 10;
/// Fewer failed sessions are not a problem.
const MIN_FAILED: u32 = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Headline {
    pub(super) tone: Tone,
    pub(super) sentence: String,
    /// Further sentences, the most serious first.
    pub(super) also: Vec<String>,
}

impl Headline {
    pub(super) fn new(live: &LiveState, snapshot: &Snapshot) -> Self {
        let mut sentences: Vec<(Tone, String)> = upstreams(live).into_iter().collect();
        if !live.ready && sentences.is_empty() {
            sentences.push((Tone::Bad, format!("The gateway is {}.", live.readiness)));
        }
        for report in &live.doors {
            if let Some(status) = &report.status {
                sentences.extend(door(report, status));
            }
        }
        for report in &live.doors {
            if let Some(silence) = &report.silence {
                let text = sentence(&silence.text(report.family, live.at));
                sentences.push((Tone::Fair, format!("{}.", capitalized(&text))));
            }
        }
        for status in live.canaries.iter().flatten() {
            let tone = match status.comparison {
                Comparison::Ipv6Worse => Tone::Bad,
                Comparison::Ipv4Worse => Tone::Fair,
                Comparison::Equal | Comparison::Unknown => continue,
            };
            let text = sentence(&canary_detail(status));
            sentences.push((tone, format!("Canaries, {}: {text}.", status.direction)));
        }
        // One vantage probes both families.
        let vantage = live.doors.iter().find_map(|report| report.vantage.as_ref());
        if let Some(problem) = vantage.and_then(|vantage| vantage.problem(live.at)) {
            sentences.push((Tone::Fair, format!("{}.", capitalized(&sentence(&problem)))));
        }
        for of in Family::ALL.into_iter().rev() {
            sentences.extend(failures(of, snapshot));
        }
        if let Some(warning) = &live.warning {
            sentences.push((Tone::Fair, format!("{}.", sentence(warning))));
        }
        // The sort is stable: equal tones keep their order.
        sentences.sort_by_key(|(tone, _)| std::cmp::Reverse(*tone));
        let tone = sentences.first().map_or(Tone::Good, |(tone, _)| *tone);
        let mut sentences = sentences.into_iter().map(|(_, sentence)| sentence);
        let sentence = match tone {
            Tone::Plain | Tone::Good => no_problems(live, snapshot),
            Tone::Fair | Tone::Bad => sentences.next().unwrap_or_default(),
        };
        Self { tone, sentence, also: sentences.collect() }
    }
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn no_problems(live: &LiveState, snapshot: &Snapshot) -> String {
    let sessions: u32 = snapshot.families.iter().map(|of| of.hour.all.sessions()).sum();
    let untried = live.upstreams.iter().all(|upstream| upstream.up.is_none());
    match sessions {
        0 if untried && !live.upstreams.is_empty() => {
            "No problems: the gateway is ready, no session yet.".to_owned()
        }
        0 => "No problems, no sessions in the last hour.".to_owned(),
        _ => {
            let all = |count: fn(&SessionCounts) -> u32| -> u64 {
                snapshot.families.iter().map(|of| u64::from(count(&of.hour.all))).sum()
            };
            let messages = counted(all(|of| of.messages_accepted), "message");
            let under_tls = counted(all(|of| of.under_tls), "session");
            let mail = match (all(|of| of.messages_accepted), all(|of| of.under_tls)) {
                (_, 0) => format!("{messages} accepted"),
                (0, _) => format!("{under_tls} under TLS"),
                _ => format!("{messages} accepted and {under_tls} under TLS"),
            };
            format!("No problems: {mail} in the last hour.")
        }
    }
}

fn upstreams(live: &LiveState) -> Option<(Tone, String)> {
    let down = live.upstreams.iter().filter(|one| one.up == Some(false));
    let down: Vec<&UpstreamRow> = down.collect();
    let first = down.iter().max_by_key(|one| one.unchanged_for)?;
    let (all, count) = (live.upstreams.len(), down.len());
    let time = duration(first.unchanged_for);
    let error = first.last_error.map_or_else(String::new, |(error, _)| format!(": {error}"));
    Some(if count == all {
        let subject = match all {
            1 => "The upstream has".to_owned(),
            _ => format!("All {all} upstreams have"),
        };
        (Tone::Bad, format!("{subject} been down for {time}{error}. No mail is accepted."))
    } else {
        let (verb, name) = (if count == 1 { "is" } else { "are" }, &first.name);
        let sentence = format!(
            "{count} of {all} upstreams {verb} down, {name} for {time}{error}. The others accept mail."
        );
        (Tone::Fair, sentence)
    })
}

fn door(report: &DoorReport, status: &DoorStatus) -> Option<(Tone, String)> {
    let name = family(report.family);
    let (time, detail) = (duration(status.at.since(status.since)), sentence(&status.detail));
    let manual = status.mode != OperatorMode::Auto;
    Some(match status.state {
        DoorState::Closed if !report.enforced => {
            (Tone::Bad, format!("The {name} door is closed, but not enforced: {NOT_ENFORCED}."))
        }
        DoorState::Closed => {
            (Tone::Bad, format!("The {name} door has been closed for {time}: {detail}."))
        }
        DoorState::Closing => (Tone::Fair, format!("The {name} door is about to close: {detail}.")),
        DoorState::Open if manual => {
            (Tone::Good, format!("The {name} door has been held open manually for {time}."))
        }
        DoorState::Opening => {
            (Tone::Good, format!("The {name} door has been open on trial for {time}: {detail}."))
        }
        DoorState::Open => return None,
    })
}

/// More sessions of a family failed than succeeded.
fn failures(of: Family, snapshot: &Snapshot) -> Option<(Tone, String)> {
    let families = [of, of.other()];
    let [here, there] = families.map(|of| snapshot.families[of as usize].hour.latest(MINUTES));
    if here.failed < MIN_FAILED || here.failed <= here.succeeded {
        return None;
    }
    let only_here = there.failed <= there.succeeded;
    let also = match only_here {
        true => String::new(),
        false => format!("; most {} sessions fail too", family(of.other())),
    };
    let sessions = counted(here.sessions().into(), &format!("{} session", family(of)));
    let failed = here.failed;
    let sentence = format!("{failed} of {sessions} in the last {MINUTES} min failed{also}.");
    Some((if only_here { Tone::Bad } else { Tone::Fair }, sentence))
}
