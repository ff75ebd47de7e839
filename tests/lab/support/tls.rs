//! A gateway that ends TLS: its certificate, and clients whose sessions begin with STARTTLS.

use std::net::SocketAddr;

use super::smtp_client::{TlsClient, TlsOptions};
use super::{Authority, Config, Lab, Smtp};

/// The name of the gateway in its certificate.
pub(crate) const HOSTNAME: &str = "mx.example.org";

/// An authority, the gateway's certificate from it, and a client that verifies it.
pub(crate) struct OwnTls {
    pub(crate) authority: Authority,
    client: TlsClient,
}

impl OwnTls {
    pub(crate) fn new(lab: &Lab) -> Self {
        let authority = Authority::new(lab.folder("ca"), HOSTNAME);
        let trusted = authority.certificate();
        let client =
            TlsClient::new(&TlsOptions { trusted: Some(&trusted), ..TlsOptions::default() });
        Self { authority, client }
    }

    /// Adds `[tls]` with the certificate.
    pub(crate) fn configure(&self, config: Config) -> Config {
        config
            .set("tls", &format!("certificate = {:?}", self.authority.server_certificate()))
            .set("tls", &format!("key = {:?}", self.authority.server_key()))
    }

    /// A session inside TLS; EHLO is next.
    #[track_caller]
    pub(crate) fn connect(&self, lab: &Lab, to: SocketAddr) -> Smtp {
        let mut smtp = lab.client.smtp(to);
        smtp.start_tls(&self.client, HOSTNAME);
        smtp
    }

    pub(crate) const fn client(&self) -> &TlsClient {
        &self.client
    }
}

/// A session in plaintext, or with `tls` inside TLS.
#[track_caller]
pub(crate) fn connect(lab: &Lab, to: SocketAddr, tls: Option<&OwnTls>) -> Smtp {
    match tls {
        Some(tls) => tls.connect(lab, to),
        None => lab.client.smtp(to),
    }
}
