//! Questions of Postfix, by where it asks and by the action.

use prometheus::{Histogram, IntCounter, IntGauge};

use super::families::Families;
use super::{MetricsError, array};
use crate::engine::{AskedAt, DelegatedAction, DelegationEvent, DelegationFault};

/// The handles of the series.
pub(super) struct DelegationSeries {
    /// By [`AskedAt::index`], then by [`DelegatedAction::index`].
    questions: [[IntCounter; DelegatedAction::ALL.len()]; AskedAt::ALL.len()],
    duration: Histogram,
    connections: IntGauge,
    /// By [`DelegationFault::index`].
    closed: [IntCounter; DelegationFault::ALL.len()],
}

impl DelegationSeries {
    /// Creates every series, at zero.
    pub(super) fn resolve(families: &Families) -> Result<Self, MetricsError> {
        let questions = |at: AskedAt| {
            array(DelegatedAction::ALL.iter().map(|action| {
                let labels = [at.as_str(), action.as_str()];
                families.policy_questions.get_metric_with_label_values(&labels)
            }))
        };
        let questions = AskedAt::ALL.into_iter().map(questions).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            questions: array(questions.into_iter().map(Ok))?,
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
            DelegationEvent::Answered { at, action, took } => {
                self.questions[at.index()][action.index()].inc();
                self.duration.observe(took.as_secs_f64());
            }
            DelegationEvent::Fault(reason) => self.closed[reason.index()].inc(),
        }
    }
}
