//! DMARC (RFC 9989): whether a message violates the policy that its author's domain publishes.
//!
//! An identifier is the domain of SPF's `pass`, or the `d=` of a DKIM signature that counts (see [`super::dkim`]) and covers each
//! From field. It aligns with the author's domain if it is that domain, or, unless the record is strict, if both have the same
//! organisational domain by the [`TreeWalk`].
//!
//! RFC 9989 leaves messages with several author domains to the receiver (§5.3.1, §11.5). Here each domain is evaluated, up to
//! four, and one that is violated suffices: otherwise a second author would exempt a forged one. A message without an author
//! domain, or with more, fails. A From field with syntax errors has the domains that a reader may see in it.
//!
//! The records of the walk, those of SPF and the keys are looked up together, then the records of the identifiers between
//! them and the organisational domain. Signatures whose domain cannot align cause no lookup and no verification, so that
//! nobody can turn a failure into an unknown result by adding some.

mod record;
mod tree_walk;

use std::collections::BTreeSet;
use std::fmt;

pub use self::record::{DmarcPolicy, DmarcRecord, DmarcScope};
pub use self::tree_walk::{DmarcRecords, TreeWalk};
use super::dkim::{SignatureFailure, VerifiedSignature, described, missing_keys, seen};
use super::provenance::Provenance;
use super::spf::{SpfArguments, SpfEvaluation, SpfResult, check_host};
use super::{Answers, Detail, DomainName, Evaluation, Fact, Lookup, Reason, ReceivedMessage};
use crate::addr::Family;
use crate::dkim::SignatureCheck;

/// Author domains that are evaluated.
pub(super) const MAX_AUTHORS: usize = 4;

/// The arguments of [`dmarc`].
#[derive(Clone, Copy, Debug)]
pub struct DmarcCheck<'a> {
    pub spf: SpfArguments<'a>,
    /// `None` if the content was not seen.
    pub message: Option<&'a ReceivedMessage>,
    /// The weakest policy that a message may not violate.
    pub policy: DmarcPolicy,
}

/// Each author's domain has no DMARC record, or one with a weaker policy than that of `check`, or an identifier aligns with it.
/// It is unknown if no identifier aligns and a lookup failed that may change this.
pub fn dmarc(check: &DmarcCheck<'_>, known: &Answers) -> Evaluation {
    let (content, now) = match seen(check.message) {
        Ok(seen) => seen,
        Err(reason) => return Evaluation::Known(Fact::unknown(reason, Provenance::NO_LOOKUP)),
    };
    let domains = content.authors.domains.iter();
    let authors: Vec<DomainName> = domains.filter_map(|one| DomainName::parse(one)).collect();
    let without_lookup =
        |reason, detail| Evaluation::Known(Fact::fails(reason, Provenance::NO_LOOKUP, detail));
    if authors.is_empty() {
        return without_lookup(Reason::NoAuthorDomain, None);
    }
    if authors.len() > MAX_AUTHORS {
        let detail = Detail::Text(format!("from={}", listed(&authors)));
        return without_lookup(Reason::ManyAuthorDomains, Some(detail));
    }
    let mut evaluator = Evaluator {
        check,
        known,
        signatures: &content.signatures,
        now,
        missing: BTreeSet::new(),
        provenance: Provenance::START,
    };
    let results: Vec<AuthorResult> =
        authors.iter().map(|author| evaluator.author(author)).collect();
    if !evaluator.missing.is_empty() {
        return Evaluation::NeedsLookups(evaluator.missing.into_iter().collect());
    }
    let from = evaluator.provenance;
    let detail = Some(Detail::Text(described(&results)));
    let violated = results.iter().filter_map(|result| match result.state {
        AuthorState::Violated(policy) => Some(policy),
        _ => None,
    });
    let unknown = results.iter().find_map(|result| match result.state {
        AuthorState::Unknown(reason) => Some(reason),
        _ => None,
    });
    Evaluation::Known(match (violated.max(), unknown) {
        (Some(policy), _) => Fact::fails(reason_of(policy), from, detail),
        (None, Some(reason)) => Fact { detail, ..Fact::unknown(reason, from) },
        (None, None) => Fact::holds(from, detail),
    })
}

const fn reason_of(policy: DmarcPolicy) -> Reason {
    match policy {
        DmarcPolicy::None => Reason::DmarcPolicyNone,
        DmarcPolicy::Quarantine => Reason::DmarcPolicyQuarantine,
        DmarcPolicy::Reject => Reason::DmarcPolicyReject,
    }
}

fn listed(names: &[DomainName]) -> String {
    let names: Vec<String> = names.iter().take(MAX_AUTHORS).map(ToString::to_string).collect();
    names.join(",")
}

/// The result for one author's domain, with its text: `dmarc=fail p=reject from=a.example; …`.
struct AuthorResult {
    state: AuthorState,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuthorState {
    Kept,
    Violated(DmarcPolicy),
    Unknown(Reason),
    /// A lookup is missing.
    Pending,
}

impl fmt::Display for AuthorResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How an identifier relates to an author's domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Alignment {
    Exact,
    /// By the organisational domain.
    Relaxed,
    None,
    Unknown(Reason),
    Pending,
}

/// The author's domain and its record, as far as known.
struct Author<'a> {
    domain: &'a DomainName,
    walk: Option<TreeWalk>,
}

impl Author<'_> {
    /// The record that applies; `None` as long as the walk has not ended.
    fn record(&self) -> Option<Result<Option<&DmarcRecord>, Reason>> {
        self.walk.as_ref().map(TreeWalk::applicable)
    }

    /// Whether an identifier may align, as far as the records of the author tell.
    fn may_align(&self, identifier: &DomainName, is_strict: fn(&DmarcRecord) -> bool) -> bool {
        if identifier == self.domain {
            return true;
        }
        let strict = matches!(self.record(), Some(Ok(Some(record))) if is_strict(record));
        let organizational = self.walk.as_ref().map(TreeWalk::organizational_domain);
        !strict
            && match organizational {
                Some(Ok(organizational)) => identifier.is_within(&organizational),
                // At least the last label.
                Some(Err(_)) | None => top(identifier) == top(self.domain),
            }
    }
}

fn top(domain: &DomainName) -> Option<&[u8]> {
    domain.as_dns().iter().next_back()
}

struct Evaluator<'a> {
    check: &'a DmarcCheck<'a>,
    known: &'a Answers,
    signatures: &'a [SignatureCheck],
    now: u64,
    missing: BTreeSet<Lookup>,
    provenance: Provenance,
}

impl Evaluator<'_> {
    fn author(&mut self, domain: &DomainName) -> AuthorResult {
        let walk = match TreeWalk::new(domain, self.known) {
            Ok(walk) => {
                self.provenance = self.provenance.and(walk.provenance);
                Some(walk)
            }
            Err(missing) => {
                self.missing.extend(missing);
                None
            }
        };
        let author = Author { domain, walk };
        let strictest = |record: &DmarcRecord| {
            scopes(record, domain).into_iter().filter_map(|scope| record.policy(scope)).max()
        };
        if let Some(Ok(record)) = author.record() {
            // Where no identifier is needed, none is looked up.
            match record.and_then(strictest) {
                None => return kept(format!("dmarc=none from={domain}")),
                Some(policy) if policy < self.check.policy => {
                    return kept(format!("p={policy} from={domain}"));
                }
                Some(_) => {}
            }
        }
        let identifiers = self.identifiers(&author);
        let policy = match (&identifiers.state, author.record()) {
            (IdentifierState::Aligned(by), record) => {
                let policy = record.and_then(Result::ok).flatten().and_then(strictest);
                let policy = policy.map_or_else(String::new, |policy| format!(" p={policy}"));
                return kept(format!("dmarc=pass{policy} from={domain} by {by}"));
            }
            (IdentifierState::Pending, _) | (_, None) => return pending(),
            (_, Some(Err(reason))) => {
                return unknown(reason, format!("dmarc=temperror from={domain} {reason}"));
            }
            (_, Some(Ok(None))) => return kept(format!("dmarc=none from={domain}")),
            (_, Some(Ok(Some(record)))) => match self.policy(record, domain) {
                Ok(Some(policy)) => policy,
                Ok(None) => return pending(),
                Err(reason) => {
                    return unknown(reason, format!("dmarc=temperror from={domain} {reason}"));
                }
            },
        };
        let evidence = described(&identifiers.texts);
        match identifiers.state {
            _ if policy < self.check.policy => {
                kept(format!("dmarc=fail p={policy} from={domain}; {evidence}"))
            }
            IdentifierState::Unknown(reason) => {
                unknown(reason, format!("dmarc=temperror p={policy} from={domain}; {evidence}"))
            }
            _ => AuthorResult {
                state: AuthorState::Violated(policy),
                text: format!("dmarc=fail p={policy} from={domain}; {evidence}"),
            },
        }
    }

    /// The policy for `domain`; `Ok(None)` if it depends on lookups that are missing.
    ///
    /// # Errors
    /// Why such a lookup failed.
    fn policy(
        &mut self,
        record: &DmarcRecord,
        domain: &DomainName,
    ) -> Result<Option<DmarcPolicy>, Reason> {
        let scopes = scopes(record, domain);
        let scope = match scopes.as_slice() {
            [one] => *one,
            _ => match self.exists(domain)? {
                Some(true) => DmarcScope::Subdomain,
                Some(false) => DmarcScope::MissingSubdomain,
                None => return Ok(None),
            },
        };
        Ok(Some(record.policy(scope).unwrap_or(DmarcPolicy::None)))
    }

    /// Whether `domain` has an address or an MX (RFC 9989 §3.2.13). `Ok(None)`: lookups are missing.
    ///
    /// # Errors
    /// Why a lookup failed that matters.
    fn exists(&mut self, domain: &DomainName) -> Result<Option<bool>, Reason> {
        let addresses = Family::ALL.map(|family| Lookup::Addresses(domain.clone(), family));
        let lookups = addresses.into_iter().chain([Lookup::MailExchanges(domain.clone())]);
        let mut failure = None;
        let mut is_pending = false;
        let mut exists = false;
        for lookup in lookups {
            let Some(result) = self.known.get(&lookup) else {
                self.missing.insert(lookup);
                is_pending = true;
                continue;
            };
            self.provenance = self.provenance.and(Provenance::of(result));
            match result.answer.records() {
                Ok(records) => exists |= !records.is_empty(),
                Err(reason) => failure = Some(reason),
            }
        }
        match failure {
            _ if is_pending => Ok(None),
            Some(reason) if !exists => Err(reason),
            _ => Ok(Some(exists)),
        }
    }

    /// SPF first, then the signatures from the top: the first that aligns.
    fn identifiers(&mut self, author: &Author<'_>) -> Identifiers {
        let mut found = Identifiers::default();
        let spf = self.spf(author, &mut found);
        if let Some(aligned) = spf {
            return Identifiers { state: aligned, texts: Vec::new() };
        }
        let strict = DmarcRecord::is_strict_for_dkim;
        let mut candidates = Vec::new();
        for check in self.signatures {
            let text = match check.domain().and_then(DomainName::parse) {
                Some(domain) if !author.may_align(&domain, strict) => {
                    format!("dkim d={domain} not aligned")
                }
                Some(domain) if check.signature().is_ok() && !check.covers_every_from() => {
                    format!("dkim d={domain} does not cover each From field")
                }
                Some(domain) if check.signature().is_ok() => {
                    candidates.push((check, domain));
                    continue;
                }
                _ => VerifiedSignature::new(check, self.now, self.known).to_string(),
            };
            found.texts.push(text);
        }
        if self.signatures.is_empty() {
            found.texts.push(String::from("dkim=none"));
        }
        let missing = missing_keys(candidates.iter().map(|&(check, _)| check), self.known);
        if !missing.is_empty() {
            self.missing.extend(missing);
            found.state = IdentifierState::Pending;
        }
        // Nothing is verified as long as the result may change.
        if found.state == IdentifierState::Pending || author.walk.is_none() {
            found.state = IdentifierState::Pending;
            return found;
        }
        for (check, domain) in candidates {
            let verified = VerifiedSignature::new(check, self.now, self.known);
            match verified.result() {
                Ok(()) => {
                    let alignment = self.alignment(author, &domain, strict);
                    if let Some(words) = alignment.words() {
                        self.provenance = self.provenance.and(verified.provenance);
                        let state = IdentifierState::Aligned(format!("{verified} {words}"));
                        return Identifiers { state, texts: Vec::new() };
                    }
                    found.add(alignment, format!("{verified} not aligned"));
                }
                Err(SignatureFailure::Unknown(reason)) => {
                    found.add(Alignment::Unknown(reason), verified.to_string());
                }
                Err(SignatureFailure::False(_)) => {
                    found.add(Alignment::None, verified.to_string());
                }
            }
            self.provenance = self.provenance.and(verified.provenance);
        }
        found
    }

    /// The state if the domain of SPF aligns. Otherwise the result goes to `found`.
    fn spf(&mut self, author: &Author<'_>, found: &mut Identifiers) -> Option<IdentifierState> {
        let Some(query) = self.check.spf.query() else {
            found.texts.push(String::from("spf=none"));
            return None;
        };
        let domain = &query.domain;
        let strict = DmarcRecord::is_strict_for_spf;
        if !author.may_align(domain, strict) {
            found.texts.push(format!("spf d={domain} not aligned"));
            return None;
        }
        let evaluation: SpfEvaluation = match check_host(&query, self.known) {
            Ok(evaluation) => evaluation,
            Err(missing) => {
                self.missing.extend(missing);
                found.state = IdentifierState::Pending;
                return None;
            }
        };
        self.provenance = self.provenance.and(evaluation.provenance);
        let text = evaluation.explanation(domain);
        match evaluation.result {
            SpfResult::Pass => {
                let alignment = self.alignment(author, domain, strict);
                if let Some(words) = alignment.words() {
                    return Some(IdentifierState::Aligned(format!("{text} {words}")));
                }
                found.add(alignment, format!("{text} not aligned"));
            }
            SpfResult::Temperror => {
                let reason = evaluation.failure.unwrap_or(Reason::Servfail);
                found.add(Alignment::Unknown(reason), text);
            }
            _ => found.add(Alignment::None, text),
        }
        None
    }

    fn alignment(
        &mut self,
        author: &Author<'_>,
        identifier: &DomainName,
        is_strict: fn(&DmarcRecord) -> bool,
    ) -> Alignment {
        if identifier == author.domain {
            return Alignment::Exact;
        }
        let Some(walk) = &author.walk else { return Alignment::Pending };
        let organizational = match (walk.applicable(), walk.organizational_domain()) {
            (Err(reason), _) | (_, Err(reason)) => return Alignment::Unknown(reason),
            (Ok(Some(record)), _) if is_strict(record) => return Alignment::None,
            (Ok(_), Ok(organizational)) => organizational,
        };
        if !identifier.is_within(&organizational) {
            return Alignment::None;
        }
        let walk = match TreeWalk::new(identifier, self.known) {
            Ok(walk) => walk,
            Err(missing) => {
                self.missing.extend(missing);
                return Alignment::Pending;
            }
        };
        self.provenance = self.provenance.and(walk.provenance);
        match walk.organizational_domain() {
            Err(reason) => Alignment::Unknown(reason),
            Ok(other) if other == organizational => Alignment::Relaxed,
            Ok(_) => Alignment::None,
        }
    }
}

/// The scopes that the author's domain may have: one, unless it matters whether it exists.
fn scopes(record: &DmarcRecord, author: &DomainName) -> Vec<DmarcScope> {
    use DmarcScope::{Domain, MissingSubdomain, Subdomain};
    if record.domain == *author {
        vec![Domain]
    } else if record.policy(Subdomain) == record.policy(MissingSubdomain) {
        vec![Subdomain]
    } else {
        vec![Subdomain, MissingSubdomain]
    }
}

const fn kept(text: String) -> AuthorResult {
    AuthorResult { state: AuthorState::Kept, text }
}

const fn unknown(reason: Reason, text: String) -> AuthorResult {
    AuthorResult { state: AuthorState::Unknown(reason), text }
}

const fn pending() -> AuthorResult {
    AuthorResult { state: AuthorState::Pending, text: String::new() }
}

/// The identifiers of a message, for one author's domain.
#[derive(Default)]
struct Identifiers {
    state: IdentifierState,
    /// Each with its result, if none aligns.
    texts: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum IdentifierState {
    /// With its text.
    Aligned(String),
    Unknown(Reason),
    Pending,
    #[default]
    None,
}

impl Identifiers {
    /// One that does not align now. What is pending outweighs what is unknown.
    fn add(&mut self, alignment: Alignment, text: String) {
        self.texts.push(text);
        match (&self.state, alignment) {
            (_, Alignment::Pending) => self.state = IdentifierState::Pending,
            (IdentifierState::None, Alignment::Unknown(reason)) => {
                self.state = IdentifierState::Unknown(reason);
            }
            _ => {}
        }
    }
}

impl Alignment {
    /// For a detail, if it is one.
    const fn words(self) -> Option<&'static str> {
        match self {
            Self::Exact => Some("aligned"),
            Self::Relaxed => Some("aligned by the organizational domain"),
            Self::None | Self::Unknown(_) | Self::Pending => None,
        }
    }
}
