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
    let accepted = path.last_accepted.map(|last| {
        format!(
            "last message accepted {}, {} in the last hour",
            ago(last),
            count(path.accepted.hour)
        )
    });
    let under_tls = path.last_under_tls.map(|last| {
        let sessions = counted(path.under_tls.hour, "session");
        format!("{sessions} under TLS in the last hour, the last {}", ago(last))
    });
    let state = match (accepted, under_tls, path.last_connection) {
        (Some(accepted), Some(_), _) => {
            let sessions = counted(path.under_tls.hour, "session");
            format!("{accepted}, and {sessions} under TLS")
        }
        (Some(state), None, _) | (None, Some(state), _) => state,
        (None, None, Some(last)) => format!("no message accepted, last connection {}", ago(last)),
        (None, None, None) => "no connection yet".to_owned(),
    };
    let sentence = format!("{} receive path: {state}", family_name(family));
    let arrives = |path: &ReceivePathEvidence| path.last_accepted.or(path.last_under_tls).is_some();
    let doubtful = !arrives(path) && arrives(other);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::AcceptedCounts;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn mail_under_tls_arrives_uncounted() {
        let hour = |hour| AcceptedCounts { hour, ..AcceptedCounts::default() };
        let nothing = ReceivePathEvidence { last_connection: Some(at(90)), ..Default::default() };
        let under_tls =
            ReceivePathEvidence { under_tls: hour(34), last_under_tls: Some(at(80)), ..nothing };
        let both =
            ReceivePathEvidence { accepted: hour(2), last_accepted: Some(at(70)), ..under_tls };
        for (path, other, sentence, doubtful) in [
            (nothing, nothing, "no message accepted, last connection 10 s ago", false),
            (nothing, under_tls, "no message accepted, last connection 10 s ago", true),
            (under_tls, both, "34 sessions under TLS in the last hour, the last 20 s ago", false),
            (
                both,
                nothing,
                "last message accepted 30 s ago, 2 in the last hour, and 34 sessions under TLS",
                false,
            ),
        ] {
            let line = receive_path(Family::Ipv6, &path, &other, at(100));
            assert_eq!(line.sentence, format!("IPv6 receive path: {sentence}"));
            assert_eq!(line.doubtful, doubtful, "{sentence}");
        }
    }
}
