//! The receiver of events and records.

use std::sync::Arc;

use super::delegation_event::DelegationEvent;
use super::event::Event;
use super::record::SessionRecord;
use crate::addr::{ClientAddr, Family, OriginalDst};
use crate::canary::PassedMessage;
use crate::policy::PolicyAction;
use crate::policy::rules::RuleMode;

/// Receives the events and the record of sessions. Implementations must be cheap: they run between two reads of a socket.
pub trait Observe: Send + Sync {
    /// `family` is the client's.
    fn event(&self, family: Family, event: Event);

    /// The name of the rule in the [`Event::Policy`] that follows: the session's rules may have been replaced since it began.
    fn policy(&self, family: Family, rule: &str, action: PolicyAction, mode: RuleMode) {
        let _ = (family, rule, action, mode);
    }

    /// A session ended.
    fn session(&self, record: &SessionRecord);

    /// From now on STARTTLS is hidden from a client, after `failures` handshakes in a row.
    fn starttls_hidden(&self, client: ClientAddr, failures: u32) {
        let _ = (client, failures);
    }

    /// The rules decided on a message of the session by its content, and accepted it. Its end follows, for the mail server.
    fn message_decided(&self, client: ClientAddr, server: OriginalDst) {
        let _ = (client, server);
    }

    /// Something happened at the policy service.
    fn delegation(&self, event: DelegationEvent) {
        let _ = event;
    }

    /// A message that may be a canary passed.
    fn canary(&self, message: &PassedMessage) {
        let _ = message;
    }

    /// A connection could not be accepted, for lack of file descriptors or memory; it waits in the kernel and is tried
    /// again.
    fn accept_error(&self, error: &str) {
        let _ = error;
    }
}

/// Ignores all.
impl Observe for () {
    fn event(&self, _: Family, _: Event) {}

    fn session(&self, _: &SessionRecord) {}
}

impl<T: Observe + ?Sized> Observe for Arc<T> {
    fn event(&self, family: Family, event: Event) {
        (**self).event(family, event);
    }

    fn policy(&self, family: Family, rule: &str, action: PolicyAction, mode: RuleMode) {
        (**self).policy(family, rule, action, mode);
    }

    fn session(&self, record: &SessionRecord) {
        (**self).session(record);
    }

    fn starttls_hidden(&self, client: ClientAddr, failures: u32) {
        (**self).starttls_hidden(client, failures);
    }

    fn message_decided(&self, client: ClientAddr, server: OriginalDst) {
        (**self).message_decided(client, server);
    }

    fn delegation(&self, event: DelegationEvent) {
        (**self).delegation(event);
    }

    fn canary(&self, message: &PassedMessage) {
        (**self).canary(message);
    }

    fn accept_error(&self, error: &str) {
        (**self).accept_error(error);
    }
}

/// Passes all to both, in order.
impl<A: Observe, B: Observe> Observe for (A, B) {
    fn event(&self, family: Family, event: Event) {
        self.0.event(family, event);
        self.1.event(family, event);
    }

    fn policy(&self, family: Family, rule: &str, action: PolicyAction, mode: RuleMode) {
        self.0.policy(family, rule, action, mode);
        self.1.policy(family, rule, action, mode);
    }

    fn session(&self, record: &SessionRecord) {
        self.0.session(record);
        self.1.session(record);
    }

    fn starttls_hidden(&self, client: ClientAddr, failures: u32) {
        self.0.starttls_hidden(client, failures);
        self.1.starttls_hidden(client, failures);
    }

    fn message_decided(&self, client: ClientAddr, server: OriginalDst) {
        self.0.message_decided(client, server);
        self.1.message_decided(client, server);
    }

    fn delegation(&self, event: DelegationEvent) {
        self.0.delegation(event);
        self.1.delegation(event);
    }

    fn canary(&self, message: &PassedMessage) {
        self.0.canary(message);
        self.1.canary(message);
    }

    fn accept_error(&self, error: &str) {
        self.0.accept_error(error);
        self.1.accept_error(error);
    }
}
