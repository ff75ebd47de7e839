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
pub use self::record::{Directive, Mechanism, Qualifier, SpfRecord, is_sender_id, is_spf};
use super::provenance::Provenance;
use super::{Answers, Detail, DomainName, DomainOrLiteral, Evaluation, Fact, Reason};
use crate::label::labels;

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

labels! {
    /// The results of SPF with which the fact holds.
    #[derive(Default)]
    pub enum SpfLevel {
        /// Only pass.
        #[default]
        Pass = "pass",
        /// Also softfail, neutral and none: the domain does not say that the client must not send its mail.
        NotFail = "not_fail",
    }
}

/// The arguments of a session that SPF takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpfArguments<'a> {
    pub client: IpAddr,
    /// The argument of HELO or EHLO.
    pub helo: &'a str,
    /// The reverse-path without brackets; empty for `<>`.
    pub sender: &'a str,
}

impl<'a> SpfArguments<'a> {
    /// `None`: the sender has no domain that could have a record.
    pub(super) fn query(self) -> Option<SpfQuery<'a>> {
        let helo = self.helo.split_ascii_whitespace().next().unwrap_or_default();
        SpfQuery::of_session(self.client, helo, self.sender)
    }
}

/// The result is one of `level`. It is unknown for `temperror`.
pub fn spf(arguments: SpfArguments<'_>, level: SpfLevel, known: &Answers) -> Evaluation {
    let Some(query) = arguments.query() else {
        let from = Provenance::NO_LOOKUP;
        return Evaluation::Known(match level {
            SpfLevel::Pass => Fact::fails(Reason::NotADomain, from, None),
            SpfLevel::NotFail => Fact::holds(from, None),
        });
    };
    let evaluation = match check_host(&query, known) {
        Ok(evaluation) => evaluation,
        Err(lookups) => return Evaluation::NeedsLookups(lookups.into_iter().collect()),
    };
    let from = evaluation.provenance;
    let detail = Some(Detail::Text(evaluation.explanation(&query.domain)));
    let failure = evaluation.failure.unwrap_or(Reason::Servfail);
    Evaluation::Known(match (evaluation.result, level) {
        (SpfResult::Pass, _) => Fact::holds(from, detail),
        (SpfResult::Temperror, _) => Fact { detail, ..Fact::unknown(failure, from) },
        (SpfResult::Fail, _) => Fact::fails(Reason::SpfFail, from, detail),
        (SpfResult::Permerror, _) => Fact::fails(Reason::SpfPermerror, from, detail),
        (SpfResult::Softfail | SpfResult::Neutral | SpfResult::None, SpfLevel::NotFail) => {
            Fact::holds(from, detail)
        }
        (SpfResult::Softfail, _) => Fact::fails(Reason::SpfSoftfail, from, detail),
        (SpfResult::Neutral, _) => Fact::fails(Reason::SpfNeutral, from, detail),
        (SpfResult::None, _) => Fact::fails(Reason::SpfNone, from, detail),
    })
}
