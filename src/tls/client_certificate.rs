//! Certificates of clients: any is accepted, as mail servers present all kinds, and reported with what is certain about it.
//!
//! The handshake proves that the client has the key (RFC 8446 §4.4.3). Keys that this TLS library cannot verify, such as RSA below
//! 2048 bits, prove nothing: such a certificate is treated as if there were none, since a failed handshake would cost mail.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use sha2::{Digest as _, Sha256};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, UintRef};
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::error::TlsError;
use super::upstream::roots_of;
use crate::policy::facts::ClientCertificate;

/// Characters of a common name (RFC 5280 appendix A.1, ub-common-name).
const LONGEST_COMMON_NAME: usize = 64;
/// Bytes of an RSA modulus that signatures are verified with: 2048 to 8192 bits.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;
/// DER of rsaEncryption (RFC 3279 §2.3.1).
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// What is requested of clients, and found out about what they present.
#[derive(Clone, Debug)]
pub struct ClientCertificates {
    algorithms: WebPkiSupportedAlgorithms,
    /// With `tls.client_ca`.
    authorities: Option<Arc<dyn ClientCertVerifier>>,
}

impl ClientCertificates {
    /// # Errors
    /// The file of authorities cannot be read, or has no certificate.
    pub(super) fn load(
        ca: Option<&Path>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let load = |path: &Path| {
            let roots = Arc::new(roots_of(path)?);
            let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
            builder.build().map_err(|why| TlsError::Rustls(Error::General(why.to_string())))
        };
        let authorities = ca.map(load).transpose()?;
        Ok(Self { algorithms: provider.signature_verification_algorithms, authorities })
    }

    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(AnyClientCertificate(self.algorithms))
    }

    /// What is certain about a chain that a client presented, its own certificate first, also in a session that is resumed now.
    /// `None`: nothing, as its key proved nothing.
    pub fn inspect(&self, chain: &[CertificateDer<'_>]) -> Option<ClientCertificate> {
        let (own, intermediates) = chain.split_first()?;
        let certificate = Certificate::from_der(own).ok()?;
        let key = PublicKey::of(&certificate)?;
        if !key.is_verifiable(&self.algorithms) {
            return None;
        }
        let verified = self.authorities.as_ref().is_some_and(|authorities| {
            authorities.verify_client_cert(own, intermediates, UnixTime::now()).is_ok()
        });
        Some(ClientCertificate {
            sha256: hexadecimal(&Sha256::digest(own)),
            public_key_sha256: hexadecimal(&Sha256::digest(&key.info)),
            common_name: common_name(&certificate),
            names: names(&certificate),
            verified,
        })
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn common_name(certificate: &Certificate) -> Option<String> {
    let name = certificate.tbs_certificate().subject().common_name().ok()??;
    Some(name.value().chars().take(LONGEST_COMMON_NAME).collect())
}

fn names(certificate: &Certificate) -> Vec<String> {
    let found = certificate.tbs_certificate().get_extension::<SubjectAltName>();
    let Ok(Some((_, SubjectAltName(names)))) = found else { return Vec::new() };
    let names = names.into_iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    });
    let names = names.filter(|name| name.len() <= ClientCertificate::LONGEST_NAME);
    names.take(ClientCertificate::MOST_NAMES).collect()
}

/// The key of a certificate of any version: rustls' own functions take only version 3.
struct PublicKey {
    /// SubjectPublicKeyInfo, in DER.
    info: Vec<u8>,
    /// The content of its AlgorithmIdentifier.
    algorithm: Vec<u8>,
    key: Vec<u8>,
}

impl PublicKey {
    fn of(certificate: &Certificate) -> Option<Self> {
        let info = certificate.tbs_certificate().subject_public_key_info();
        let algorithm = info.algorithm.to_der().ok()?;
        Some(Self {
            info: info.to_der().ok()?,
            algorithm: AnyRef::from_der(&algorithm).ok()?.value().to_vec(),
            key: info.subject_public_key.as_bytes()?.to_vec(),
        })
    }

    fn fits(&self, algorithm: &dyn SignatureVerificationAlgorithm) -> bool {
        *algorithm.public_key_alg_id() == *self.algorithm
    }

    /// Whether a signature by this key can be verified at all.
    fn is_verifiable(&self, algorithms: &WebPkiSupportedAlgorithms) -> bool {
        let is_rsa = self.algorithm.windows(RSA_ENCRYPTION.len()).any(|oid| oid == RSA_ENCRYPTION);
        algorithms.all.iter().any(|algorithm| self.fits(*algorithm))
            && (!is_rsa || self.rsa_modulus().is_some_and(|length| RSA_MODULUS.contains(&length)))
    }

    /// Its length in bytes.
    fn rsa_modulus(&self) -> Option<usize> {
        let sequence = AnyRef::from_der(&self.key).ok()?;
        let modulus = sequence.sequence(|reader| {
            let modulus = UintRef::decode(reader)?;
            UintRef::decode(reader)?; // The exponent.
            Ok::<_, x509_cert::der::Error>(modulus.as_bytes().len())
        });
        modulus.ok()
    }
}

/// Requests a certificate and accepts every one.
#[derive(Debug)]
struct AnyClientCertificate(WebPkiSupportedAlgorithms);

impl AnyClientCertificate {
    /// Whether the client has the key. Of a key that cannot be verified that stays open, see [`ClientCertificates::inspect`].
    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
        most_algorithms: usize,
    ) -> Result<HandshakeSignatureValid, Error> {
        let parsed = Certificate::from_der(certificate).ok();
        let key = parsed.as_ref().and_then(PublicKey::of);
        let Some(key) = key.filter(|key| key.is_verifiable(&self.0)) else {
            return Ok(HandshakeSignatureValid::assertion());
        };
        let of_scheme = self.0.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let algorithms = of_scheme.map(|(_, algorithms)| *algorithms).unwrap_or_default();
        let mut fitting =
            algorithms.iter().take(most_algorithms).filter(|algorithm| key.fits(**algorithm));
        let is_valid = fitting.any(|algorithm| {
            algorithm.verify_signature(&key.key, message, signed.signature()).is_ok()
        });
        match is_valid {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(Error::InvalidCertificate(CertificateError::BadSignature)),
        }
    }
}

impl ClientCertVerifier for AnyClientCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None, so that clients present what they have.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // The scheme does not fix the curve (RFC 5246 §7.4.1.4.1).
        self.verify(message, certificate, signed, usize::MAX)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        use SignatureScheme::{RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512};
        // RFC 8446 §4.2.3: in certificates only.
        if [RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512].contains(&signed.scheme) {
            return Err(Error::InvalidCertificate(CertificateError::BadSignature));
        }
        self.verify(message, certificate, signed, 1)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
