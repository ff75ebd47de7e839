//! Questions of Postfix, by the action in the reply.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::families::Families;
use super::{MetricsError, array};
use crate::engine::{DelegatedAction, DelegationEvent, DelegationFault};

/// The handles of the series.
pub(super) struct DelegationSeries {
    /// By [`DelegatedAction::index`].
    questions: [IntCounter; DelegatedAction::ALL.len()],
    duration: Histogram,
    connections: IntGauge,
    /// By [`DelegationFault::index`].
    closed: [IntCounter; DelegationFault::ALL.len()],
}

impl DelegationSeries {
    /// Creates every series, at zero.
    pub(super) fn resolve(families: &Families) -> Result<Self, MetricsError> {
        Ok(Self {
            questions: array(DelegatedAction::ALL.iter().map(|action| {
                families.policy_questions.get_metric_with_label_values(&[action.as_str()])
            }))?,
            duration: families.policy_answer.clone(),
            connections: families.policy_connections.clone(),
            closed: array(DelegationFault::ALL.iter().map(|reason| {
                families.policy_closed.get_metric_with_label_values(&[reason.as_str()])
            }))?,
        })
    }

    pub(super) fn on_event(&self, event: DelegationEvent) {
        match event {
            DelegationEvent::Connected => self.connections.inc(),
            DelegationEvent::Disconnected => self.connections.dec(),
            DelegationEvent::Answered { action, took } => {
                self.questions[action.index()].inc();
                self.duration.observe(took.as_secs_f64());
            }
            DelegationEvent::Fault(reason) => self.closed[reason.index()].inc(),
        }
    }
}
