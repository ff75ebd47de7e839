//! SPF (RFC 7208): whether a domain lists the client among the senders of its mail.
//!
//! The evaluator is our own: the newest mail-auth crate needs a newer Rust, does not count void lookups, uses the first of
//! several records, and reads `/129` as `/128`. It returns all results of the RFC 7208 test suite (`tests/core/spf`).
//! `exp=` is parsed but not followed: explanations are not results.

mod eval;
mod macros;
mod record;

use std::net::IpAddr;

pub use self::eval::{
    MAX_LOOKUPS, MAX_VOID, SpfCosts, SpfEvaluation, SpfResult, check_host, costs,
};
pub use self::record::{Mechanism, Qualifier, SpfRecord, is_sender_id, is_spf};
use super::provenance::Provenance;
use super::{Answers, Detail, DomainName, DomainOrLiteral, Evaluation, Fact, Reason};

/// What [`check_host`] is called with (RFC 7208 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpfQuery<'a> {
    /// The client's address.
    pub ip: IpAddr,
    /// The local part of the sender, `postmaster` if it has none (§4.3).
    pub local_part: &'a str,
    /// The domain of the sender.
    pub domain: DomainName,
    /// The argument of HELO or EHLO, for the macro `%{h}`.
    pub helo: &'a str,
}

const POSTMASTER: &str = "postmaster";

impl<'a> SpfQuery<'a> {
    /// Of the reverse-path `sender`, or of the HELO name for `<>` (RFC 7208 §2.4). `None` if that is no domain name.
    pub fn of_session(ip: IpAddr, helo: &'a str, sender: &'a str) -> Option<Self> {
        let (local_part, name) = sender.rsplit_once('@').unwrap_or((POSTMASTER, helo));
        let local_part = if local_part.is_empty() { POSTMASTER } else { local_part };
        match DomainOrLiteral::parse(name)? {
            DomainOrLiteral::Domain(domain) if domain.as_dns().num_labels() > 1 => {
                Some(Self { ip: ip.to_canonical(), local_part, domain, helo })
            }
            // RFC 7208 §4.3: neither a literal nor a name without a dot has an SPF record.
            _ => None,
        }
    }
}

/// The client may send mail of the domain: SPF's result is `pass`. It fails for every other result but `temperror`, which
/// leaves it unknown.
pub fn spf(client: IpAddr, helo: &str, sender: &str, known: &Answers) -> Evaluation {
    let helo = helo.split_ascii_whitespace().next().unwrap_or_default();
    let Some(query) = SpfQuery::of_session(client, helo, sender) else {
        return Evaluation::Known(Fact::fails(Reason::NotADomain, Provenance::NO_LOOKUP, None));
    };
    let evaluation = match check_host(&query, known) {
        Ok(evaluation) => evaluation,
        Err(lookups) => return Evaluation::NeedsLookups(lookups.into_iter().collect()),
    };
    let from = evaluation.provenance;
    let detail = Some(Detail::Text(evaluation.explanation(&query.domain)));
    Evaluation::Known(match evaluation.result {
        SpfResult::Pass => Fact::holds(from, detail),
        SpfResult::Temperror => Fact::unknown(evaluation.failure.unwrap_or(Reason::Servfail), from),
        SpfResult::Fail => Fact::fails(Reason::SpfFail, from, detail),
        SpfResult::Softfail => Fact::fails(Reason::SpfSoftfail, from, detail),
        SpfResult::Neutral => Fact::fails(Reason::SpfNeutral, from, detail),
        SpfResult::None => Fact::fails(Reason::SpfNone, from, detail),
        SpfResult::Permerror => Fact::fails(Reason::SpfPermerror, from, detail),
    })
}
