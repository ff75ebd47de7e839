//! Sessions by listener.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec};

use super::families::Families;
use super::{Metrics, MetricsError, array};
use crate::addr::Family;
use crate::engine::SessionRecord;
use crate::policy::PolicyAction;

/// The handles of one listener's series in one family.
struct ListenerFamilySeries {
    /// By the `index()` of the action.
    sessions: [IntCounter; PolicyAction::ALL.len()],
    messages: IntCounter,
}

/// The series of the listeners in force, by name: their names come from the configuration, which has 16 at most.
pub(super) struct ListenerSeries {
    sessions: IntCounterVec,
    messages: IntCounterVec,
    /// Each by family.
    listeners: ArcSwap<HashMap<Arc<str>, [ListenerFamilySeries; Family::ALL.len()]>>,
}

impl ListenerSeries {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            sessions: families.listener_sessions.clone(),
            messages: families.listener_messages.clone(),
            listeners: ArcSwap::default(),
        }
    }

    /// Creates the series of each listener, at zero; those of other listeners disappear.
    pub(super) fn set_names(&self, names: &[Arc<str>]) -> Result<(), MetricsError> {
        let new = names.iter().map(|name| {
            let [ipv4, ipv6] = Family::ALL.map(|family| self.resolve(name, family));
            Ok((Arc::clone(name), [ipv4?, ipv6?]))
        });
        let new: HashMap<_, _> = new.collect::<Result<_, MetricsError>>()?;
        let old = self.listeners.swap(Arc::new(new));
        for gone in old.keys().filter(|name| !names.contains(name)) {
            for family in Family::ALL.map(Family::as_str) {
                for action in PolicyAction::ALL.map(PolicyAction::as_str) {
                    self.sessions.remove_label_values(&[gone, family, action])?;
                }
                self.messages.remove_label_values(&[gone, family])?;
            }
        }
        Ok(())
    }

    fn resolve(&self, name: &str, family: Family) -> Result<ListenerFamilySeries, MetricsError> {
        let family = family.as_str();
        let sessions = array(PolicyAction::ALL.iter().map(|action| {
            let labels = [name, family, action.as_str()];
            self.sessions.get_metric_with_label_values(&labels)
        }))?;
        let messages = self.messages.get_metric_with_label_values(&[name, family])?;
        Ok(ListenerFamilySeries { sessions, messages })
    }

    /// Ignores a listener that is no longer in force.
    pub(super) fn on_session(&self, record: &SessionRecord) {
        let listeners = self.listeners.load();
        let Some(series) = record.listener.as_ref().and_then(|name| listeners.get(name)) else {
            return;
        };
        let of = &series[record.family as usize];
        of.sessions[record.verdict.action.index()].inc();
        let accepted = record.smtp.transactions.iter();
        let accepted = accepted.filter(|one| one.data_code.is_some_and(|code| code / 100 == 2));
        of.messages.inc_by(accepted.count() as u64);
    }
}

impl Metrics {
    /// The listeners in force.
    ///
    /// # Errors
    /// Never, with names that a configuration allows.
    pub fn set_listeners(&self, names: &[Arc<str>]) -> Result<(), MetricsError> {
        self.listeners.set_names(names)
    }
}
