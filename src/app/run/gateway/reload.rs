//! A reload: the new configuration is in force as a whole, or the old one stays.

use std::io::ErrorKind;

use anyhow::anyhow;

use super::super::canary::ActiveCanaries;
use super::super::{door_config::ingress, policy_service};
use super::{Gateway, danger, listener_names, own_side, report_passthrough, watched};
use crate::addr::Family;
use crate::app::host_addresses::ThisHost;
use crate::app::intercept::check_before_start;
use crate::app::upstream_tls::upstream_tls;
use crate::config::{Config, OutboundConfig};
use crate::intercept::{InterceptSettings, Interception};
use crate::outbound::{Pins, SteeringSettings};
use crate::relay::RelayError;
use crate::report::LogLevel;

impl Gateway {
    /// SIGHUP: applies the new configuration, or keeps the old one and logs the error.
    pub(super) async fn reload(&mut self) {
        self.manager.notify_reloading();
        self.log.reopen();
        match self.try_reload().await {
            Ok(()) => {
                self.metrics.on_config_applied();
                self.log.notice(LogLevel::Info, "configuration reloaded");
                self.report_ready();
            }
            Err(error) => {
                self.metrics.on_config_rejected();
                for line in format!("{error:#}").lines() {
                    let notice =
                        format!("configuration not reloaded, the old one stays in force: {line}");
                    self.log.notice(LogLevel::Error, &notice);
                }
                let status = self.status();
                self.manager.notify_ready(status);
            }
        }
    }

    async fn try_reload(&mut self) -> anyhow::Result<()> {
        let config = Config::load_for(&self.path, &ThisHost::new())?;
        self.capabilities.check(&config)?;
        for warning in check_before_start(&config).await? {
            self.log.notice(LogLevel::Warn, &warning);
        }
        let upstreams = upstream_tls(&config)?;
        let canaries = ActiveCanaries::new(&config)?;
        self.certificates.reload(config.tls.as_ref())?;
        self.relay.handle().set_upstream_tls(upstreams);
        self.relay.reload(config.relay.clone()).map_err(explain_permission)?;
        policy_service::reload(self.policy_service.as_ref().map(|(own, _)| own), &config);
        // Also if they are the same: what others changed is installed again.
        self.change_interception(config.intercept.as_ref()).await?;
        if let Some((handle, _)) = &self.doors {
            let interception = self.interception.as_ref().map(|(interception, _)| interception);
            let ingress = ingress(interception, self.relay.addresses());
            handle.set_ingress(ingress).await;
        }
        if let Some(outbound) = &self.outbound {
            outbound.reload(config.outbound.as_ref());
        }
        self.canary.apply(canaries);
        let old = &self.config;
        for (changed, key) in [
            (config.door != old.door, "[door]"),
            (config.metrics != old.metrics, "[metrics]"),
            (config.status != old.status, "[status]"),
            (config.log != old.log, "[log]"),
            (config.control != old.control, "[control]"),
            (policy_service::has_moved(old, &config), "postfix.policy"),
            (config.user != old.user, "[process]"),
            (config.watch != old.watch, "[watch]"),
            (config.lookup != old.lookup, "[lookup]"),
            (config.vantage != old.vantage, "[vantage]"),
            (
                needs_restart(&config) != needs_restart(old),
                "outbound.map, mail_log or config_directory",
            ),
            (config.relay.threads != old.relay.threads, "listen.threads"),
            (
                config.watch.is_some() && own_side(&config) != own_side(old),
                "site.addresses or reset_sources, for [watch],",
            ),
        ] {
            if changed {
                let notice = format!("{key} changed: restart gatepost to apply it");
                self.log.notice(LogLevel::Warn, &notice);
            }
        }
        for warning in config.warnings() {
            self.log.notice(LogLevel::Warn, &warning);
        }
        report_passthrough(&config, &self.log);
        self.sources.set_warning(danger(&config));
        self.metrics.set_sessions_limit(config.relay.limits.sessions);
        self.metrics.set_rules(&config.relay.rules)?;
        self.metrics.set_listeners(&listener_names(&config))?;
        self.config = config;
        Ok(())
    }

    async fn change_interception(
        &mut self,
        settings: Option<&InterceptSettings>,
    ) -> anyhow::Result<()> {
        match (self.interception.take(), settings) {
            (Some((interception, watcher)), Some(settings)) => {
                let result = interception.lock().await.change(settings.clone()).await;
                self.interception = Some((interception, watcher));
                result?;
            }
            (Some((interception, watcher)), None) => {
                watcher.stop().await;
                let mut interception = interception.lock().await;
                interception.remove().await?;
                Family::ALL
                    .into_iter()
                    .for_each(|family| self.metrics.set_intercepted(family, None));
            }
            (None, Some(settings)) => {
                let mut interception = Interception::claim(settings.clone())?;
                interception.install().await?;
                self.interception = Some(watched(interception.shared(), &self.metrics, &self.log));
            }
            (None, None) => {}
        }
        Ok(())
    }
}

/// The settings of `[outbound]` that a reload does not apply.
fn needs_restart(config: &Config) -> Option<OutboundConfig> {
    let outbound = config.outbound.clone();
    outbound.map(|outbound| OutboundConfig {
        pins: Pins::default(),
        steering: SteeringSettings::default(),
        resets: None,
        ..outbound
    })
}

/// The capability to bind ports below 1024 is always dropped.
fn explain_permission(error: RelayError) -> anyhow::Error {
    match &error {
        RelayError::Listen { why, .. } if why.kind() == ErrorKind::PermissionDenied => {
            anyhow!("{error}; a running gateway has dropped that privilege: restart it")
        }
        _ => error.into(),
    }
}
