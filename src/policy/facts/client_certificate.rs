//! The TLS certificate of a client, as rules and reports have it.

use serde::{Deserialize, Serialize};

/// A certificate whose key the client proved to have. Everything in it but the key is its issuer's claim, who is anybody unless
/// it is `verified`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// SHA-256 of the certificate (DER), in lower-case hexadecimal.
    pub sha256: String,
    /// SHA-256 of its SubjectPublicKeyInfo (DER), as in a TLSA record with selector 1 (RFC 6698 §2.1.2).
    pub public_key_sha256: String,
    /// Of the subject, at most 64 characters (RFC 5280 appendix A.1); for people only.
    pub common_name: Option<String>,
    /// DNS names of subjectAltName, in lower case; the first [`Self::MOST_NAMES`].
    pub names: Vec<String>,
    /// An authority of `tls.client_ca` vouches for it, now.
    pub verified: bool,
}

impl ClientCertificate {
    pub const MOST_NAMES: usize = 8;
    /// Bytes of a DNS name (RFC 1035 §2.3.4), and of a common name with the longest characters.
    pub const LONGEST_NAME: usize = 255;
}

/// What is known about the certificate of a client inside TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PresentedCertificate {
    /// A capture does not have it.
    #[default]
    NotKnown,
    None,
    Certificate(Box<ClientCertificate>),
}

impl PresentedCertificate {
    pub fn of(presented: Option<&ClientCertificate>) -> Self {
        presented.map_or(Self::None, |certificate| Self::Certificate(Box::new(certificate.clone())))
    }

    pub fn certificate(&self) -> Option<&ClientCertificate> {
        match self {
            Self::Certificate(certificate) => Some(certificate),
            Self::NotKnown | Self::None => None,
        }
    }
}
