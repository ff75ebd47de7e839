//! DKIM keys of the given selectors (RFC 6376 §3.6.1, RFC 8301 for lengths, RFC 8463 for Ed25519).

use data_encoding::BASE64;
use pkcs1::RsaPublicKeyRef;
use spki::SubjectPublicKeyInfoRef;

use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::request::CheckRequest;
use super::tags::{tags, value};
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
    let key = match DkimKey::parse(&String::from_utf8_lossy(text)) {
        Ok(key) => key,
        Err(why) => {
            let advice = "Publish the record as the signer printed it, in strings of at most 255 octets each.";
            findings.fail(check, name, format!("invalid key: {why}"), advice);
            return;
        }
    };
    let description = match key.kind {
        KeyType::Rsa(bits) => format!("RSA, {bits} bits"),
        KeyType::Ed25519 => "Ed25519".to_owned(),
        KeyType::Revoked => "key is revoked (p= is empty)".to_owned(),
    };
    match key.kind {
        KeyType::Revoked => {
            let advice = "Publish a new key under a new selector, and sign with that.";
            findings.fail(check, name, description, advice);
        }
        KeyType::Rsa(bits) if bits < MIN_BITS => {
            let advice = "Sign with a new key of 2048 bits: verifiers ignore keys shorter than 1024 (RFC 8301).";
            findings.fail(check, name, description, advice);
        }
        _ if key.testing => {
            let advice = "Remove t=y once signing works: verifiers may treat the mail as unsigned.";
            findings.warn(check, name, format!("{description}, test mode (t=y)"), advice);
        }
        KeyType::Rsa(bits) if bits < GOOD_BITS => {
            let advice = "Sign with a new key of 2048 bits (RFC 8301 §3.2).";
            findings.warn(check, name, description, advice);
        }
        KeyType::Rsa(_) | KeyType::Ed25519 => findings.pass(check, name, description),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DkimKey {
    kind: KeyType,
    testing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyType {
    /// Bits of the modulus.
    Rsa(u32),
    Ed25519,
    Revoked,
}

impl DkimKey {
    fn parse(text: &str) -> Result<Self, String> {
        let tags = tags(text);
        if tags.first().is_some_and(|(name, value)| name == "v" && value != "DKIM1") {
            return Err("v= is not DKIM1".to_owned());
        }
        let testing =
            value(&tags, "t").is_some_and(|flags| flags.split(':').any(|flag| flag.trim() == "y"));
        let key = value(&tags, "p").ok_or("no p=")?;
        let base64: String = key.chars().filter(|c| !c.is_whitespace()).collect();
        if base64.is_empty() {
            return Ok(Self { kind: KeyType::Revoked, testing });
        }
        let bytes = BASE64.decode(base64.as_bytes());
        let bytes = bytes.map_err(|error| format!("p= is not base64: {error}"))?;
        let kind = match value(&tags, "k").unwrap_or("rsa").to_ascii_lowercase().as_str() {
            "rsa" => KeyType::Rsa(rsa_bits(&bytes).ok_or("p= is not an RSA key")?),
            "ed25519" if bytes.len() == 32 => KeyType::Ed25519,
            "ed25519" => {
                return Err(format!("p= has {} octets, an Ed25519 key has 32", bytes.len()));
            }
            other => return Err(format!("unknown key type k={other}")),
        };
        Ok(Self { kind, testing })
    }
}

/// Of a SubjectPublicKeyInfo, or of the bare RSAPublicKey of RFC 6376.
fn rsa_bits(der: &[u8]) -> Option<u32> {
    let bare = SubjectPublicKeyInfoRef::try_from(der).ok();
    let bare = bare.and_then(|info| info.subject_public_key.as_bytes()).unwrap_or(der);
    let modulus = RsaPublicKeyRef::try_from(bare).ok()?.modulus;
    let bytes = modulus.as_bytes();
    let bits = u32::try_from(bytes.len()).ok()?.checked_mul(8)?;
    Some(bits - bytes.first()?.leading_zeros())
}
