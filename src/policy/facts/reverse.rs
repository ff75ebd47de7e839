//! The client's reverse name, and its forward confirmation.
//!
//! RFC 1035 §3.5, RFC 3596 §2.5; confirmation is `iprev` in RFC 8601 §2.7.3. Addresses are compared exactly: another
//! address of the same /64 confirms nothing (rule 7 of ARCHITECTURE.md).

use std::net::IpAddr;
use std::ops::ControlFlow::{self, Break, Continue};

use super::address_search::find_address;
use super::{
    Answer, Answers, Detail, DnsRecord, DomainName, Evaluation, Fact, Lookup, Provenance, Reason,
};
use crate::addr::Family;

/// PTR names that are considered; the limit of RFC 7208 §4.6.4.
pub const MAX_NAMES: usize = 10;

/// The address of `client` has a PTR record.
pub fn reverse_name(client: IpAddr, known: &Answers) -> Evaluation {
    match names(client, known) {
        Continue((names, provenance)) => Evaluation::Known(Fact::holds(provenance, first(&names))),
        Break(evaluation) => evaluation,
    }
}

/// A PTR name of `client` resolves back to it (A for IPv4, AAAA for IPv6). It fails in three ways: no PTR record, no name
/// confirmed, or unknown. One confirmed name is enough, whatever the lookups of the others return.
pub fn fcrdns(client: IpAddr, known: &Answers) -> Evaluation {
    let client = client.to_canonical();
    let (names, provenance) = match names(client, known) {
        Continue(found) => found,
        Break(evaluation) => return evaluation,
    };
    // A hostile PTR may name the root, which has no addresses.
    let hosts = names.iter().copied().filter(|name| !name.is_root());
    let search = find_address(known, hosts, &[Family::of(client)], |address| address == client);
    search.into_evaluation(
        provenance,
        |name, _| Detail::Name(name.clone()),
        |_| (Reason::NotConfirmed, first(&names)),
    )
}

/// The PTR names, sorted, each once, at most [`MAX_NAMES`]; or the result without them.
fn names(
    client: IpAddr,
    known: &Answers,
) -> ControlFlow<Evaluation, (Vec<&DomainName>, Provenance)> {
    let lookup = Lookup::Reverse(client.to_canonical());
    let Some(result) = known.get(&lookup) else {
        return Break(Evaluation::NeedsLookups(vec![lookup]));
    };
    let provenance = Provenance::of(result);
    let unknown = |reason| Break(Evaluation::Known(Fact::unknown(reason, provenance)));
    let mut names: Vec<_> = match &result.answer {
        Answer::Records(records) => records.iter().filter_map(DnsRecord::name).collect(),
        Answer::NoData | Answer::NxDomain => Vec::new(),
        Answer::Unknown(reason) => return unknown(*reason),
        // Not an answer to a DNS query.
        Answer::Yes(_) | Answer::No(..) => return unknown(Reason::NoResolver),
    };
    if names.is_empty() {
        return Break(Evaluation::Known(Fact::fails(Reason::NoPtr, provenance, None)));
    }
    // DNS servers rotate records: sorted, the same records give the same fact.
    names.sort();
    names.dedup();
    names.truncate(MAX_NAMES);
    Continue((names, provenance))
}

fn first(names: &[&DomainName]) -> Option<Detail> {
    names.first().map(|&name| Detail::Name(name.clone()))
}
