//! Carries out what becomes of [`Certificates`]: the relay uses new ones; log, metrics and status page report refused ones and
//! those that expire.

use std::sync::Arc;

use anyhow::bail;

use super::certificates::{CertificateChange, Certificates};
use super::status_page::StatusSources;
use crate::metrics::Metrics;
use crate::relay::RelayHandle;
use crate::report::{LogLevel, SessionLog};
use crate::time::Timestamp;
use crate::tls::{CertificateFacts, TlsSettings};

pub(super) struct CertificateUpdates {
    /// `None` if the gateway ends no TLS.
    certificates: Option<Certificates>,
    relay: RelayHandle,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
    sources: StatusSources,
}

impl CertificateUpdates {
    /// For certificates that the relay uses already.
    pub(super) fn new(
        certificates: Option<Certificates>,
        relay: RelayHandle,
        (metrics, log): (&Arc<Metrics>, &Arc<SessionLog>),
        sources: StatusSources,
    ) -> Self {
        let (metrics, log) = (Arc::clone(metrics), Arc::clone(log));
        let mut updates = Self { certificates, relay, metrics, log, sources };
        updates.report();
        updates.report_expiry();
        updates
    }

    /// Whether most senders get a certificate that is valid; true if the gateway ends no TLS.
    pub(super) fn is_usable(&self) -> bool {
        self.certificates.as_ref().is_none_or(|own| own.is_usable(self.now()))
    }

    /// Looks whether files have changed.
    pub(super) fn check_files(&mut self) {
        let now = self.now();
        let Some(own) = &mut self.certificates else { return };
        match own.check_files(now) {
            CertificateChange::None => {}
            CertificateChange::Loaded => self.put_in_use(),
            CertificateChange::Refused(why) => {
                let notice = format!("certificates not reloaded, those before stay in use: {why}");
                self.log.notice(LogLevel::Error, &notice);
                self.report();
            }
        }
        self.report_expiry();
    }

    /// The section `[tls]` of a new configuration.
    ///
    /// # Errors
    /// Its certificates cannot be used; those before stay in use.
    pub(super) fn reload(&mut self, settings: Option<&TlsSettings>) -> anyhow::Result<()> {
        let now = self.now();
        let change = match (&mut self.certificates, settings) {
            (Some(own), Some(settings)) => own.reload(settings, now),
            (None, Some(settings)) => {
                self.certificates = Some(Certificates::load(settings)?);
                CertificateChange::Loaded
            }
            (_, None) => {
                self.certificates = None;
                CertificateChange::None
            }
        };
        match change {
            CertificateChange::None => self.report(),
            CertificateChange::Loaded => self.put_in_use(),
            CertificateChange::Refused(why) => {
                self.report();
                bail!("[tls]: {why}");
            }
        }
        self.report_expiry();
        Ok(())
    }

    fn put_in_use(&self) {
        if let Some(own) = &self.certificates {
            self.relay.set_tls(own.client_tls());
            self.log.notice(LogLevel::Info, "new certificates are in use");
        }
        self.report();
    }

    /// Metrics of those in use. Only after a change: between two values a scrape would find none.
    fn report(&self) {
        let own = self.certificates.as_ref();
        let facts = own.into_iter().flat_map(Certificates::facts);
        let facts: Vec<_> = facts.map(CertificateFacts::name_and_end).collect();
        self.metrics.set_certificates(&facts);
        self.metrics.set_certificates_refused(own.is_some_and(|own| own.refused().is_some()));
    }

    fn report_expiry(&mut self) {
        let now = self.now();
        let notice = self.certificates.as_mut().and_then(|own| own.expiry_notice(now));
        if let Some((level, notice)) = notice {
            self.log.notice(level, &notice);
        }
        let warning = self.certificates.as_ref().and_then(|own| own.warning(now));
        self.sources.set_certificates(warning);
    }

    fn now(&self) -> Timestamp {
        self.relay.clock().now()
    }
}
