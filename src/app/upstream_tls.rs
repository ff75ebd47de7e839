//! What the gateway verifies in TLS with upstreams, from the files of a configuration.

use anyhow::Context as _;

use crate::config::Config;
use crate::engine::UpstreamTls;
use crate::relay::UpstreamTlsConfigs;
use crate::tls::{UpstreamVerification, upstream_config};

/// Reads the authorities of every upstream that is verified.
///
/// # Errors
/// A file of them cannot be read or holds no certificate, or the system has none.
pub(super) fn upstream_tls(config: &Config) -> anyhow::Result<UpstreamTlsConfigs> {
    let mut configs = UpstreamTlsConfigs::default();
    if !config.relay.may_use_upstream_tls() {
        return Ok(configs);
    }
    configs.any = Some(upstream_config(&UpstreamVerification::None)?);
    for listener in &config.relay.listeners {
        let tls = &listener.upstream.tls;
        let is_loaded = configs.verified.iter().any(|(ca, _)| *ca == tls.ca);
        if tls.level == Some(UpstreamTls::Verify) && !is_loaded {
            let verification = UpstreamVerification::Authorities(tls.ca.clone());
            let verified = upstream_config(&verification).context("upstream.tls_ca")?;
            configs.verified.push((tls.ca.clone(), verified));
        }
    }
    Ok(configs)
}
