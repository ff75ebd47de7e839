//! DKIM keys of the selectors that were named (RFC 6376 §3.6.1, RFC 8301 for lengths, RFC 8463 for Ed25519).

use data_encoding::BASE64;
use pkcs1::RsaPublicKeyRef;
use spki::SubjectPublicKeyInfoRef;

use super::finding::{CheckName, Findings};
use super::tags::{tags, value};
use super::{CheckRequest, KnownAnswers, TxtAnswer};
use crate::policy::facts::DomainName;

/// RFC 8301 §3.2: verifiers take no less, and signers should use no less.
const MIN_BITS: u32 = 1024;
const GOOD_BITS: u32 = 2048;

pub(super) fn judge(asked: &CheckRequest, known: &KnownAnswers, findings: &mut Findings) {
    for selector in &asked.selectors {
        let Some(name) = DomainName::parse(&format!("{selector}._domainkey.{}", asked.domain))
        else {
            let seen = format!("{selector} makes no domain name");
            findings.fail(
                CheckName::DkimKey,
                selector,
                seen,
                "Name the selector as s= in DKIM-Signature has it.",
            );
            continue;
        };
        one(&name, known, findings);
    }
}

fn one(name: &DomainName, known: &KnownAnswers, findings: &mut Findings) {
    let check = CheckName::DkimKey;
    let texts = match known.texts(name) {
        None => return,
        Some(TxtAnswer::Unknown(reason)) => {
            findings.unanswered(check, name, "the key", *reason);
            return;
        }
        Some(TxtAnswer::NoData | TxtAnswer::NxDomain) => {
            let advice = "Publish the public key there, or correct the name of the selector.";
            findings.fail(check, name, "no key (TXT record)", advice);
            return;
        }
        Some(TxtAnswer::Found(texts)) => texts,
    };
    let [text] = texts.as_slice() else {
        let seen = format!("{} TXT records; verifiers may take any of them", texts.len());
        findings.fail(check, name, seen, "Leave one: a selector has one key (RFC 6376 §3.6.2.2).");
        return;
    };
    match Key::parse(&String::from_utf8_lossy(text)) {
        Err(why) => {
            let advice = "Publish the record as the signer printed it, in strings of at most 255 octets each.";
            findings.fail(check, name, format!("not a key: {why}"), advice);
        }
        Ok(Key { kind: Kind::Revoked, .. }) => {
            let advice = "Publish a new key under a new selector, and sign with that.";
            findings.fail(check, name, "the key is revoked (p= is empty)", advice);
        }
        Ok(Key { kind, testing }) => {
            let long = match kind {
                Kind::Rsa(bits) => format!("RSA, {bits} bits"),
                Kind::Ed25519 | Kind::Revoked => "Ed25519".to_owned(),
            };
            match kind {
                Kind::Rsa(bits) if bits < MIN_BITS => {
                    let advice = "Sign with a new key of 2048 bits: verifiers ignore shorter ones than 1024 (RFC 8301).";
                    findings.fail(check, name, long, advice);
                }
                _ if testing => {
                    let advice = "Remove t=y once signing works: verifiers may treat the mail as if it were not signed.";
                    findings.warn(check, name, format!("{long}, in test (t=y)"), advice);
                }
                Kind::Rsa(bits) if bits < GOOD_BITS => {
                    findings.warn(
                        check,
                        name,
                        long,
                        "Sign with a new key of 2048 bits (RFC 8301 §3.2).",
                    );
                }
                _ => findings.pass(check, name, long),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    kind: Kind,
    testing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa(u32),
    Ed25519,
    Revoked,
}

impl Key {
    fn parse(text: &str) -> Result<Self, String> {
        let tags = tags(text);
        if tags.first().is_some_and(|(name, value)| name == "v" && value != "DKIM1") {
            return Err("v= is not DKIM1".to_owned());
        }
        let testing =
            value(&tags, "t").is_some_and(|flags| flags.split(':').any(|flag| flag.trim() == "y"));
        let key = value(&tags, "p").ok_or("it has no p=")?;
        let base64: String = key.chars().filter(|c| !c.is_whitespace()).collect();
        if base64.is_empty() {
            return Ok(Self { kind: Kind::Revoked, testing });
        }
        let octets = BASE64.decode(base64.as_bytes());
        let octets = octets.map_err(|error| format!("p= is no base64: {error}"))?;
        let kind = match value(&tags, "k").unwrap_or("rsa").to_ascii_lowercase().as_str() {
            "rsa" => Kind::Rsa(rsa_bits(&octets).ok_or("p= holds no RSA key")?),
            "ed25519" if octets.len() == 32 => Kind::Ed25519,
            "ed25519" => {
                return Err(format!("p= holds {} octets, an Ed25519 key has 32", octets.len()));
            }
            other => return Err(format!("k={other} is no kind of key that verifiers know")),
        };
        Ok(Self { kind, testing })
    }
}

/// Of a SubjectPublicKeyInfo, or of the bare RSAPublicKey that RFC 6376 speaks of.
fn rsa_bits(der: &[u8]) -> Option<u32> {
    let bare = SubjectPublicKeyInfoRef::try_from(der).ok();
    let bare = bare.and_then(|info| info.subject_public_key.as_bytes()).unwrap_or(der);
    let modulus = RsaPublicKeyRef::try_from(bare).ok()?.modulus;
    let octets = modulus.as_bytes();
    let first = octets.first()?;
    let whole = u32::try_from(octets.len()).ok()?.checked_mul(8)?;
    Some(whole - first.leading_zeros())
}
