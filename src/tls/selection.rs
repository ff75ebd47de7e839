//! Which certificate a client receives.

use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::CertificateFacts;

/// All certificates, the default first.
#[derive(Debug)]
pub(super) struct CertificateStore(Vec<(CertificateFacts, Arc<CertifiedKey>)>);

impl CertificateStore {
    pub(super) const fn new(certificates: Vec<(CertificateFacts, Arc<CertifiedKey>)>) -> Self {
        Self(certificates)
    }

    /// Those for `server_name`; without one, and for a name that none has, those with the names of the first. Many senders name
    /// no server, or the domain that they send to.
    fn candidates(&self, server_name: Option<&str>) -> Vec<&Arc<CertifiedKey>> {
        let named = |name: &str| {
            let fits =
                self.0.iter().filter(|(facts, _)| facts.names.iter().any(|own| fits(own, name)));
            fits.map(|(_, key)| key).collect::<Vec<_>>()
        };
        let named = server_name.map(|name| named(&name.to_ascii_lowercase())).unwrap_or_default();
        if !named.is_empty() {
            return named;
        }
        let Some((first, _)) = self.0.first() else { return Vec::new() };
        let alike = self.0.iter().filter(|(facts, _)| facts.names == first.names);
        alike.map(|(_, key)| key).collect()
    }
}

impl ResolvesServerCert for CertificateStore {
    /// The first that the client can verify, such as RSA where it does not know ECDSA.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(hello.server_name());
        let verifiable =
            |key: &&&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = candidates.iter().find(verifiable).or(candidates.first());
        chosen.map(|key| Arc::clone(key))
    }
}

/// RFC 9525 §6.3: `*` stands for one whole label.
fn fits(own: &str, name: &str) -> bool {
    match own.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => own == name,
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs::default_provider;

    use super::*;
    use crate::tls::CertificateFiles;
    use crate::tls::certificate::load_certificate;

    #[test]
    fn a_wildcard_is_one_label() {
        assert!(fits("mx.example.org", "mx.example.org"));
        assert!(fits("*.example.org", "mx.example.org"));
        assert!(!fits("*.example.org", "a.mx.example.org"));
        assert!(!fits("*.example.org", "example.org"));
    }

    #[test]
    fn a_name_has_its_certificates_and_any_other_the_default() {
        let load = |name: &str| {
            let path =
                |end| format!("{}/tests/tls/{name}.{end}", env!("CARGO_MANIFEST_DIR")).into();
            let files = CertificateFiles { certificate: path("pem"), key: path("key") };
            load_certificate(&files, &default_provider()).unwrap()
        };
        let certificates = ["ecdsa", "other", "rsa"].map(load);
        let keys = certificates.clone().map(|(_, key)| key);
        let store = CertificateStore::new(certificates.into());
        let chosen = |name: Option<&str>| -> Vec<usize> {
            let candidates = store.candidates(name).into_iter();
            let position = |key| keys.iter().position(|own| Arc::ptr_eq(own, key)).unwrap();
            candidates.map(position).collect()
        };
        assert_eq!(chosen(Some("MX.example.org")), [0, 2]);
        assert_eq!(chosen(Some("a.mail.example.org")), [0, 2]);
        assert_eq!(chosen(Some("other.example.net")), [1]);
        assert_eq!(chosen(Some("example.com")), [0, 2]);
        assert_eq!(chosen(None), [0, 2]);
    }
}
