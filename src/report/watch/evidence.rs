//! Evidence of the receive and return paths, in sentences.

use super::EvidenceLine;
use crate::addr::Family;
use crate::humanize::{ago, count, counted, family as family_name};
use crate::report::escape::{EscapeContext, fitted};
use crate::report::wording;
use crate::time::Timestamp;
use crate::traffic::{ConnectionResponse, Evidence, PerFamily, PerResponse, ReceivePathEvidence};

/// Columns of a destination's name.
const NAME: usize = 40;
/// Listed destinations.
const LISTED: usize = 3;

pub(super) fn evidence_lines(evidence: &Evidence<'_>) -> Vec<EvidenceLine> {
    let mut lines = Vec::new();
    for family in [Family::Ipv6, Family::Ipv4] {
        let other = evidence.receive.of(family.other());
        lines.push(receive_path(family, evidence.receive.of(family), other, evidence.at));
    }
    lines.extend(ipv6_only_failures(evidence));
    for family in [Family::Ipv6, Family::Ipv4] {
        lines.extend(return_path(family, evidence.return_path.of(family)));
    }
    lines
}

fn receive_path(
    family: Family,
    path: &ReceivePathEvidence,
    other: &ReceivePathEvidence,
    now: Timestamp,
) -> EvidenceLine {
    let ago = |at: Timestamp| ago(now.since(at));
    let state = match (path.last_accepted, path.last_connection) {
        (Some(last), _) => format!(
            "last message accepted {}, {} in the last hour",
            ago(last),
            count(path.accepted.hour)
        ),
        (None, Some(last)) => format!("no message accepted, last connection {}", ago(last)),
        (None, None) => "no connection yet".to_owned(),
    };
    let sentence = format!("{} receive path: {state}", family_name(family));
    let doubtful = path.last_accepted.is_none() && other.last_accepted.is_some();
    EvidenceLine { sentence, doubtful }
}

/// Destinations that fail over IPv6 and respond over IPv4.
fn ipv6_only_failures(evidence: &Evidence<'_>) -> Option<EvidenceLine> {
    let mut names = evidence
        .return_path
        .destinations
        .iter()
        .filter(|destination| {
            let PerFamily { ipv4, ipv6 } = destination.pair();
            ipv4 == Some(ConnectionResponse::Answered)
                && ipv6.is_some_and(|response| response != ConnectionResponse::Answered)
        })
        .map(|destination| fitted(&destination.server.to_string(), EscapeContext::Word, NAME));
    let listed: Vec<String> = names.by_ref().take(LISTED).collect();
    if listed.is_empty() {
        return None;
    }
    let more = match names.count() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let listed = listed.join(", ");
    let sentence =
        format!("IPv6 return path: failed over IPv6, responded over IPv4: {listed}{more}");
    Some(EvidenceLine { sentence, doubtful: true })
}

fn return_path(family: Family, responses: &PerResponse<u64>) -> Option<EvidenceLine> {
    let all: u64 = ConnectionResponse::ALL.into_iter().map(|response| responses.of(response)).sum();
    let counts = [
        ConnectionResponse::Answered,
        ConnectionResponse::NoResponse,
        ConnectionResponse::Refused,
        ConnectionResponse::Unreachable,
        ConnectionResponse::BlackHole,
    ];
    let counts = counts.map(|response| (*responses.of(response), wording::response(response)));
    let counts = counts.iter().filter(|(n, _)| *n > 0);
    let counts: Vec<String> = counts.map(|(n, text)| format!("{} {text}", count(*n))).collect();
    let (name, all_counted) = (family_name(family), counted(all, "destination"));
    let sentence = format!("{name} return path: {all_counted}: {}", counts.join(", "));
    (all > 0).then_some(EvidenceLine { sentence, doubtful: responses.answered == 0 })
}
