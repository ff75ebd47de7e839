//! Compares the output of two watchers of the same traffic, field by field.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde_json::Value;

use crate::support::watcher::WatchOutput;

/// Seconds by which two timestamps of one packet may differ. Both sources take the time in softirq context, some
/// microseconds apart; a kernel thread that waits for a processor in between waits a few scheduler ticks of at most 10 ms. A
/// packet mistaken for another is off by the 200 ms of a retransmission (RFC 6298) or shows in the counts.
const TOLERANCE: f64 = 0.050;

/// The names of the interfaces, the order of the sessions, and a value that only one of the sources has.
const EXEMPT: [&str; 3] = ["file", "number", "tcp.rtt_s"];

/// Every difference, one line each.
pub(crate) fn differences(left: &WatchOutput, right: &WatchOutput) -> Vec<String> {
    let mut found = Vec::new();
    let (lefts, rights) = (by_ends(left), by_ends(right));
    for (ends, sessions) in &lefts {
        let others = rights.get(ends).map_or(&[][..], Vec::as_slice);
        if sessions.len() != others.len() {
            found.push(format!("{ends}: {} sessions and {}", sessions.len(), others.len()));
        }
        for (session, other) in sessions.iter().zip(others) {
            compare(session, other, "", &mut |line| found.push(format!("{ends}: {line}")));
        }
    }
    for (ends, sessions) in rights.iter().filter(|(ends, _)| !lefts.contains_key(*ends)) {
        found.push(format!("{ends}: 0 sessions and {}", sessions.len()));
    }
    let (lefts, rights) = (fall_backs(left), fall_backs(right));
    for (ends, fall_back) in &lefts {
        match rights.get(ends) {
            Some(other) => {
                compare(fall_back, other, "", &mut |line| found.push(format!("{ends}: {line}")));
            }
            None => found.push(format!("{ends}: in the first output only")),
        }
    }
    let others = rights.keys().filter(|ends| !lefts.contains_key(*ends));
    found.extend(others.map(|ends| format!("{ends}: in the second output only")));
    found
}

/// Sessions by client and server, those of the same ends in order of their start.
fn by_ends(output: &WatchOutput) -> BTreeMap<String, Vec<&Value>> {
    let mut sessions = output.sessions();
    sessions.sort_by(|a, b| a["start"].as_str().cmp(&b["start"].as_str()));
    let mut by_ends = BTreeMap::<String, Vec<&Value>>::new();
    for session in sessions {
        by_ends.entry(ends(session)).or_default().push(session);
    }
    by_ends
}

fn ends(session: &Value) -> String {
    let end = |side: &str| {
        let end = &session[side];
        format!("[{}]:{}", end["address"].as_str().unwrap_or("?"), end["port"])
    };
    format!("{} to {}", end("client"), end("server"))
}

/// Fall-backs by the ends of their two sessions.
fn fall_backs(output: &WatchOutput) -> BTreeMap<String, Value> {
    let by_number: BTreeMap<u64, String> = output
        .sessions()
        .iter()
        .filter_map(|session| Some((session["number"].as_u64()?, ends(session))))
        .collect();
    let name = |number: &Value| {
        let name = number.as_u64().and_then(|number| by_number.get(&number));
        name.cloned().unwrap_or_else(|| format!("unknown session {number}"))
    };
    let mut fall_backs = BTreeMap::new();
    for line in output.of_type("fallback") {
        let mut line = line.clone();
        let ends = format!("fall-back of {}, then {}", name(&line["from"]), name(&line["to"]));
        for number in ["from", "to"] {
            line[number].take();
        }
        fall_backs.insert(ends, line);
    }
    fall_backs
}

fn compare(left: &Value, right: &Value, path: &str, report: &mut dyn FnMut(String)) {
    if EXEMPT.contains(&path) {
        return;
    }
    match (left, right) {
        (Value::Object(lefts), Value::Object(rights)) => {
            for (name, value) in lefts {
                let path = join(path, name);
                match rights.get(name) {
                    Some(other) => compare(value, other, &path, report),
                    None => report(format!("{path}: in the first output only")),
                }
            }
            for name in rights.keys().filter(|name| !lefts.contains_key(*name)) {
                report(format!("{}: in the second output only", join(path, name)));
            }
        }
        (Value::Array(lefts), Value::Array(rights)) if lefts.len() == rights.len() => {
            for (index, (value, other)) in lefts.iter().zip(rights).enumerate() {
                compare(value, other, &join(path, &index.to_string()), report);
            }
        }
        _ if same_time(left, right, path) || left == right => {}
        _ => report(format!("{path}: {left} and {right}")),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Whether both are times, in seconds or as dates, within the tolerance.
fn same_time(left: &Value, right: &Value, path: &str) -> bool {
    let seconds = |value: &Value| {
        if path.ends_with("_s") {
            return value.as_f64();
        }
        let date = humantime::parse_rfc3339(value.as_str()?).ok()?;
        Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
    };
    let (Some(left), Some(right)) = (seconds(left), seconds(right)) else { return false };
    (left - right).abs() <= TOLERANCE
}
