//! A gateway that ends TLS: its certificate, and clients whose sessions begin with STARTTLS.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::smtp_client::{TlsClient, TlsOptions};
use super::{Authority, Config, Family, Lab, Mode, Smtp};

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

/// Whether the sessions of a test are in plaintext or under TLS that the gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Plaintext,
    OwnTls,
}

impl Transport {
    pub(crate) const ALL: [Self; 2] = [Self::Plaintext, Self::OwnTls];
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plaintext => "plaintext",
            Self::OwnTls => "TLS",
        })
    }
}

/// Where the lab's clients connect, and how: the gateway's configuration and the sessions of its clients.
pub(crate) struct Entrance<'lab> {
    lab: &'lab Lab,
    mode: Mode,
    /// For sessions under TLS.
    tls: Option<OwnTls>,
}

impl<'lab> Entrance<'lab> {
    pub(crate) fn new(lab: &'lab Lab, mode: Mode, transport: Transport) -> Self {
        let tls = (transport == Transport::OwnTls).then(|| OwnTls::new(lab));
        Self { lab, mode, tls }
    }

    /// The lab's own configuration, with `[tls]` for sessions under TLS.
    pub(crate) fn config(&self) -> Config {
        let config = Config::new(self.lab, self.mode);
        self.tls.iter().fold(config, |config, tls| tls.configure(config))
    }

    pub(crate) fn address(&self, family: Family) -> SocketAddr {
        self.lab.entrance(self.mode, family)
    }

    pub(crate) fn client_ip(&self, family: Family) -> IpAddr {
        self.lab.client_ip(family)
    }

    pub(crate) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The certificate of the gateway, for another one.
    #[track_caller]
    pub(crate) fn tls(&self) -> &OwnTls {
        self.tls.as_ref().expect("an entrance to sessions under TLS")
    }

    /// A session whose dialogue begins with the greeting, or inside TLS with EHLO: see [`Smtp::dialogue`].
    #[track_caller]
    pub(crate) fn connect(&self, family: Family) -> Smtp {
        self.connect_from(self.lab.client_ip(family), family)
    }

    /// As [`Self::connect`], from an address of the client.
    #[track_caller]
    pub(crate) fn connect_from(&self, client: IpAddr, family: Family) -> Smtp {
        let mut smtp = self.lab.client.smtp_from(client, self.address(family));
        if let Some(tls) = &self.tls {
            smtp.start_tls(&tls.client, HOSTNAME);
        }
        smtp
    }
}
