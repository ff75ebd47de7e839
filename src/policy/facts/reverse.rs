//! The client's reverse name, and whether it is confirmed.
//!
//! RFC 1035 §3.5, RFC 3596 §2.5; confirmation as `iprev` in RFC 8601 §2.7.3. Addresses are compared exactly: a name that
//! has another address of the same /64 confirms nothing.

use std::net::IpAddr;
use std::ops::ControlFlow::{self, Break, Continue};

use super::search::addresses;
use super::{Answer, Answers, Basis, Detail, DomainName, Fact, Lookup, Reason, Record, Step};
use crate::addr::Family;

/// PTR names that are looked at; RFC 7208 §4.6.4 stops there too.
pub const MAX_NAMES: usize = 10;

/// The address of `client` has a PTR record.
pub fn reverse_name(client: IpAddr, known: &Answers) -> Step {
    match names(client, known) {
        Continue((names, basis)) => Step::Fact(Fact::holds(basis, first(&names))),
        Break(step) => step,
    }
}

/// A PTR name of `client` has that very address (A for IPv4, AAAA for IPv6). There are three ways to fail: no PTR record,
/// none of the names confirmed, or not known. A name that confirms wins over others that are not known.
pub fn fcrdns(client: IpAddr, known: &Answers) -> Step {
    let client = client.to_canonical();
    let (names, basis) = match names(client, known) {
        Continue(found) => found,
        Break(step) => return step,
    };
    // A name may be the root in a hostile PTR: nothing to ask there.
    let hosts = names.iter().copied().filter(|name| !name.is_root());
    addresses(known, hosts, &[Family::of(client)], |address| address == client).into_step(
        basis,
        |name, _| Detail::Name(name.clone()),
        |_| (Reason::NotConfirmed, first(&names)),
    )
}

/// The PTR names, sorted, each once, at most [`MAX_NAMES`]; or how it stands without them.
fn names(client: IpAddr, known: &Answers) -> ControlFlow<Step, (Vec<&DomainName>, Basis)> {
    let lookup = Lookup::Reverse(client.to_canonical());
    let Some(answered) = known.get(&lookup) else {
        return Break(Step::Need(vec![lookup]));
    };
    let basis = Basis::of(answered);
    let unknown = |reason| Break(Step::Fact(Fact::unknown(reason, basis)));
    let mut names: Vec<_> = match &answered.answer {
        Answer::Records(records) => records.iter().filter_map(Record::name).collect(),
        Answer::NoData | Answer::NxDomain => Vec::new(),
        Answer::Unknown(reason) => return unknown(*reason),
        // No answer to a question of this kind.
        Answer::Yes(_) | Answer::No(..) => return unknown(Reason::NoSource),
    };
    if names.is_empty() {
        return Break(Step::Fact(Fact::fails(Reason::NoPtr, basis, None)));
    }
    // Servers rotate what they answer: sorted, the same records give the same fact.
    names.sort();
    names.dedup();
    names.truncate(MAX_NAMES);
    Continue((names, basis))
}

fn first(names: &[&DomainName]) -> Option<Detail> {
    names.first().map(|&name| Detail::Name(name.clone()))
}

impl Record {
    const fn name(&self) -> Option<&DomainName> {
        match self {
            Self::Name(name) => Some(name),
            _ => None,
        }
    }
}
