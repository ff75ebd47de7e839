//! One certificate chain with its key.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

use super::CertificateFiles;
use super::error::TlsError;
use crate::certificate_details::CertificateDetails;
use crate::time::Timestamp;

/// Names and validity of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub files: CertificateFiles,
    /// Host names (subjectAltName, RFC 5280 §4.2.1.6) in lower case; the first label may be `*`.
    pub names: Vec<String>,
    pub not_after: Timestamp,
}

impl CertificateFacts {
    /// The first name, for metrics, and the end of validity.
    pub fn name_and_end(&self) -> (String, Timestamp) {
        (self.names.first().cloned().unwrap_or_default(), self.not_after)
    }
}

/// # Errors
/// See [`super::LoadedTls::load`].
pub(super) fn load_certificate(
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<(CertificateFacts, Arc<CertifiedKey>), TlsError> {
    let chain = chain(&files.certificate)?;
    let facts = match chain.first() {
        Some(first) => facts(files, first)?,
        None => return Err(TlsError::NoCertificate { path: files.certificate.clone() }),
    };
    let key = key(&files.key)?;
    let unusable = |why| TlsError::UnusableKey { path: files.key.clone(), why };
    let key = provider.key_provider.load_private_key(key).map_err(unusable)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Some keys do not contain their public half.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => {
            let CertificateFiles { certificate, key } = files.clone();
            return Err(TlsError::Mismatch { certificate, key });
        }
        Err(why) => return Err(unusable(why)),
    }
    Ok((facts, Arc::new(certified)))
}

/// The certificates of a file, in their order.
///
/// # Errors
/// It cannot be read, or is damaged.
pub(super) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|why| damaged(path, &why))
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    match PrivateKeyDer::from_pem_slice(&read(path)?) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(TlsError::NoKey { path: path.to_owned() }),
        Err(why) => Err(damaged(path, &why)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|why| TlsError::Read { path: path.to_owned(), why })
}

fn damaged(path: &Path, why: &pem::Error) -> TlsError {
    TlsError::Damaged { path: path.to_owned(), why: why.to_string() }
}

fn facts(files: &CertificateFiles, der: &[u8]) -> Result<CertificateFacts, TlsError> {
    let damaged = |why: String| TlsError::Damaged { path: files.certificate.clone(), why };
    let details = CertificateDetails::parse(der).map_err(damaged)?;
    let CertificateDetails { names, not_after, .. } = details;
    Ok(CertificateFacts { files: files.clone(), names, not_after })
}
