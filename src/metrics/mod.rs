//! The gateway's metrics: counters for events, flows and evidence. `families.rs` defines every family.
//!
//! Layer 4, on crate `prometheus`. Label values are closed sets, never an address, a domain, a HELO name or reply text
//! (rule 17 of ARCHITECTURE.md); the answer about a checked domain, which is no part of them, has names and addresses. Every series exists from the start at zero, so that `rate()` sees the first event. Its
//! handle is resolved then: counting an event is an array index and an atomic add.

mod canary;
mod catalogue;
mod delegation;
pub mod domain_check;
mod door;
mod exposition;
mod families;
pub mod http;
mod intercept;
mod listener;
mod lookup;
mod openmetrics;
mod outbound;
mod policy;
mod reply_code;
mod session;
#[cfg(test)]
mod tests;
mod traffic;

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Registry};

pub use catalogue::{MetricDescription, MetricLabel, catalogue};
pub use exposition::ExpositionFormat;
pub use outbound::MapMetric;

use self::canary::CanarySeries;
use self::delegation::DelegationSeries;
use self::door::DoorSeries;
use self::families::Families;
use self::intercept::InterceptSeries;
use self::listener::ListenerSeries;
use self::lookup::LookupSeries;
use self::outbound::OutboundSeries;
use self::policy::{PolicySeries, VerdictSeries};
use self::session::SessionSeries;
use self::traffic::TrafficSeries;
use crate::addr::Family;
use crate::time::Timestamp;

/// A bug in this module, never an error in the configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    #[error("cannot set up a metric family: {0}")]
    Prometheus(#[from] prometheus::Error),
    #[error("a metric label has {found} values instead of {expected}")]
    LabelSet { expected: usize, found: usize },
}

/// All metric families, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    /// By family.
    sessions: [SessionSeries; Family::ALL.len()],
    /// By family.
    policy: [PolicySeries; Family::ALL.len()],
    verdicts: VerdictSeries,
    delegation: DelegationSeries,
    listeners: ListenerSeries,
    traffic: TrafficSeries,
    /// By family.
    doors: [DoorSeries; Family::ALL.len()],
    vantage_up: IntGauge,
    canaries: CanarySeries,
    /// By family.
    interceptions: [InterceptSeries; Family::ALL.len()],
    interception_repairs: IntCounter,
    lookups: LookupSeries,
    outbound: OutboundSeries,
    config_reloads_applied: IntCounter,
    config_reloads_failed: IntCounter,
    config_refused: IntGauge,
    accept_errors: IntCounter,
    log_lines_dropped: IntCounter,
    record_omitted_bytes: IntCounter,
    sessions_limit: IntGauge,
    /// By family: up, down.
    upstreams: [[IntGauge; 2]; Family::ALL.len()],
    /// Resolved, stale, unresolved.
    upstream_names: [IntGauge; 3],
    ready: IntGauge,
    tls_certificates: IntGaugeVec,
    tls_refused: IntGauge,
}

impl Metrics {
    /// Creates every series of the closed label sets, at zero.
    ///
    /// # Errors
    /// Only if this module defines a family wrongly or twice.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        let upstreams = |family: Family| {
            array(["up", "down"].into_iter().map(|state| {
                families.upstreams.get_metric_with_label_values(&[family.as_str(), state])
            }))
        };
        let names = |state| families.upstream_names.get_metric_with_label_values(&[state]);
        let reloads = |result| families.config_reloads.get_metric_with_label_values(&[result]);
        Ok(Self {
            // In the order of `family as usize`.
            sessions: [
                SessionSeries::resolve(&families, Family::Ipv4)?,
                SessionSeries::resolve(&families, Family::Ipv6)?,
            ],
            policy: [
                PolicySeries::resolve(&families, Family::Ipv4)?,
                PolicySeries::resolve(&families, Family::Ipv6)?,
            ],
            verdicts: VerdictSeries::new(families.policy_verdicts.clone()),
            delegation: DelegationSeries::resolve(&families)?,
            listeners: ListenerSeries::new(&families),
            traffic: TrafficSeries::resolve(&families)?,
            doors: [
                DoorSeries::resolve(&families, Family::Ipv4)?,
                DoorSeries::resolve(&families, Family::Ipv6)?,
            ],
            vantage_up: families.vantage_up.clone(),
            canaries: CanarySeries::resolve(&families)?,
            interceptions: [
                InterceptSeries::resolve(&families, Family::Ipv4)?,
                InterceptSeries::resolve(&families, Family::Ipv6)?,
            ],
            interception_repairs: families.intercept_repairs.clone(),
            lookups: LookupSeries::resolve(&families)?,
            outbound: OutboundSeries::resolve(&families)?,
            config_reloads_applied: reloads("applied")?,
            config_reloads_failed: reloads("failed")?,
            config_refused: families.config_refused,
            accept_errors: families.accept_errors,
            log_lines_dropped: families.log_lines_dropped,
            record_omitted_bytes: families.record_omitted_bytes,
            sessions_limit: families.sessions_limit,
            upstreams: [upstreams(Family::Ipv4)?, upstreams(Family::Ipv6)?],
            upstream_names: [names("resolved")?, names("stale")?, names("unresolved")?],
            ready: families.ready,
            tls_certificates: families.tls_certificates,
            tls_refused: families.tls_refused,
            registry,
        })
    }

    /// A new configuration became active.
    pub fn on_config_applied(&self) {
        self.config_reloads_applied.inc();
        self.config_refused.set(0);
    }

    /// A new configuration was rejected; the previous one stays active.
    pub fn on_config_rejected(&self) {
        self.config_reloads_failed.inc();
        self.config_refused.set(1);
    }

    pub fn add_dropped_log_lines(&self, count: u64) {
        self.log_lines_dropped.inc_by(count);
    }

    /// Bytes that recorders did not receive.
    pub fn add_record_omitted_bytes(&self, count: u64) {
        self.record_omitted_bytes.inc_by(count);
    }

    /// `limits.sessions` of the active configuration.
    pub fn set_sessions_limit(&self, limit: usize) {
        self.sessions_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// Numbers of configured upstreams of `family` whose last connection attempt succeeded and failed.
    pub fn set_upstreams(&self, family: Family, up: usize, down: usize) {
        for (gauge, count) in self.upstreams[family as usize].iter().zip([up, down]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Numbers of host names of upstreams that the last lookup found, that have addresses of an earlier one, and that have none.
    pub fn set_upstream_names(&self, resolved: usize, stale: usize, unresolved: usize) {
        for (gauge, count) in self.upstream_names.iter().zip([resolved, stale, unresolved]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Whether the gateway accepts sessions.
    /// The certificates in use, by their position from 1 on: first name and end of validity.
    pub fn set_certificates(&self, certificates: &[(String, Timestamp)]) {
        self.tls_certificates.reset();
        for (number, (name, end)) in (1_u32..).zip(certificates) {
            let labels = [number.to_string(), name.clone()];
            let seconds = i64::try_from(end.as_nanos() / 1_000_000_000).unwrap_or(i64::MAX);
            self.tls_certificates.with_label_values(&labels).set(seconds);
        }
    }

    /// Whether changed certificates do not fit, so that those before stay in use.
    pub fn set_certificates_refused(&self, refused: bool) {
        self.tls_refused.set(i64::from(refused));
    }

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
