//! DKIM keys of the given selectors (RFC 6376 §3.6.1, RFC 8301 for lengths, RFC 8463 for Ed25519).

use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::request::CheckRequest;
use crate::dkim::{DkimKey, DkimPublicKey};
use crate::policy::facts::DomainName;

/// RFC 8301 §3.2: verifiers reject shorter keys.
const MIN_BITS: u32 = 1024;
/// RFC 8301 §3.2: signers should use at least this.
const GOOD_BITS: u32 = 2048;

pub(super) fn check(request: &CheckRequest, known: &KnownAnswers, findings: &mut FindingList) {
    for selector in &request.selectors {
        match DomainName::parse(&format!("{selector}._domainkey.{}", request.domain)) {
            Some(name) => check_selector(&name, known, findings),
            None => {
                let seen = format!("{selector} does not form a domain name");
                let advice = "Give the selector as in s= of DKIM-Signature.";
                findings.fail(CheckName::DkimKey, selector, seen, advice);
            }
        }
    }
}

fn check_selector(name: &DomainName, known: &KnownAnswers, findings: &mut FindingList) {
    let check = CheckName::DkimKey;
    let texts = match known.texts(name) {
        None => return,
        Some(Err(reason)) => {
            findings.lookup_failed(check, name, "key", reason);
            return;
        }
        Some(Ok(texts)) => texts,
    };
    let text = match texts.as_slice() {
        [text] => text,
        [] => {
            let advice = "Publish the public key there, or correct the selector.";
            findings.fail(check, name, "no key (TXT record)", advice);
            return;
        }
        several => {
            let seen = format!("{} TXT records; verifiers may use any of them", several.len());
            let advice = "Keep one: a selector has one key (RFC 6376 §3.6.2.2).";
            findings.fail(check, name, seen, advice);
            return;
        }
    };
    let key = match DkimKey::parse(text) {
        Ok(key) => key,
        Err(why) => {
            let advice = "Publish the record as the signer printed it, in strings of at most 255 octets each.";
            findings.fail(check, name, format!("invalid key: {why}"), advice);
            return;
        }
    };
    let description = match &key.key {
        Some(DkimPublicKey::Rsa { bits, .. }) => format!("RSA, {bits} bits"),
        Some(DkimPublicKey::Ed25519(_)) => "Ed25519".to_owned(),
        None => "key is revoked (p= is empty)".to_owned(),
    };
    match &key.key {
        None => {
            let advice = "Publish a new key under a new selector, and sign with that.";
            findings.fail(check, name, description, advice);
        }
        Some(DkimPublicKey::Rsa { bits, .. }) if *bits < MIN_BITS => {
            let advice = "Sign with a new key of 2048 bits: verifiers ignore keys shorter than 1024 (RFC 8301).";
            findings.fail(check, name, description, advice);
        }
        Some(_) if !key.allows_sha256 => {
            let advice = "Remove h=, or add sha256 to it: verifiers ignore signatures with SHA-1 (RFC 8301 §3.1), so none can \
                          pass with this key.";
            findings.fail(check, name, format!("{description}, only for SHA-1 (h=)"), advice);
        }
        Some(_) if !key.is_for_email => {
            let advice = "Remove s=, or write s=email: verifiers of mail do not use this key.";
            findings.fail(check, name, format!("{description}, not for email (s=)"), advice);
        }
        Some(_) if key.is_testing => {
            let advice = "Remove t=y once signing works: verifiers may treat the mail as unsigned.";
            findings.warn(check, name, format!("{description}, test mode (t=y)"), advice);
        }
        Some(DkimPublicKey::Rsa { bits, .. }) if *bits < GOOD_BITS => {
            let advice = "Sign with a new key of 2048 bits (RFC 8301 §3.2).";
            findings.warn(check, name, description, advice);
        }
        Some(_) => findings.pass(check, name, description),
    }
}
