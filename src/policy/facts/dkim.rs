//! DKIM (RFC 6376): whether a signature of the message verifies.
//!
//! Three signatures that match do not count:
//! - by a key in test mode (`t=y`): RFC 6376 §3.6.1 has such mail treated as unsigned;
//! - that leave octets at the end of the body unsigned (`l=`): anybody may have added these (§8.2);
//! - by less than RFC 8301 demands, see [`crate::dkim`].
//!
//! Nothing is verified before all keys are there. Then one evaluation verifies at most as many signatures as
//! [`crate::dkim::DkimLimits`] has, each by at most four keys, and ends with the first that counts.

use std::fmt::{self, Write as _};

use super::{
    Answers, Detail, DomainName, Evaluation, Fact, Lookup, Provenance, Reason, ReceivedMessage,
};
use crate::dkim::{DkimOutcome, DkimReason, DkimResult, SignatureCheck, SignedMessage};

/// Signatures that a detail describes.
const MAX_DESCRIBED: usize = 4;

/// At least one signature verifies. `message`: `None` if its content was not seen.
pub fn dkim(message: Option<&ReceivedMessage>, known: &Answers) -> Evaluation {
    let (content, now) = match seen(message) {
        Ok(seen) => seen,
        Err(reason) => return Evaluation::Known(Fact::unknown(reason, Provenance::NO_LOOKUP)),
    };
    let missing = missing_keys(&content.signatures, known);
    if !missing.is_empty() {
        return Evaluation::NeedsLookups(missing);
    }
    let all = VerifiedSignatures::new(&content.signatures, now, known);
    let from = all.provenance;
    let detail = Some(Detail::Text(all.to_string()));
    Evaluation::Known(match all.result() {
        Ok(()) => Fact::holds(from, detail),
        Err(SignatureFailure::False(reason)) => Fact::fails(reason, from, detail),
        Err(SignatureFailure::Unknown(reason)) => Fact { detail, ..Fact::unknown(reason, from) },
    })
}

/// The message and the time at which its signatures must be valid, in seconds of Unix time.
///
/// # Errors
/// Why nothing is known of it.
pub(super) fn seen(message: Option<&ReceivedMessage>) -> Result<(&SignedMessage, u64), Reason> {
    let message = message.ok_or(Reason::ContentNotSeen)?;
    let content = message.content.as_ref().map_err(|_too_large| Reason::HeaderTooLarge)?;
    Ok((content, message.at.as_nanos() / 1_000_000_000))
}

/// The lookup of the key; `None` if no key can make the signature valid.
fn key_lookup(check: &SignatureCheck) -> Option<Lookup> {
    DomainName::parse(&check.key_name()?).map(Lookup::Texts)
}

/// The lookups of keys that are not answered yet, each once.
pub(super) fn missing_keys<'a>(
    checks: impl IntoIterator<Item = &'a SignatureCheck>,
    known: &Answers,
) -> Vec<Lookup> {
    let mut missing: Vec<Lookup> = Vec::new();
    for lookup in checks.into_iter().filter_map(key_lookup) {
        if known.get(&lookup).is_none() && !missing.contains(&lookup) {
            missing.push(lookup);
        }
    }
    missing
}

/// A signature with its result.
pub(super) struct VerifiedSignature<'a> {
    pub(super) check: &'a SignatureCheck,
    result: DkimResult,
    /// Why the key could not be looked up.
    failure: Option<Reason>,
    /// Of the key.
    pub(super) provenance: Provenance,
}

impl<'a> VerifiedSignature<'a> {
    /// By a key that [`missing_keys`] does not list.
    pub(super) fn new(check: &'a SignatureCheck, now: u64, known: &Answers) -> Self {
        let answer = key_lookup(check).and_then(|lookup| known.get(&lookup));
        let texts = answer.map(|answer| answer.answer.texts().map(Iterator::collect::<Vec<_>>));
        let (result, failure) = match texts {
            Some(Err(reason)) => (DkimResult::LOOKUP_FAILED, Some(reason)),
            Some(Ok(texts)) => {
                let records: Vec<Vec<u8>> = texts.into_iter().map(<[u8]>::to_vec).collect();
                (check.verify(&records, now), None)
            }
            None => (check.verify(&[], now), None),
        };
        let provenance = answer.map_or(Provenance::NO_LOOKUP, Provenance::of);
        Self { check, result, failure, provenance }
    }

    /// Whether it verifies.
    ///
    /// # Errors
    /// Why it does not count.
    pub(super) fn result(&self) -> Result<(), SignatureFailure> {
        if let Some(reason) = self.failure {
            return Err(SignatureFailure::Unknown(reason));
        }
        let reason = match self.result {
            DkimResult { is_testing: true, .. } => Reason::DkimTestMode,
            DkimResult { outcome: DkimOutcome::Pass, .. } if self.check.unsigned_octets() > 0 => {
                Reason::DkimPartlySigned
            }
            DkimResult { reason: None, .. } => return Ok(()),
            DkimResult { reason: Some(reason), .. } => reason_of(reason),
        };
        Err(SignatureFailure::False(reason))
    }
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignatureFailure {
    False(Reason),
    Unknown(Reason),
}

const fn reason_of(reason: DkimReason) -> Reason {
    use DkimReason as R;
    match reason {
        R::BodyHashMismatch => Reason::DkimBodyChanged,
        R::SignatureMismatch => Reason::DkimBadSignature,
        R::Expired => Reason::DkimExpired,
        R::RsaSha1 | R::ShortKey => Reason::DkimWeak,
        R::NoKey | R::KeyRevoked => Reason::DkimNoKey,
        R::LookupFailed
        | R::MalformedKey
        | R::UnsupportedKey
        | R::KeyTypeMismatch
        | R::HashNotAllowed
        | R::NotForEmail
        | R::IdentityNotAllowed => Reason::DkimInvalidKey,
        R::MalformedSignature
        | R::DuplicateTag
        | R::MissingTag
        | R::UnsupportedVersion
        | R::UnsupportedAlgorithm
        | R::UnsupportedCanonicalization
        | R::UnsupportedQuery
        | R::FromNotSigned
        | R::IdentityOutsideDomain => Reason::DkimInvalidSignature,
    }
}

/// `dkim=pass d=a.example s=mail`, by the words of RFC 8601 §2.7.1, and the reason if it does not pass.
impl fmt::Display for VerifiedSignature<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.result() {
            Ok(()) => DkimOutcome::Pass,
            Err(SignatureFailure::Unknown(_)) => DkimOutcome::Temperror,
            Err(SignatureFailure::False(Reason::DkimTestMode)) => DkimOutcome::Neutral,
            Err(SignatureFailure::False(Reason::DkimPartlySigned)) => DkimOutcome::Policy,
            Err(SignatureFailure::False(_)) => self.result.outcome,
        };
        write!(f, "dkim={outcome}")?;
        if let Some(domain) = self.check.domain() {
            write!(f, " d={domain}")?;
        }
        if let Some(selector) = self.check.selector() {
            write!(f, " s={selector}")?;
        }
        match (self.result(), self.result.reason) {
            (Ok(()), _) => Ok(()),
            (Err(SignatureFailure::Unknown(reason)), _) => write!(f, " {reason}"),
            (Err(SignatureFailure::False(Reason::DkimTestMode)), _) => f.write_str(" test_mode"),
            (Err(SignatureFailure::False(_)), Some(reason)) => write!(f, " {reason}"),
            (Err(SignatureFailure::False(_)), None) => {
                write!(f, " unsigned_octets={}", self.check.unsigned_octets())
            }
        }
    }
}

/// The signatures of a message, from the top up to the first that counts.
pub(super) struct VerifiedSignatures<'a> {
    signatures: Vec<VerifiedSignature<'a>>,
    pub(super) provenance: Provenance,
}

impl<'a> VerifiedSignatures<'a> {
    pub(super) fn new(checks: &'a [SignatureCheck], now: u64, known: &Answers) -> Self {
        let mut all = Self { signatures: Vec::new(), provenance: Provenance::NO_LOOKUP };
        for check in checks {
            let one = VerifiedSignature::new(check, now, known);
            let counts = one.result().is_ok();
            let first = all.signatures.is_empty();
            all.provenance =
                if first || counts { one.provenance } else { all.provenance.and(one.provenance) };
            all.signatures.push(one);
            if counts {
                break;
            }
        }
        all
    }

    /// Whether one counts.
    ///
    /// # Errors
    /// Why none does: a key that could not be looked up, else the reason of the first.
    pub(super) fn result(&self) -> Result<(), SignatureFailure> {
        let mut failure = None;
        for one in &self.signatures {
            match one.result() {
                Ok(()) => return Ok(()),
                Err(unknown @ SignatureFailure::Unknown(_)) => {
                    if !matches!(failure, Some(SignatureFailure::Unknown(_))) {
                        failure = Some(unknown);
                    }
                }
                Err(other) => {
                    failure.get_or_insert(other);
                }
            }
        }
        Err(failure.unwrap_or(SignatureFailure::False(Reason::DkimNone)))
    }
}

/// The one that counts, or why the others do not.
impl fmt::Display for VerifiedSignatures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signatures.as_slice() {
            [] => f.write_str("dkim=none"),
            [.., last] if last.result().is_ok() => last.fmt(f),
            all => f.write_str(&described(all)),
        }
    }
}

/// The first of `items`, separated by semicolons.
pub(super) fn described(items: &[impl fmt::Display]) -> String {
    let mut text = String::new();
    for (n, item) in items.iter().enumerate().take(MAX_DESCRIBED) {
        let separator = if n == 0 { "" } else { "; " };
        // Writing to a string cannot fail.
        let _written = write!(text, "{separator}{item}");
    }
    if let Some(more) = items.len().checked_sub(MAX_DESCRIBED).filter(|more| *more > 0) {
        let _written = write!(text, "; and {more} more");
    }
    text
}
