//! Whether our own MX records offer a family to senders.

use std::ops::ControlFlow::{Break, Continue};

use super::address_search::find_address;
use super::return_path::exchanges;
use super::{Answers, Detail, DomainName, Evaluation, Fact, FactState, Provenance, Reason};
use crate::addr::Family;

/// The MX of every one of `domains` has an address in `family`. A domain without one would get no mail over that family,
/// so one is enough for the answer no; and no is certain only where every lookup succeeded.
pub fn site_mx_has_address(domains: &[DomainName], family: Family, known: &Answers) -> Evaluation {
    let mut all = Fact::holds(Provenance::NO_LOOKUP, None);
    for domain in domains {
        let (exchanges, provenance) = match exchanges(domain, known) {
            Continue(found) => found,
            Break(evaluation) => return evaluation,
        };
        let search = find_address(known, exchanges, &[family], |_| true);
        let absent = |_| (Reason::NoUsableAddress, None);
        match search.into_evaluation(provenance, Detail::host, absent) {
            Evaluation::Known(fact) if fact.state == FactState::True => all = fact,
            other => return other,
        }
    }
    Evaluation::Known(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::facts::{Answer, DnsRecord, Lookup, LookupResult, Source};

    #[test]
    fn one_domain_without_an_address_decides() {
        let [a, b] = ["a.example", "b.example"].map(|name| DomainName::parse(name).unwrap());
        let host = DomainName::parse("mx.a.example").unwrap();
        let mut known = Answers::default();
        let mut answer = |lookup, answer| {
            known.insert(lookup, LookupResult { answer, source: Source::Dns, at: None });
            site_mx_has_address(&[a.clone(), b.clone()], Family::Ipv6, &known)
        };
        let state = |evaluation| match evaluation {
            Evaluation::Known(fact) => Some(fact.state),
            Evaluation::NeedsLookups(_) => None,
        };
        let exchange = DnsRecord::Exchange { preference: 10, host: host.clone() };
        let mx = Lookup::MailExchanges(a.clone());
        assert_eq!(state(answer(mx, Answer::Records(vec![exchange]))), None);
        let address = DnsRecord::Address("2001:db8::25".parse().unwrap());
        let aaaa = Lookup::Addresses(host, Family::Ipv6);
        assert_eq!(state(answer(aaaa, Answer::Records(vec![address.clone()]))), None);
        let implicit_mx = Lookup::MailExchanges(b.clone());
        assert_eq!(state(answer(implicit_mx, Answer::NoData)), None);
        let implicit = Lookup::Addresses(b.clone(), Family::Ipv6);
        let servfail = Answer::Unknown(Reason::Servfail);
        assert_eq!(state(answer(implicit.clone(), servfail)), Some(FactState::Unknown));
        assert_eq!(state(answer(implicit.clone(), Answer::NoData)), Some(FactState::False));
        let found = Answer::Records(vec![address]);
        assert_eq!(state(answer(implicit, found)), Some(FactState::True));
    }
}
