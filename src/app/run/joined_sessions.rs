//! Sessions of the relay whose mail server asked the policy about them: log, page and metrics have one record of both.

use std::sync::OnceLock;

use crate::addr::{ClientAddr, Family, OriginalDst};
use crate::canary::PassedMessage;
use crate::engine::{DelegationEvent, Event, Observe, SessionRecord};
use crate::policy::PolicyAction;
use crate::policy::rules::RuleMode;
use crate::postfix::policy::PolicyRecords;

/// In front of the relay's observers.
pub(super) struct JoinedSessions<O> {
    /// Set once the policy service runs.
    asked: OnceLock<PolicyRecords>,
    inner: O,
}

impl<O> JoinedSessions<O> {
    pub(super) const fn new(inner: O) -> Self {
        Self { asked: OnceLock::new(), inner }
    }

    pub(super) fn set_asked(&self, asked: PolicyRecords) {
        let _set_before = self.asked.set(asked);
    }
}

impl<O: Observe> Observe for JoinedSessions<O> {
    fn event(&self, family: Family, event: Event) {
        self.inner.event(family, event);
    }

    fn policy(&self, family: Family, rule: &str, action: PolicyAction, mode: RuleMode) {
        self.inner.policy(family, rule, action, mode);
    }

    fn session(&self, record: &SessionRecord) {
        let asked = self.asked.get().and_then(|asked| asked.take(record));
        match asked {
            Some(asked) => {
                let mut joined = record.clone();
                joined.join_questions(asked);
                self.inner.session(&joined);
            }
            None => self.inner.session(record),
        }
    }

    fn starttls_hidden(&self, client: ClientAddr, failures: u32) {
        self.inner.starttls_hidden(client, failures);
    }

    fn message_decided(&self, client: ClientAddr, server: OriginalDst) {
        if let Some(asked) = self.asked.get() {
            asked.on_message_decided(client, server);
        }
        self.inner.message_decided(client, server);
    }

    fn delegation(&self, event: DelegationEvent) {
        self.inner.delegation(event);
    }

    fn canary(&self, message: &PassedMessage) {
        self.inner.canary(message);
    }

    fn accept_error(&self, error: &str) {
        self.inner.accept_error(error);
    }
}
