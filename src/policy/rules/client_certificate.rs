//! The condition on a client's TLS certificate.

use super::domains::Domains;
use super::subject::Subject;
use crate::policy::facts::{ClientCertificate, DomainName, FactState, PresentedCertificate};

/// Any of these; empty matches every session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateCondition {
    /// SHA-256 of the certificate or of its public key, in lower-case hexadecimal.
    pub fingerprints: Vec<String>,
    /// Of a verified certificate: another could have any name.
    pub names: Domains,
}

impl CertificateCondition {
    pub fn is_empty(&self) -> bool {
        self.fingerprints.is_empty() && self.names.is_empty()
    }

    fn matches(&self, certificate: &ClientCertificate) -> bool {
        let ClientCertificate { sha256, public_key_sha256, names, verified, .. } = certificate;
        let has = |own: &String| own == sha256 || own == public_key_sha256;
        let is_named =
            |name: &String| DomainName::parse(name).is_some_and(|name| self.names.contain(&name));
        self.fingerprints.iter().any(has) || *verified && names.iter().any(is_named)
    }

    /// Unknown only for a capture that lacks the certificate of a session inside TLS.
    pub(super) fn state(
        &self,
        subject: &Subject<'_>,
        presented: &PresentedCertificate,
    ) -> FactState {
        if self.is_empty() {
            return FactState::True;
        }
        match presented {
            PresentedCertificate::NotKnown if subject.tls => FactState::Unknown,
            PresentedCertificate::Certificate(certificate)
                if subject.tls && self.matches(certificate) =>
            {
                FactState::True
            }
            _ => FactState::False,
        }
    }
}
