//! Lookups: by kind, by how they were answered, and by what the answer comes to.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::families::Families;
use super::{Metrics, MetricsError, array};
use crate::policy::facts::{AnswerKind, LookupKind, LookupObserver, Resolution};

/// The handles of all of it.
pub(super) struct Lookups {
    /// By [`LookupKind::index`], then by [`Resolution::index`].
    lookups: [[IntCounter; Resolution::ALL.len()]; LookupKind::ALL.len()],
    /// By [`LookupKind::index`], then by [`AnswerKind::index`].
    answers: [[IntCounter; AnswerKind::ALL.len()]; LookupKind::ALL.len()],
    /// By [`LookupKind::index`].
    duration: [Histogram; LookupKind::ALL.len()],
    renewed: [IntCounter; LookupKind::ALL.len()],
    taken_over: [IntCounter; LookupKind::ALL.len()],
    store_up: IntGauge,
    cache_entries: IntGauge,
    cache_octets: IntGauge,
    under_way: IntGauge,
}

impl Lookups {
    /// Makes every series, at zero.
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
            renewed: counters(&families.lookups_renewed)?,
            taken_over: counters(&families.lookups_taken_over)?,
            store_up: families.store_up.clone(),
            cache_entries: families.cache_entries.clone(),
            cache_octets: families.cache_octets.clone(),
            under_way: families.lookups_under_way.clone(),
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
        self.lookups.renewed[kind.index()].inc();
    }

    fn on_shared_hit(&self, kind: LookupKind) {
        self.lookups.taken_over[kind.index()].inc();
    }

    fn on_store_state(&self, up: bool) {
        self.lookups.store_up.set(i64::from(up));
    }

    fn on_cache_size(&self, entries: u64, octets: u64) {
        self.lookups.cache_entries.set(gauge(entries));
        self.lookups.cache_octets.set(gauge(octets));
    }

    fn on_in_flight(&self, flights: usize) {
        self.lookups.under_way.set(i64::try_from(flights).unwrap_or(i64::MAX));
    }
}
