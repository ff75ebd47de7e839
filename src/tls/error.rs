//! Why certificates cannot be used.

use std::io;
use std::path::PathBuf;

/// No message contains anything of a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    #[error("cannot read {}: {why}", path.display())]
    Read { path: PathBuf, why: io::Error },
    #[error("{} holds no certificate: expected PEM with `-----BEGIN CERTIFICATE-----`", path.display())]
    NoCertificate { path: PathBuf },
    #[error(
        "{} holds no private key: expected PEM with `-----BEGIN PRIVATE KEY-----`, not encrypted by a passphrase",
        path.display()
    )]
    NoKey { path: PathBuf },
    #[error("{} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error(
        "the key in {} is not that of the certificate in {}: a renewal may have replaced only one of them",
        key.display(), certificate.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the key in {} cannot be used: {why}; expected ECDSA (P-256, P-384), RSA or Ed25519", path.display())]
    UnusableKey { path: PathBuf, why: rustls::Error },
    #[error("the certificate in {} expired {at}: renew it", path.display())]
    Expired { path: PathBuf, at: String },
    #[error(
        "this host has no certificates of authorities: install ca-certificates, or set upstream.tls_ca to a PEM file"
    )]
    NoSystemRoots,
    #[error("{0}")]
    Rustls(rustls::Error),
}
