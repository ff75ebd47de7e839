//! Whether a message is authenticated at all: what large receivers demand of mail over IPv6.

use super::dkim::{SignatureFailure, VerifiedSignatures, missing_keys, seen};
use super::spf::{SpfArguments, SpfEvaluation, SpfResult, check_host};
use super::{
    Answers, Detail, DomainName, Evaluation, Fact, Lookup, Provenance, Reason, ReceivedMessage,
};

/// SPF passes, or at least one DKIM signature verifies. Where SPF passes, no key is needed. The keys are looked up together
/// with the records of SPF, and signatures are verified when the result of SPF is known.
///
/// It is unknown if neither passes and one is unknown. `message`: `None` if its content was not seen.
pub fn authenticated(
    arguments: SpfArguments<'_>,
    message: Option<&ReceivedMessage>,
    known: &Answers,
) -> Evaluation {
    let content = seen(message);
    let missing = || content.map(|(content, _)| missing_keys(&content.signatures, known));
    let spf = match arguments.query().map(|query| (check_host(&query, known), query.domain)) {
        Some((Err(lookups), _)) => {
            let mut needed: Vec<Lookup> = lookups.into_iter().collect();
            let keys = missing().unwrap_or_default();
            needed.extend(keys.into_iter().filter(|key| known.get(key).is_none()));
            return Evaluation::NeedsLookups(needed);
        }
        Some((Ok(evaluation), domain)) => Some(SpfOfSession { evaluation, domain }),
        None => None,
    };
    if let Some(spf) = spf.as_ref().filter(|spf| spf.evaluation.result == SpfResult::Pass) {
        let detail = Some(Detail::Text(spf.to_string()));
        return Evaluation::Known(Fact::holds(spf.evaluation.provenance, detail));
    }
    let missing = missing().unwrap_or_default();
    if !missing.is_empty() {
        return Evaluation::NeedsLookups(missing);
    }
    Evaluation::Known(without_spf(spf.as_ref(), content, known))
}

/// The fact where SPF does not pass.
fn without_spf(
    spf: Option<&SpfOfSession>,
    content: Result<(&crate::dkim::SignedMessage, u64), Reason>,
    known: &Answers,
) -> Fact {
    let by_spf = spf.map_or_else(|| String::from("spf=none"), ToString::to_string);
    let spf_provenance = spf.map_or(Provenance::NO_LOOKUP, |spf| spf.evaluation.provenance);
    let spf_failure = spf.and_then(SpfOfSession::failure);
    let (content, now) = match content {
        Ok(seen) => seen,
        Err(reason) => {
            let detail = Some(Detail::Text(by_spf));
            return Fact { detail, ..Fact::unknown(spf_failure.unwrap_or(reason), spf_provenance) };
        }
    };
    let all = VerifiedSignatures::new(&content.signatures, now, known);
    let by_dkim = all.to_string();
    let both = spf_provenance.and(all.provenance);
    let detail = Some(Detail::Text(format!("{by_spf}; {by_dkim}")));
    match (all.result(), spf_failure) {
        (Ok(()), _) => Fact::holds(all.provenance, Some(Detail::Text(by_dkim))),
        (Err(SignatureFailure::Unknown(reason)), _) | (Err(_), Some(reason)) => {
            Fact { detail, ..Fact::unknown(reason, both) }
        }
        (Err(SignatureFailure::False(_)), None) => {
            Fact::fails(Reason::NotAuthenticated, both, detail)
        }
    }
}

/// The result of SPF with its domain.
struct SpfOfSession {
    evaluation: SpfEvaluation,
    domain: DomainName,
}

impl SpfOfSession {
    /// Why it is unknown.
    fn failure(&self) -> Option<Reason> {
        let is_unknown = self.evaluation.result == SpfResult::Temperror;
        is_unknown.then(|| self.evaluation.failure.unwrap_or(Reason::Servfail))
    }
}

impl std::fmt::Display for SpfOfSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.evaluation.explanation(&self.domain))
    }
}
