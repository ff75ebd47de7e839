//! What TLS with a client needs.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

use crate::policy::facts::ClientCertificate;

/// What is certain about the chain that a client presented; empty without one.
pub type CertificateInspector =
    Arc<dyn Fn(&[CertificateDer<'static>]) -> Option<ClientCertificate> + Send + Sync>;

/// TLS with clients: certificates and versions, and what becomes of the clients' own certificates.
#[derive(Clone)]
pub struct ClientTls {
    pub config: Arc<ServerConfig>,
    /// If `config` requests certificates.
    pub inspector: Option<CertificateInspector>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}
