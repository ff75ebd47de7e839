//! The metric families of a checked domain. As long as the domain has no finding of a kind, the kind has no series.

use prometheus::{GaugeVec, IntGaugeVec, Registry};

use crate::addr::Family;
use crate::metrics::MetricsError;
use crate::metrics::families::Registrar;
use crate::readiness::{CheckName, CheckStatus};

const DOMAIN: &[&str] = &["domain"];
const SERVER: &[&str] = &["domain", "exchange", "address", "family"];
const FINDING: &[&str] = &["domain", "check", "exchange", "address", "family", "outcome"];

/// Registered for one answer.
pub(in crate::metrics) struct DomainFamilies {
    pub(super) ready: IntGaugeVec,
    pub(super) finding: IntGaugeVec,
    pub(super) duration: GaugeVec,
    pub(super) timestamp: GaugeVec,
    pub(super) connect: GaugeVec,
    pub(super) greeting: GaugeVec,
    pub(super) ehlo: GaugeVec,
    pub(super) certificate_end: GaugeVec,
    pub(super) path_mtu: IntGaugeVec,
}

impl DomainFamilies {
    pub(in crate::metrics) fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let to = Registrar(registry);
        Ok(Self {
            ready: to.gauges(
                "check_ready",
                "Of `/probe`: 1 if no check of the domain fails, 0 if one does, -1 if it is unknown.",
                DOMAIN,
            )?,
            finding: to.gauges(
                "check_finding",
                "Of `/probe`: 1 for the outcome of a check, 0 for the others; without the labels that it is not about.",
                FINDING,
            )?,
            duration: to.float_gauges(
                "check_duration_seconds",
                "Of `/probe`: duration of the domain's check.",
                DOMAIN,
            )?,
            timestamp: to.float_gauges(
                "check_timestamp_seconds",
                "Of `/probe`: end of the domain's check, in Unix time; a result is kept for `metrics.probe_cache_time`.",
                DOMAIN,
            )?,
            connect: to.float_gauges(
                "check_connect_seconds",
                "Of `/probe`: time from the SYN to the connection with the server.",
                SERVER,
            )?,
            greeting: to.float_gauges(
                "check_greeting_seconds",
                "Of `/probe`: time from the connection to the server's greeting.",
                SERVER,
            )?,
            ehlo: to.float_gauges(
                "check_ehlo_seconds",
                "Of `/probe`: time from EHLO to the server's reply.",
                SERVER,
            )?,
            certificate_end: to.float_gauges(
                "check_certificate_not_after_timestamp_seconds",
                "Of `/probe`: end of validity of the server's certificate, in Unix time.",
                SERVER,
            )?,
            path_mtu: to.gauges(
                "check_path_mtu_bytes",
                "Of `/probe`: path MTU to the server, as this host's kernel knows it.",
                SERVER,
            )?,
        })
    }

    /// Every series of the closed label sets, and each family.
    pub(in crate::metrics) fn create_all(&self) {
        let domain = [""];
        let server = ["", "", "", ""];
        self.ready.with_label_values(&domain);
        self.duration.with_label_values(&domain);
        self.timestamp.with_label_values(&domain);
        for of_servers in [&self.connect, &self.greeting, &self.ehlo, &self.certificate_end] {
            of_servers.with_label_values(&server);
        }
        self.path_mtu.with_label_values(&server);
        for check in CheckName::ALL {
            for outcome in CheckStatus::ALL {
                for family in Family::ALL {
                    let (check, family, outcome) =
                        (check.as_str(), family.as_str(), outcome.as_str());
                    self.finding.with_label_values(&["", check, "", "", family, outcome]);
                }
            }
        }
    }
}
