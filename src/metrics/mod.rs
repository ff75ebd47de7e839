//! The gateway's metrics: how events, flows and evidence count. Every family of them is in `families.rs`.
//!
//! Layer 4, on crate `prometheus`. MetricLabel values are closed sets, and never an address, a domain, a HELO name or reply
//! text. Every series exists from the start at zero, so that `rate()` sees the first event; its handle is resolved then,
//! and counting an event is an array index and an atomic add.

mod catalogue;
mod door;
mod exposition;
mod families;
pub mod http;
mod lookup;
mod openmetrics;
mod policy;
mod reply_code;
mod session;
#[cfg(test)]
mod tests;
mod traffic;

use prometheus::{IntCounter, IntGauge, Registry};

pub use catalogue::{MetricDescription, MetricLabel, catalogue};
pub use exposition::ExpositionFormat;

use self::door::Door;
use self::families::Families;
use self::lookup::Lookups;
use self::policy::{Policy, Verdicts};
use self::session::Sessions;
use self::traffic::Traffic;
use crate::addr::Family;

/// Why the metrics could not be set up: always a mistake in this module, never in the configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    #[error("could not set up a metric family: {0}")]
    Prometheus(#[from] prometheus::Error),
    #[error("a metric label has {found} values where its set has {expected}")]
    LabelSet { expected: usize, found: usize },
}

/// All metric families, with a registry of their own.
pub struct Metrics {
    registry: Registry,
    /// By family.
    sessions: [Sessions; Family::ALL.len()],
    /// By family.
    policy: [Policy; Family::ALL.len()],
    verdicts: Verdicts,
    traffic: Traffic,
    /// By family.
    doors: [Door; Family::ALL.len()],
    lookups: Lookups,
    config_reloads_applied: IntCounter,
    config_reloads_failed: IntCounter,
    config_refused: IntGauge,
    log_lines_dropped: IntCounter,
    record_omitted_octets: IntCounter,
    sessions_limit: IntGauge,
    /// By family: up, down.
    upstreams: [[IntGauge; 2]; Family::ALL.len()],
    ready: IntGauge,
}

impl Metrics {
    /// Every series of the closed label sets, at zero.
    ///
    /// # Errors
    /// Only if this module names a family wrongly or twice.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        let upstreams = |family: Family| {
            array(["up", "down"].into_iter().map(|state| {
                families.upstreams.get_metric_with_label_values(&[family.as_str(), state])
            }))
        };
        let reloads = |result| families.config_reloads.get_metric_with_label_values(&[result]);
        Ok(Self {
            // In the order of `family as usize`.
            sessions: [
                Sessions::resolve(&families, Family::Ipv4)?,
                Sessions::resolve(&families, Family::Ipv6)?,
            ],
            policy: [
                Policy::resolve(&families, Family::Ipv4)?,
                Policy::resolve(&families, Family::Ipv6)?,
            ],
            verdicts: Verdicts::new(families.policy_verdicts.clone()),
            traffic: Traffic::resolve(&families)?,
            doors: [
                Door::resolve(&families, Family::Ipv4)?,
                Door::resolve(&families, Family::Ipv6)?,
            ],
            lookups: Lookups::resolve(&families)?,
            config_reloads_applied: reloads("applied")?,
            config_reloads_failed: reloads("failed")?,
            config_refused: families.config_refused,
            log_lines_dropped: families.log_lines_dropped,
            record_omitted_octets: families.record_omitted_octets,
            sessions_limit: families.sessions_limit,
            upstreams: [upstreams(Family::Ipv4)?, upstreams(Family::Ipv6)?],
            ready: families.ready,
            registry,
        })
    }

    /// A new configuration is in force.
    pub fn on_config_applied(&self) {
        self.config_reloads_applied.inc();
        self.config_refused.set(0);
    }

    /// A configuration was refused and the old one stays.
    pub fn on_config_rejected(&self) {
        self.config_reloads_failed.inc();
        self.config_refused.set(1);
    }

    /// `count` log lines were lost.
    pub fn add_dropped_log_lines(&self, count: u64) {
        self.log_lines_dropped.inc_by(count);
    }

    /// Recorders did not get `count` octets.
    pub fn add_record_omitted_bytes(&self, count: u64) {
        self.record_omitted_octets.inc_by(count);
    }

    /// `limits.sessions` of the configuration in force.
    pub fn set_sessions_limit(&self, limit: usize) {
        self.sessions_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// How many configured upstreams of `family` answered when they were last tried, and how many failed.
    pub fn set_upstreams(&self, family: Family, up: usize, down: usize) {
        for (gauge, count) in self.upstreams[family as usize].iter().zip([up, down]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Whether the gateway takes sessions.
    pub fn set_ready(&self, ready: bool) {
        self.ready.set(i64::from(ready));
    }
}

fn array<T, const N: usize>(
    handles: impl Iterator<Item = prometheus::Result<T>>,
) -> Result<[T; N], MetricsError> {
    let handles: Vec<T> = handles.collect::<prometheus::Result<_>>()?;
    <[T; N]>::try_from(handles)
        .map_err(|handles| MetricsError::LabelSet { expected: N, found: handles.len() })
}
