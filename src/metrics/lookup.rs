//! Lookups, by kind, result and answer.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::families::Families;
use super::{Metrics, MetricsError, array};
use crate::policy::facts::{AnswerKind, LookupKind, LookupObserver, Resolution};

/// The handles of the lookup series.
pub(super) struct LookupSeries {
    /// By [`LookupKind::index`], then by [`Resolution::index`].
    lookups: [[IntCounter; Resolution::ALL.len()]; LookupKind::ALL.len()],
    /// By [`LookupKind::index`], then by [`AnswerKind::index`].
    answers: [[IntCounter; AnswerKind::ALL.len()]; LookupKind::ALL.len()],
    /// By [`LookupKind::index`].
    duration: [Histogram; LookupKind::ALL.len()],
    refreshed: [IntCounter; LookupKind::ALL.len()],
    /// By [`LookupKind::index`]; only answers to probes are shared.
    shared: [Option<IntCounter>; LookupKind::ALL.len()],
    redis_up: IntGauge,
    cache_entries: IntGauge,
    cache_bytes: IntGauge,
    cache_damaged: IntCounter,
    in_flight: IntGauge,
}

impl LookupSeries {
    /// Creates every series, at zero.
    pub(super) fn resolve(families: &Families) -> Result<Self, MetricsError> {
        let mut by_kind = Vec::new();
        for kind in LookupKind::ALL {
            let lookups = array(Resolution::ALL.iter().map(|how| {
                let labels = [kind.as_str(), how.as_str()];
                families.lookups.get_metric_with_label_values(&labels)
            }))?;
            let answers = array(AnswerKind::ALL.iter().map(|told| {
                let labels = [kind.as_str(), told.as_str()];
                families.lookup_answers.get_metric_with_label_values(&labels)
            }))?;
            by_kind.push((lookups, answers));
        }
        let (lookups, answers): (Vec<_>, Vec<_>) = by_kind.into_iter().unzip();
        let kinds = || LookupKind::ALL.iter().map(|kind| [kind.as_str()]);
        let counters = |family: &prometheus::IntCounterVec| {
            array(kinds().map(|kind| family.get_metric_with_label_values(&kind)))
        };
        let duration = &families.lookup_duration;
        Ok(Self {
            lookups: array(lookups.into_iter().map(Ok))?,
            answers: array(answers.into_iter().map(Ok))?,
            duration: array(kinds().map(|kind| duration.get_metric_with_label_values(&kind)))?,
            refreshed: counters(&families.lookups_refreshed)?,
            shared: array(LookupKind::ALL.iter().map(|kind| {
                let counter =
                    || families.lookups_shared.get_metric_with_label_values(&[kind.as_str()]);
                kind.is_probe().then(counter).transpose()
            }))?,
            redis_up: families.redis_up.clone(),
            cache_entries: families.cache_entries.clone(),
            cache_bytes: families.cache_bytes.clone(),
            cache_damaged: families.cache_damaged.clone(),
            in_flight: families.lookups_in_flight.clone(),
        })
    }
}

fn gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

impl LookupObserver for Metrics {
    fn on_answer(&self, kind: LookupKind, how: Resolution, told: AnswerKind, took: Duration) {
        let kind = kind.index();
        self.lookups.lookups[kind][how.index()].inc();
        self.lookups.answers[kind][told.index()].inc();
        self.lookups.duration[kind].observe(took.as_secs_f64());
    }

    fn on_refresh(&self, kind: LookupKind) {
        self.lookups.refreshed[kind.index()].inc();
    }

    fn on_shared_hit(&self, kind: LookupKind) {
        if let Some(counter) = &self.lookups.shared[kind.index()] {
            counter.inc();
        }
    }

    fn on_store_state(&self, up: bool) {
        self.lookups.redis_up.set(i64::from(up));
    }

    fn on_cache_size(&self, entries: u64, bytes: u64) {
        self.lookups.cache_entries.set(gauge(entries));
        self.lookups.cache_bytes.set(gauge(bytes));
    }

    fn on_in_flight(&self, lookups: usize) {
        self.lookups.in_flight.set(gauge(lookups as u64));
    }

    fn on_damaged_rows(&self, count: usize) {
        self.lookups.cache_damaged.inc_by(count as u64);
    }
}
