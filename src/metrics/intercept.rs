//! Interception: whether it is in force, repairs, and mail that passed by or was lost.

use prometheus::{IntCounter, IntGauge};

use super::families::Families;
use super::{Metrics, MetricsError};
use crate::addr::Family;

/// The handles of one family's series.
pub(super) struct InterceptSeries {
    installed: IntGauge,
    bypassed: IntCounter,
    lost: IntCounter,
}

impl InterceptSeries {
    pub(super) fn resolve(families: &Families, family: Family) -> Result<Self, MetricsError> {
        let family = family.as_str();
        Ok(Self {
            installed: families.intercept_installed.get_metric_with_label_values(&[family])?,
            bypassed: families.intercept_bypassed.get_metric_with_label_values(&[family])?,
            lost: families.intercept_lost.get_metric_with_label_values(&[family])?,
        })
    }
}

impl Metrics {
    /// Neither is there: no `[intercept]`, no doors.
    pub fn set_not_intercepting(&self) {
        for family in Family::ALL {
            self.set_intercepted(family, None);
            self.set_door_enforced(family, None);
        }
    }

    /// Whether mail of this family is intercepted; `None` if it is not to be.
    pub fn set_intercepted(&self, family: Family, intercepted: Option<bool>) {
        self.interceptions[family as usize].installed.set(intercepted.map_or(-1, i64::from));
    }

    pub fn on_interception_repaired(&self) {
        self.interception_repairs.inc();
    }

    pub fn add_bypassed_packets(&self, family: Family, more: u64) {
        self.interceptions[family as usize].bypassed.inc_by(more);
    }

    pub fn add_lost_syns(&self, family: Family, more: u64) {
        self.interceptions[family as usize].lost.inc_by(more);
    }
}
