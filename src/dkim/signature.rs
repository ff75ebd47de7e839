//! The tags of a DKIM-Signature field (RFC 6376 §3.5).

use std::str;

use super::canonical::Canonicalization;
use super::domain::{canonical_domain, is_within};
use super::encoding::{base64, quoted_printable};
use super::outcome::DkimReason;
use super::tag_list::{TagList, TagListError};

/// Octets of `b=`: of an RSA key of 8192 bits, more than any verifier takes.
const MAX_SIGNATURE: usize = 1024;
/// Octets of `i=`.
const MAX_IDENTITY: usize = 998;

/// An algorithm of `a=` that is accepted. Both sign SHA-256 hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DkimAlgorithm {
    RsaSha256,
    /// RFC 8463.
    Ed25519Sha256,
}

impl DkimAlgorithm {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

/// The tags of a signature that can be verified with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimSignature {
    /// `d=`, in lower case, U-labels as A-labels.
    pub domain: String,
    /// `s=`, likewise.
    pub selector: String,
    /// `i=`, decoded; by default `@` and the domain.
    pub identity: String,
    pub algorithm: DkimAlgorithm,
    pub header_canonicalization: Canonicalization,
    pub body_canonicalization: Canonicalization,
    /// `l=`: octets of the canonicalised body that are signed.
    pub body_limit: Option<u64>,
    /// `t=`, in seconds of Unix time.
    pub signed_at: Option<u64>,
    /// `x=`, in seconds of Unix time.
    pub expires_at: Option<u64>,
    /// The domain of `i=` is below `d=`.
    pub(super) identity_is_below: bool,
    pub(super) body_hash: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

/// A signature that no key can make valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedSignature {
    pub reason: DkimReason,
    /// `d=`, if it is a domain name.
    pub domain: Option<String>,
    /// `s=`, if it is one.
    pub selector: Option<String>,
}

impl DkimSignature {
    /// The name of the TXT record with the key.
    pub fn key_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// The tags of a field's value, and the names in `h=` by [`signed_names`].
    pub(super) fn parse(value: &[u8]) -> Result<Self, RejectedSignature> {
        let tags = TagList::parse(value).map_err(|error| {
            let reason = match error {
                TagListError::Malformed => DkimReason::MalformedSignature,
                TagListError::Duplicate => DkimReason::DuplicateTag,
            };
            RejectedSignature { reason, domain: None, selector: None }
        })?;
        Self::from_tags(&tags).map_err(|reason| RejectedSignature {
            reason,
            domain: tags.get("d").and_then(canonical_domain),
            selector: tags.get("s").and_then(canonical_domain),
        })
    }

    fn from_tags(tags: &TagList<'_>) -> Result<Self, DkimReason> {
        let required = |name| tags.get(name).ok_or(DkimReason::MissingTag);
        if required("v")? != b"1" {
            return Err(DkimReason::UnsupportedVersion);
        }
        let [a, b, bh, d, h, s] = ["a", "b", "bh", "d", "h", "s"].map(required);
        let (a, b, bh, d, h, s) = (a?, b?, bh?, d?, h?, s?);
        let algorithm = algorithm(a)?;
        let (header_canonicalization, body_canonicalization) = canonicalizations(tags)?;
        if tags.get("q").is_some() && !tags.elements("q").any(|method| method == b"dns/txt") {
            return Err(DkimReason::UnsupportedQuery);
        }
        let octets = |value| base64(value).ok_or(DkimReason::MalformedSignature);
        let (signature, body_hash) = (octets(b)?, octets(bh)?);
        if signature.is_empty() || signature.len() > MAX_SIGNATURE || body_hash.len() != 32 {
            return Err(DkimReason::MalformedSignature);
        }
        let domain = canonical_domain(d).ok_or(DkimReason::MalformedSignature)?;
        let selector = canonical_domain(s).ok_or(DkimReason::MalformedSignature)?;
        let (identity, identity_is_below) = identity(tags, &domain)?;
        if h.is_empty() {
            return Err(DkimReason::MalformedSignature);
        }
        if !signed_names(h).any(|name| name.eq_ignore_ascii_case(b"from")) {
            return Err(DkimReason::FromNotSigned);
        }
        Ok(Self {
            domain,
            selector,
            identity,
            algorithm,
            header_canonicalization,
            body_canonicalization,
            body_limit: number(tags, "l")?,
            signed_at: number(tags, "t")?,
            expires_at: number(tags, "x")?,
            identity_is_below,
            body_hash,
            signature,
        })
    }

    /// Whether `x=` has passed at `now`, in seconds of Unix time, or is not later than `t=`.
    pub(super) fn is_expired(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|expiry| {
            expiry < now || self.signed_at.is_some_and(|signed| expiry <= signed)
        })
    }
}

/// The names in the `h=` of a signature's value; none if it has no such tag.
pub(super) fn names_of(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let list = TagList::parse(value).ok().and_then(|tags| tags.get("h"));
    list.into_iter().flat_map(signed_names)
}

fn signed_names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b':').map(<[u8]>::trim_ascii)
}

/// The words of tags are compared without case, as the grammar of RFC 6376 has them.
fn algorithm(value: &[u8]) -> Result<DkimAlgorithm, DkimReason> {
    match value.to_ascii_lowercase().as_slice() {
        b"rsa-sha256" => Ok(DkimAlgorithm::RsaSha256),
        b"ed25519-sha256" => Ok(DkimAlgorithm::Ed25519Sha256),
        b"rsa-sha1" => Err(DkimReason::RsaSha1),
        _ => Err(DkimReason::UnsupportedAlgorithm),
    }
}

/// Of header and body, by default "simple".
fn canonicalizations(
    tags: &TagList<'_>,
) -> Result<(Canonicalization, Canonicalization), DkimReason> {
    let value = tags.get("c").unwrap_or(b"simple");
    let slash = value.iter().position(|byte| *byte == b'/').unwrap_or(value.len());
    let (header, body) = value.split_at_checked(slash).unwrap_or((value, b""));
    let one = |name: &[u8]| match name.to_ascii_lowercase().as_slice() {
        b"simple" => Ok(Canonicalization::Simple),
        b"relaxed" => Ok(Canonicalization::Relaxed),
        _ => Err(DkimReason::UnsupportedCanonicalization),
    };
    Ok((one(header)?, body.strip_prefix(b"/").map_or(Ok(Canonicalization::Simple), one)?))
}

/// `i=`, and whether its domain is below `domain`.
fn identity(tags: &TagList<'_>, domain: &str) -> Result<(String, bool), DkimReason> {
    let Some(value) = tags.get("i") else { return Ok((format!("@{domain}"), false)) };
    let decoded = quoted_printable(value).filter(|text| text.len() <= MAX_IDENTITY);
    let decoded = decoded.ok_or(DkimReason::MalformedSignature)?;
    let at =
        decoded.iter().rposition(|byte| *byte == b'@').ok_or(DkimReason::MalformedSignature)?;
    let own = decoded.get(at + 1..).and_then(canonical_domain);
    let own = own.ok_or(DkimReason::MalformedSignature)?;
    if !is_within(&own, domain) {
        return Err(DkimReason::IdentityOutsideDomain);
    }
    Ok((String::from_utf8_lossy(&decoded).into_owned(), own != domain))
}

/// A decimal number; one that is larger than any is the largest.
fn number(tags: &TagList<'_>, name: &str) -> Result<Option<u64>, DkimReason> {
    let Some(value) = tags.get(name) else { return Ok(None) };
    let is_number = (1..=76).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    let digits = str::from_utf8(value).ok().filter(|_| is_number);
    let digits = digits.ok_or(DkimReason::MalformedSignature)?;
    Ok(Some(digits.parse().unwrap_or(u64::MAX)))
}
