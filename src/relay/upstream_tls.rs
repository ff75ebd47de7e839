//! TLS with upstreams: how one is reached, and with which it failed lately.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::settings::{ListenerTls, UpstreamTlsSettings};
use super::tls::TlsLeg;
use crate::engine::UpstreamTls;

/// How long plaintext is used after an opportunistic handshake failed: the senders of that time try again within it.
const AVOIDED: Duration = Duration::from_secs(600);
/// With interception there are as many upstreams as destinations; more are not remembered.
const MAX_REMEMBERED: usize = 1024;

/// What is verified in TLS with upstreams.
#[derive(Clone, Debug, Default)]
pub struct UpstreamTlsConfigs {
    /// Accepts any certificate; `None` if the gateway ends no TLS.
    pub any: Option<Arc<ClientConfig>>,
    /// Verifies, by the file of authorities (`None`: those that the system trusts).
    pub verified: Vec<(Option<PathBuf>, Arc<ClientConfig>)>,
}

impl UpstreamTlsConfigs {
    fn get(&self, level: UpstreamTls, ca: Option<&Path>) -> Option<Arc<ClientConfig>> {
        match level {
            UpstreamTls::Off => None,
            UpstreamTls::Opportunistic | UpstreamTls::Require => self.any.clone(),
            UpstreamTls::Verify => {
                let found = self.verified.iter().find(|(file, _)| file.as_deref() == ca);
                found.map(|(_, config)| Arc::clone(config))
            }
        }
    }
}

/// Upstreams with which an opportunistic handshake failed lately.
#[derive(Debug, Default)]
pub(super) struct FailedTls(Mutex<HashMap<SocketAddr, Instant>>);

impl FailedTls {
    pub(super) fn record(&self, upstream: SocketAddr, now: Instant) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= MAX_REMEMBERED {
            failed.retain(|_, at| now < *at + AVOIDED);
        }
        if failed.len() < MAX_REMEMBERED {
            failed.insert(upstream, now);
        }
    }

    pub(super) fn is_recent(&self, upstream: SocketAddr, now: Instant) -> bool {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(&upstream).is_some_and(|&at| now < at + AVOIDED)
    }
}

/// What a session needs to use TLS with the upstream that it is connected to.
#[derive(Clone)]
pub(super) struct UpstreamTlsPlan {
    pub(super) level: UpstreamTls,
    address: SocketAddr,
    name: Option<String>,
    config: Option<Arc<ClientConfig>>,
    failed: Arc<FailedTls>,
}

impl UpstreamTlsPlan {
    /// The TLS of clients that passes through is never carried by TLS of the gateway's.
    pub(super) fn new(
        clients: ListenerTls,
        settings: &UpstreamTlsSettings,
        address: SocketAddr,
        (configs, failed): (&UpstreamTlsConfigs, &Arc<FailedTls>),
    ) -> Self {
        let configured = match clients {
            ListenerTls::Passthrough => UpstreamTls::Off,
            _ => settings.level_for(address),
        };
        let avoided =
            configured == UpstreamTls::Opportunistic && failed.is_recent(address, Instant::now());
        Self {
            level: if avoided { UpstreamTls::Off } else { configured },
            address,
            name: settings.name.clone(),
            config: configs.get(configured, settings.ca.as_deref()),
            failed: Arc::clone(failed),
        }
    }

    /// # Errors
    /// A fault of the gateway.
    pub(super) fn leg(&self) -> Result<TlsLeg, rustls::Error> {
        let fault = |text: &str| rustls::Error::General(text.to_owned());
        let config = self.config.clone().ok_or_else(|| fault("no TLS for upstreams is set up"))?;
        let name = match &self.name {
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_invalid| fault("upstream.tls_name is not a name"))?,
            // Not sent: SNI holds no addresses (RFC 6066 §3).
            None => ServerName::IpAddress(self.address.ip().into()),
        };
        TlsLeg::with_upstream(config, name)
    }

    /// The next sessions use plaintext.
    pub(super) fn avoid(&self) {
        self.failed.record(self.address, Instant::now());
    }
}

impl fmt::Debug for UpstreamTlsPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamTlsPlan").field("level", &self.level).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_handshake_is_remembered_for_a_while() {
        let (failed, now) = (FailedTls::default(), Instant::now());
        let upstream: SocketAddr = "192.0.2.1:25".parse().unwrap();
        assert!(!failed.is_recent(upstream, now));
        failed.record(upstream, now);
        assert!(failed.is_recent(upstream, now + AVOIDED / 2));
        assert!(!failed.is_recent(upstream, now + AVOIDED));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (failed, now) = (FailedTls::default(), Instant::now());
        let upstream = |port| SocketAddr::from(([192, 0, 2, 1], port));
        for port in 1..=2000 {
            failed.record(upstream(port), now);
        }
        assert!(failed.is_recent(upstream(1), now));
        assert!(!failed.is_recent(upstream(2000), now));
        failed.record(upstream(2000), now + AVOIDED);
        assert!(failed.is_recent(upstream(2000), now + AVOIDED));
    }
}
