//! What the gateway reports of itself: that it is ready, its activity, and what it lacks.

use std::net::SocketAddr;

use super::super::{inherited, service_manager};
use super::Gateway;
use crate::metrics::http::ReadyState;
use crate::report::LogLevel;

impl Gateway {
    pub(super) fn report_ready(&mut self) {
        let listening: Vec<SocketAddr> = self.relay.addresses().collect();
        for (level, notice) in inherited::notices(self.relay.inherited(), &listening) {
            self.log.notice(level, &notice);
        }
        self.health.set(self.ready_state());
        let notice = format!("ready: {}", self.activity());
        self.log.notice(LogLevel::Info, &notice);
        let status = self.status();
        self.manager.notify_ready(status);
    }

    /// `listening on [::1]:2525; answering Postfix on unix:/var/spool/postfix/private/gatepost`
    fn activity(&self) -> String {
        let listens = !self.config.relay.listeners.is_empty();
        let listening = listens.then(|| format!("listening on {}", self.listening()));
        let answering = self.policy_service.as_ref();
        let answering = answering.map(|(_, address)| format!("answering Postfix on {address}"));
        let parts: Vec<_> = listening.into_iter().chain(answering).collect();
        if parts.is_empty() { "no listener".to_owned() } else { parts.join("; ") }
    }

    /// `[::1]:2525, 127.0.0.1:2525`; of several listeners each with its name: `[::]:25 (mx), [::]:587 (submission)`
    fn listening(&self) -> String {
        let settings = &self.config.relay.listeners;
        let transparent = settings.iter().filter(|listener| listener.transparent);
        let transparent: Vec<_> = transparent.map(|listener| &listener.name).collect();
        let all_transparent = transparent.len() == settings.len();
        let each = self.relay.listening().map(|(name, address)| {
            let intercepts = !all_transparent && transparent.contains(&&name);
            match (settings.len(), intercepts) {
                (1, _) => address.to_string(),
                (_, false) => format!("{address} ({name})"),
                (_, true) => format!("{address} ({name}, for intercepted mail)"),
            }
        });
        let each: Vec<String> = each.collect();
        let mode = if all_transparent { " for intercepted mail" } else { "" };
        format!("{}{mode}", each.join(", "))
    }

    pub(super) fn status(&self) -> String {
        let doors = self.doors.as_ref().map(|(handle, _)| handle);
        let outage = self.outage();
        service_manager::status(&self.config, doors, &self.relay, outage.as_deref())
    }

    /// Why mail is not intercepted, if so.
    pub(super) fn outage(&self) -> Option<String> {
        self.interception.as_ref().and_then(|(_, watcher)| watcher.outage())
    }

    pub(super) fn ready_state(&self) -> ReadyState {
        if self.relay.is_without_upstream() {
            ReadyState::NoUpstream
        } else if self.outage().is_some() {
            ReadyState::NotIntercepting
        } else if !self.certificates.is_usable() {
            ReadyState::NoCertificate
        } else {
            ReadyState::Ready
        }
    }
}
