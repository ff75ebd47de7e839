//! The gateway's own TLS: certificates and which of them a client receives, and what is verified of an upstream.
//!
//! The keys stay in memory and appear in no message. What is loaded is complete and usable, or nothing is: a renewal that
//! does not fit never replaces what works.

mod certificate;
mod client_certificate;
mod error;
mod selection;
mod upstream;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{ServerConfig, version};

pub use self::certificate::CertificateFacts;
use self::certificate::load_certificate;
pub use self::client_certificate::ClientCertificates;
pub use self::error::TlsError;
use self::selection::CertificateStore;
pub use self::upstream::{
    UpstreamVerification, small_hello_config, survey_config, system_verifier, upstream_config,
};
use crate::label::labels;
use crate::time::Timestamp;

labels! {
    /// `tls.min_version`: the oldest version that clients may use.
    #[derive(Default)]
    pub enum MinVersion {
        #[default]
        Tls12 = "1.2",
        Tls13 = "1.3",
    }
}

/// A certificate chain and its key, both in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The server's certificate first, then those that lead to a root.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// Never empty; the first is the default.
    pub certificates: Vec<CertificateFiles>,
    pub min_version: MinVersion,
    pub client_certificate: ClientCertificateMode,
    /// Certificates in PEM of the authorities that vouch for names in clients' certificates.
    pub client_ca: Option<PathBuf>,
}

labels! {
    /// `tls.client_certificate`: whether clients are asked for a certificate.
    #[derive(Default)]
    pub enum ClientCertificateMode {
        #[default]
        Off = "off",
        /// They may have none, or any.
        Request = "request",
    }
}

/// Keys of session tickets, which change every six hours. They outlive a reload, so that clients can go on resuming.
///
/// A ticket contains the client's certificate. Sessions that begin without being asked for one have tickets of their own, which
/// do not count any more once certificates are requested.
#[derive(Clone, Debug)]
pub struct TicketKeys([Arc<dyn ProducesTickets>; ClientCertificateMode::ALL.len()]);

impl TicketKeys {
    /// # Errors
    /// The system has no random numbers.
    pub fn new() -> Result<Self, TlsError> {
        let ticketer = || aws_lc_rs::Ticketer::new().map_err(TlsError::Rustls);
        Ok(Self([ticketer()?, ticketer()?]))
    }

    fn of(&self, mode: ClientCertificateMode) -> Arc<dyn ProducesTickets> {
        let Self([off, request]) = self;
        match mode {
            ClientCertificateMode::Off => Arc::clone(off),
            ClientCertificateMode::Request => Arc::clone(request),
        }
    }
}

/// What was loaded from the files of [`TlsSettings`].
#[derive(Clone, Debug)]
pub struct LoadedTls {
    pub config: Arc<ServerConfig>,
    /// For the certificates that clients present, if they are asked for one.
    pub client_certificates: Option<Arc<ClientCertificates>>,
    /// In the order of the settings.
    pub certificates: Vec<CertificateFacts>,
}

impl LoadedTls {
    /// Reads certificates and keys.
    ///
    /// # Errors
    /// The first file that cannot be read, is no certificate or key, or does not fit the other.
    pub fn load(settings: &TlsSettings, tickets: &TicketKeys) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let loaded: Vec<_> = settings
            .certificates
            .iter()
            .map(|files| load_certificate(files, &provider))
            .collect::<Result<_, _>>()?;
        let certificates = loaded.iter().map(|(facts, _)| facts.clone()).collect();
        let versions: &[_] = match settings.min_version {
            MinVersion::Tls12 => &[&version::TLS13, &version::TLS12],
            MinVersion::Tls13 => &[&version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_protocol_versions(versions).map_err(TlsError::Rustls)?;
        let store = Arc::new(CertificateStore::new(loaded));
        let client_certificates = match settings.client_certificate {
            ClientCertificateMode::Off => None,
            ClientCertificateMode::Request => {
                let ca = settings.client_ca.as_deref();
                Some(Arc::new(ClientCertificates::load(ca, &provider)?))
            }
        };
        let builder = match &client_certificates {
            Some(requested) => builder.with_client_cert_verifier(requested.verifier()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(store);
        config.ticketer = tickets.of(settings.client_certificate);
        // A server that resumes by tickets keeps no sessions.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self { config: Arc::new(config), client_certificates, certificates })
    }

    /// The first certificate that is out of date at `now`.
    pub fn expired(&self, now: Timestamp) -> Option<&CertificateFacts> {
        self.certificates.iter().find(|certificate| certificate.not_after < now)
    }
}

#[cfg(test)]
mod tests;
