//! Canaries: what became of them, and whether IPv6 mail is treated as IPv4 mail is.

use prometheus::{IntCounter, IntGauge};

use super::families::Families;
use super::{Metrics, MetricsError, array};
use crate::addr::Family;
use crate::canary::{CanaryDirection, CanaryOutcome, CanaryStatus, Comparison, PairResult};

pub(super) struct CanarySeries {
    /// By direction.
    directions: [DirectionSeries; CanaryDirection::ALL.len()],
}

struct DirectionSeries {
    /// By family and [`CanaryOutcome::index`].
    messages: [[IntCounter; CanaryOutcome::ALL.len()]; Family::ALL.len()],
    parity: IntGauge,
}

impl CanarySeries {
    pub(super) fn resolve(families: &Families) -> Result<Self, MetricsError> {
        let direction = |direction: CanaryDirection| {
            let direction = direction.as_str();
            let messages = |family: Family| {
                array(CanaryOutcome::ALL.iter().map(|outcome| {
                    let labels = [family.as_str(), direction, outcome.as_str()];
                    families.canary_messages.get_metric_with_label_values(&labels)
                }))
            };
            let parity = families.canary_parity.get_metric_with_label_values(&[direction])?;
            Ok::<_, MetricsError>(DirectionSeries {
                messages: [messages(Family::Ipv4)?, messages(Family::Ipv6)?],
                parity,
            })
        };
        Ok(Self {
            directions: [
                direction(CanaryDirection::Inbound)?,
                direction(CanaryDirection::Outbound)?,
            ],
        })
    }
}

impl Metrics {
    /// A pair is complete, or its time is over.
    pub fn on_canaries(&self, result: &PairResult) {
        let series = &self.canaries.directions[result.pair.direction.index()];
        for family in Family::ALL {
            let outcome = result.pair.half(family).outcome();
            series.messages[family as usize][outcome.index()].inc();
        }
    }

    /// Nothing is known yet, or there is no `[canary]`.
    pub fn clear_canary_parity(&self) {
        self.canaries.directions.iter().for_each(|series| series.parity.set(-1));
    }

    /// The result of the latest pair of a direction.
    pub fn set_canary_parity(&self, status: &CanaryStatus) {
        let value = match status.comparison {
            Comparison::Unknown => -1,
            Comparison::Ipv6Worse => 0,
            Comparison::Equal | Comparison::Ipv4Worse => 1,
        };
        self.canaries.directions[status.direction.index()].parity.set(value);
    }
}
