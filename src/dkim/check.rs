//! A signature with what is known of its message, and its verification by a key (RFC 6376 §6.1).

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY as RSA_SHA256, UnparsedPublicKey,
};

use super::body_digest::BodyHash;
use super::key::{DkimKey, DkimKeyError, DkimPublicKey};
use super::outcome::{DkimOutcome, DkimReason, DkimResult};
use super::signature::{DkimAlgorithm, DkimSignature, RejectedSignature};

/// RFC 8301 §3.2: verifiers reject shorter keys.
const MIN_RSA_BITS: u32 = 1024;
/// Longer ones cost more time than a signature is worth, and no DNS answer has them.
const MAX_RSA_BITS: u32 = 8192;
/// RFC 6376 §3.6.2.2: several records at one name are undefined. So many are tried, in the order of the answer.
const MAX_RECORDS: usize = 4;

/// One signature of a message that was received in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureCheck {
    signature: Result<DkimSignature, RejectedSignature>,
    /// Hash of the signed fields and of the signature's own.
    header_hash: [u8; 32],
    body: BodyHash,
    covers_every_from: bool,
}

impl SignatureCheck {
    pub(super) const fn new(
        signature: DkimSignature,
        header_hash: [u8; 32],
        body: BodyHash,
        covers_every_from: bool,
    ) -> Self {
        Self { signature: Ok(signature), header_hash, body, covers_every_from }
    }

    pub(super) const fn rejected(signature: RejectedSignature) -> Self {
        let body = BodyHash { sha256: [0; 32], unsigned_octets: 0 };
        Self { signature: Err(signature), header_hash: [0; 32], body, covers_every_from: false }
    }

    /// The tags, or why no key can make the signature valid.
    ///
    /// # Errors
    /// A signature for which [`Self::verify`] needs no key.
    pub const fn signature(&self) -> Result<&DkimSignature, &RejectedSignature> {
        self.signature.as_ref()
    }

    /// `d=`.
    pub fn domain(&self) -> Option<&str> {
        match &self.signature {
            Ok(signature) => Some(&signature.domain),
            Err(rejected) => rejected.domain.as_deref(),
        }
    }

    /// `s=`.
    pub fn selector(&self) -> Option<&str> {
        match &self.signature {
            Ok(signature) => Some(&signature.selector),
            Err(rejected) => rejected.selector.as_deref(),
        }
    }

    /// The name of the TXT record that [`Self::verify`] needs.
    pub fn key_name(&self) -> Option<String> {
        self.signature.as_ref().ok().map(DkimSignature::key_name)
    }

    /// Whether `bh=` is the hash of the body.
    pub fn body_hash_matches(&self) -> bool {
        self.signature.as_ref().is_ok_and(|signature| signature.body_hash == self.body.sha256)
    }

    /// Octets of the canonicalised body beyond `l=`, which anybody may have added (RFC 6376 §8.2).
    pub const fn unsigned_octets(&self) -> u64 {
        self.body.unsigned_octets
    }

    /// Whether `h=` lists From as often as the message has it. Each signature covers one at least; one that was added later
    /// stands above it and may be what a reader sees (RFC 6376 §8.15).
    pub const fn covers_every_from(&self) -> bool {
        self.covers_every_from
    }

    /// The result by the TXT records of [`Self::key_name`], each with its strings joined; none means that there is no
    /// record. `now`: seconds of Unix time.
    pub fn verify(&self, key_records: &[Vec<u8>], now: u64) -> DkimResult {
        let signature = match &self.signature {
            Ok(signature) => signature,
            Err(rejected) => return DkimResult::failure(rejected.reason),
        };
        let mut result = DkimResult::failure(DkimReason::NoKey);
        for record in key_records.iter().take(MAX_RECORDS) {
            let by_this = self.verify_by_record(signature, record, now);
            if by_this.outcome == DkimOutcome::Pass {
                return by_this;
            }
            // A record that is a key explains more than one that is none.
            let is_unknown = matches!(
                result.reason,
                Some(DkimReason::NoKey | DkimReason::MalformedKey | DkimReason::UnsupportedKey)
            );
            if is_unknown && by_this.reason != Some(DkimReason::NoKey) {
                result = by_this;
            }
        }
        result
    }

    fn verify_by_record(&self, signature: &DkimSignature, record: &[u8], now: u64) -> DkimResult {
        let key = match DkimKey::parse(record) {
            Ok(key) => key,
            Err(DkimKeyError::Version) => return DkimResult::failure(DkimReason::NoKey),
            Err(DkimKeyError::Type(_)) => return DkimResult::failure(DkimReason::UnsupportedKey),
            Err(_) => return DkimResult::failure(DkimReason::MalformedKey),
        };
        let result = match self.verify_by_key(signature, &key, now) {
            Ok(()) => DkimResult::PASS,
            Err(reason) => DkimResult::failure(reason),
        };
        if key.is_testing { result.in_test_mode() } else { result }
    }

    fn verify_by_key(
        &self,
        signature: &DkimSignature,
        key: &DkimKey,
        now: u64,
    ) -> Result<(), DkimReason> {
        let public_key = key.key.as_ref().ok_or(DkimReason::KeyRevoked)?;
        let is_of_type = match public_key {
            DkimPublicKey::Rsa { .. } => signature.algorithm == DkimAlgorithm::RsaSha256,
            DkimPublicKey::Ed25519(_) => signature.algorithm == DkimAlgorithm::Ed25519Sha256,
        };
        let requirements = [
            (key.is_for_email, DkimReason::NotForEmail),
            (key.allows_sha256, DkimReason::HashNotAllowed),
            (is_of_type, DkimReason::KeyTypeMismatch),
            (!(key.is_strict && signature.identity_is_below), DkimReason::IdentityNotAllowed),
            (!signature.is_expired(now), DkimReason::Expired),
            (self.body_hash_matches(), DkimReason::BodyHashMismatch),
        ];
        if let Some((_, reason)) = requirements.into_iter().find(|(is_met, _)| !is_met) {
            return Err(reason);
        }
        let is_valid = match public_key {
            DkimPublicKey::Rsa { bits, .. } if *bits < MIN_RSA_BITS => {
                return Err(DkimReason::ShortKey);
            }
            DkimPublicKey::Rsa { bits, .. } if *bits > MAX_RSA_BITS => {
                return Err(DkimReason::UnsupportedKey);
            }
            DkimPublicKey::Rsa { der, .. } => {
                digest::Digest::import_less_safe(&self.header_hash, &digest::SHA256)
                    .and_then(|hash| {
                        UnparsedPublicKey::new(&RSA_SHA256, der)
                            .verify_digest(&hash, &signature.signature)
                    })
                    .is_ok()
            }
            // RFC 8463 §3: what is signed is the hash.
            DkimPublicKey::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key)
                .verify(&self.header_hash, &signature.signature)
                .is_ok(),
        };
        if is_valid { Ok(()) } else { Err(DkimReason::SignatureMismatch) }
    }
}
