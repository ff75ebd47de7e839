//! What traffic proves of the ways that mail takes, in sentences.

use std::time::Duration;

use super::EvidenceLine;
use crate::addr::Family;
use crate::report::escape::{Place, fitted};
use crate::report::replay::words::{count, duration, family as name, several};
use crate::time::Timestamp;
use crate::traffic::{ConnectionResponse, Evidence, PerFamily, PerResponse, ReceivePathEvidence};

/// Columns of a destination's name.
const NAME: usize = 40;
/// Destinations that are named.
const NAMED: usize = 3;

pub(super) fn evidence_lines(evidence: &Evidence<'_>) -> Vec<EvidenceLine> {
    let mut proofs = Vec::new();
    for family in [Family::Ipv6, Family::Ipv4] {
        let other = match family {
            Family::Ipv4 => evidence.receive.ipv6,
            Family::Ipv6 => evidence.receive.ipv4,
        };
        proofs.push(receive(family, evidence.receive.of(family), &other, evidence.at));
    }
    proofs.extend(one_family_only(evidence));
    for family in [Family::Ipv6, Family::Ipv4] {
        proofs.extend(returned(family, evidence.return_path.of(family)));
    }
    proofs
}

fn receive(
    family: Family,
    path: &ReceivePathEvidence,
    other: &ReceivePathEvidence,
    now: Timestamp,
) -> EvidenceLine {
    let ago = |at: Timestamp| ago(now.since(at));
    let name = name(family);
    let sentence = match (path.last_accepted, path.last_connection) {
        (Some(last), _) => format!(
            "{name} receive path: last message accepted {}, {} in the last hour",
            ago(last),
            count(path.accepted.hour),
        ),
        (None, Some(last)) => {
            format!("{name} receive path: no message was accepted, last connection {}", ago(last))
        }
        (None, None) => {
            format!("{name} receive path: nothing came over it yet")
        }
    };
    let doubtful = path.last_accepted.is_none() && other.last_accepted.is_some();
    EvidenceLine { sentence, doubtful }
}

/// `12 s ago`, without fractions of a second.
fn ago(time: Duration) -> String {
    match time.as_secs() {
        0 => "just now".to_owned(),
        seconds @ 1..60 => format!("{seconds} s ago"),
        _ => format!("{} ago", duration(time)),
    }
}

/// Destinations that one family does not reach although the other does.
fn one_family_only(evidence: &Evidence<'_>) -> Option<EvidenceLine> {
    let mut names = evidence
        .return_path
        .destinations
        .iter()
        .filter(|destination| {
            let PerFamily { ipv4, ipv6 } = destination.pair();
            ipv4 == Some(ConnectionResponse::Answered)
                && ipv6.is_some_and(|response| response != ConnectionResponse::Answered)
        })
        .map(|destination| fitted(&destination.server.to_string(), Place::Word, NAME));
    let shown: Vec<String> = names.by_ref().take(NAMED).collect();
    if shown.is_empty() {
        return None;
    }
    let more = match names.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let sentence = format!(
        "IPv6 return path: failed over IPv6, answered over IPv4: {}{more}",
        shown.join(", ")
    );
    Some(EvidenceLine { sentence, doubtful: true })
}

fn returned(family: Family, responses: &PerResponse<u64>) -> Option<EvidenceLine> {
    let all: u64 = ConnectionResponse::ALL.into_iter().map(|response| responses.of(response)).sum();
    let mut parts = Vec::new();
    for (response, what) in [
        (ConnectionResponse::Answered, "answered"),
        (ConnectionResponse::NoResponse, "no response"),
        (ConnectionResponse::Refused, "refused"),
        (ConnectionResponse::Unreachable, "unreachable"),
        (ConnectionResponse::BlackHole, "black hole suspected"),
    ] {
        let n = *responses.of(response);
        if n > 0 {
            parts.push(format!("{} {what}", count(n)));
        }
    }
    let sentence = format!(
        "{} return path: {}: {}",
        name(family),
        several(all, "destination"),
        parts.join(", ")
    );
    (all > 0).then_some(EvidenceLine { sentence, doubtful: responses.answered == 0 })
}
