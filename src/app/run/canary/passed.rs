//! The relay's end of the service.

use std::sync::{Arc, OnceLock};

use super::CanaryService;
use crate::addr::Family;
use crate::canary::PassedMessage;
use crate::engine::{Event, Observe, SessionRecord};

/// Receives canaries from the relay, which starts before the service.
#[derive(Clone, Default)]
pub(in crate::app::run) struct PassedCanaries(Arc<OnceLock<CanaryService>>);

impl PassedCanaries {
    pub(in crate::app::run) fn set(&self, service: CanaryService) {
        let _set_before = self.0.set(service);
    }
}

impl Observe for PassedCanaries {
    fn event(&self, _: Family, _: Event) {}

    fn session(&self, _: &SessionRecord) {}

    fn canary(&self, message: &PassedMessage) {
        if let Some(service) = self.0.get() {
            service.on_passed(message);
        }
    }
}
