//! Results of DKIM, in the words of RFC 8601 §2.7.1, and the reasons for them.

use crate::label::labels;

labels! {
    /// What a signature is worth (RFC 8601 §2.7.1).
    pub enum DkimOutcome {
        /// The message has no signature.
        None = "none",
        Pass = "pass",
        /// The signature does not match the message, or has expired.
        Fail = "fail",
        /// The signature is by an algorithm or a key that is not accepted (RFC 8301).
        Policy = "policy",
        /// It does not count: the key is in test mode and the signature does not match.
        Neutral = "neutral",
        /// The key could not be looked up.
        Temperror = "temperror",
        /// The signature or the key is malformed, or there is no key.
        Permerror = "permerror",
    }
}

labels! {
    /// Why a signature does not pass.
    pub enum DkimReason {
        BodyHashMismatch = "body_hash_mismatch",
        SignatureMismatch = "signature_mismatch",
        /// `x=` has passed, or is not later than `t=`.
        Expired = "expired",
        /// RFC 8301 §3.1.
        RsaSha1 = "rsa_sha1",
        /// RFC 8301 §3.2: less than 1024 bits.
        ShortKey = "short_key",
        LookupFailed = "lookup_failed",
        NoKey = "no_key",
        /// An empty `p=`.
        KeyRevoked = "key_revoked",
        MalformedKey = "malformed_key",
        /// `k=` is unknown, or the RSA key has more than 8192 bits.
        UnsupportedKey = "unsupported_key",
        /// `k=` does not fit `a=`.
        KeyTypeMismatch = "key_type_mismatch",
        /// `h=` of the key.
        HashNotAllowed = "hash_not_allowed",
        /// `s=` of the key.
        NotForEmail = "not_for_email",
        /// `t=s` of the key, and the domain of `i=` is below `d=`.
        IdentityNotAllowed = "identity_not_allowed",
        /// No tag list, or a tag with a malformed value.
        MalformedSignature = "malformed_signature",
        DuplicateTag = "duplicate_tag",
        MissingTag = "missing_tag",
        UnsupportedVersion = "unsupported_version",
        UnsupportedAlgorithm = "unsupported_algorithm",
        UnsupportedCanonicalization = "unsupported_canonicalization",
        /// `q=` does not include `dns/txt`.
        UnsupportedQuery = "unsupported_query",
        FromNotSigned = "from_not_signed",
        /// The domain of `i=` is not `d=` or below it.
        IdentityOutsideDomain = "identity_outside_domain",
    }
}

impl DkimReason {
    pub const fn outcome(self) -> DkimOutcome {
        match self {
            Self::BodyHashMismatch | Self::SignatureMismatch | Self::Expired => DkimOutcome::Fail,
            Self::RsaSha1 | Self::ShortKey => DkimOutcome::Policy,
            Self::LookupFailed => DkimOutcome::Temperror,
            Self::NoKey
            | Self::KeyRevoked
            | Self::MalformedKey
            | Self::UnsupportedKey
            | Self::KeyTypeMismatch
            | Self::HashNotAllowed
            | Self::NotForEmail
            | Self::IdentityNotAllowed
            | Self::MalformedSignature
            | Self::DuplicateTag
            | Self::MissingTag
            | Self::UnsupportedVersion
            | Self::UnsupportedAlgorithm
            | Self::UnsupportedCanonicalization
            | Self::UnsupportedQuery
            | Self::FromNotSigned
            | Self::IdentityOutsideDomain => DkimOutcome::Permerror,
        }
    }
}

/// The result of one signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DkimResult {
    pub outcome: DkimOutcome,
    /// `None` only for pass.
    pub reason: Option<DkimReason>,
    /// The key has `t=y`. RFC 6376 §3.6.1: a signature that does not match is no worse than none, so that it is neutral. One
    /// that matches passes, as at other verifiers, since many keys never left test mode.
    pub is_testing: bool,
}

impl DkimResult {
    /// The key could not be looked up now.
    pub const LOOKUP_FAILED: Self = Self::failure(DkimReason::LookupFailed);

    pub(super) const PASS: Self =
        Self { outcome: DkimOutcome::Pass, reason: None, is_testing: false };

    pub(super) const fn failure(reason: DkimReason) -> Self {
        Self { outcome: reason.outcome(), reason: Some(reason), is_testing: false }
    }

    /// The same under a key with `t=y`.
    pub(super) const fn in_test_mode(self) -> Self {
        let outcome = match self.outcome {
            DkimOutcome::Fail => DkimOutcome::Neutral,
            other => other,
        };
        Self { outcome, is_testing: true, ..self }
    }
}
