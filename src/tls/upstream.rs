//! The gateway as a client: what it verifies of an upstream's certificate.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use super::certificate::chain;
use super::error::TlsError;

/// How the certificates of upstreams are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamVerification {
    /// Any certificate: TLS then keeps out only those who listen.
    None,
    /// A chain to a certificate of this PEM file; to one that the system trusts without a file.
    Authorities(Option<PathBuf>),
}

/// The configuration of TLS with upstreams.
///
/// # Errors
/// The file cannot be read or holds no certificate, or the system has none.
pub fn upstream_config(verification: &UpstreamVerification) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match verification {
        UpstreamVerification::None => {
            Arc::new(AnyCertificate(provider.signature_verification_algorithms))
        }
        UpstreamVerification::Authorities(file) => {
            let roots = match file {
                Some(path) => roots_of(path)?,
                None => system_roots()?,
            };
            verifier(roots, &provider)?
        }
    };
    config(provider, verifier)
}

/// As without verification, for a survey: it never resumes a session, because a resumed one has neither the server's
/// certificates nor a large ClientHello.
///
/// # Errors
/// None is known.
pub fn survey_config() -> Result<Arc<ClientConfig>, TlsError> {
    upstream_config(&UpstreamVerification::None).map(without_resumption)
}

fn without_resumption(config: Arc<ClientConfig>) -> Arc<ClientConfig> {
    let mut config = Arc::unwrap_or_clone(config);
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// As [`survey_config`], with a ClientHello of some 250 octets: it offers no key exchange with large shares.
///
/// # Errors
/// None is known.
pub fn small_hello_config() -> Result<Arc<ClientConfig>, TlsError> {
    let kx_groups = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    let provider = Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() });
    let verifier = Arc::new(AnyCertificate(provider.signature_verification_algorithms));
    config(provider, verifier).map(without_resumption)
}

fn config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Rustls)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// Verifies chains to the certificates that the system trusts.
///
/// # Errors
/// The system has none.
pub fn system_verifier() -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    verifier(system_roots()?, &Arc::new(aws_lc_rs::default_provider()))
}

fn verifier(
    roots: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let builder =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    builder.build().map_err(|why| TlsError::Rustls(Error::General(why.to_string())))
}

pub(super) fn roots_of(path: &Path) -> Result<RootCertStore, TlsError> {
    let certificates = chain(path)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let added = roots.add(certificate);
        added.map_err(|why| TlsError::Damaged { path: path.to_owned(), why: why.to_string() })?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Systems have odd ones among them.
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(TlsError::NoSystemRoots);
    }
    Ok(roots)
}

/// Accepts every certificate whose key the server proves to have.
#[derive(Debug)]
pub(super) struct AnyCertificate(pub(super) WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_come_from_a_file_of_certificates() {
        let of = |file: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(file);
            upstream_config(&UpstreamVerification::Authorities(Some(path)))
        };
        assert!(of("ecdsa.pem").is_ok());
        assert!(matches!(of("ecdsa.key"), Err(TlsError::NoCertificate { .. })));
        assert!(matches!(of("missing.pem"), Err(TlsError::Read { .. })));
    }
}
