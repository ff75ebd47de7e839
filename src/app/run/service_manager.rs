//! Notifications to the service manager (sd_notify(3)); without one they do nothing.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::door_config::door_config;
use crate::addr::Family;
use crate::app::door::DoorHandle;
use crate::config::Config;
use crate::humanize;
use crate::relay::Relay;

#[derive(Default)]
pub(super) struct ServiceManager {
    /// As sent last.
    status: String,
    watchdog: Watchdog,
}

/// Notified only while every worker makes progress: a restart serves the clients of a hung worker better.
#[derive(Default)]
struct Watchdog {
    /// `None` without a watchdog.
    interval: Option<Duration>,
    last: Option<Instant>,
    /// The workers' heartbeats at the last notification.
    heartbeats: Vec<u64>,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        // Twice within the limit, as sd_watchdog_enabled(3) recommends.
        let interval = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { status: String::new(), watchdog: Watchdog { interval, ..Watchdog::default() } }
    }

    pub(super) fn notify_ready(&mut self, status: String) {
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// [`Self::notify_ready`] ends the reload.
    pub(super) fn notify_reloading(&self) {
        // systemd.service(5), notify-reload: the time identifies the reload.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, now]);
        }
    }

    pub(super) fn notify_stopping(&mut self, status: String) {
        notify(&[NotifyState::Stopping, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// Once a second.
    pub(super) fn on_tick(&mut self, status: String, relay: &Relay) {
        if status != self.status {
            notify(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        if self.watchdog.is_due(Instant::now(), relay.heartbeats().collect()) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

impl Watchdog {
    /// Whether the interval has passed and every heartbeat changed since the last notification.
    fn is_due(&mut self, now: Instant, heartbeats: Vec<u64>) -> bool {
        let Some(interval) = self.interval else { return false };
        let has_passed = self.last.is_none_or(|last| now.duration_since(last) >= interval);
        let all_alive = self.heartbeats.len() != heartbeats.len()
            || self.heartbeats.iter().zip(&heartbeats).all(|(before, after)| before != after);
        let is_due = has_passed && all_alive;
        if is_due {
            (self.last, self.heartbeats) = (Some(now), heartbeats);
        }
        is_due
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // A service manager that is gone needs no notification.
    let _not_sent = sd_notify::notify(states);
}

/// The status line of `systemctl status`.
pub(super) fn status(
    config: &Config,
    doors: Option<&DoorHandle>,
    relay: &Relay,
    outage: Option<&str>,
) -> String {
    if let Some(reason) = outage {
        return format!("NOT INTERCEPTING, mail goes to the servers directly: {reason}");
    }
    if config.relay.listeners.is_empty() {
        let answers = config.policy_service.is_some() || config.outbound.is_some();
        return if answers { "answering Postfix" } else { "no listener" }.to_owned();
    }
    let settings = door_config(config);
    let door = |family: &Family| {
        let name = humanize::family(*family);
        let has_door = settings.as_ref().is_some_and(|settings| settings.of(*family).is_some());
        match doors.and_then(|doors| doors.state(*family)).filter(|_| has_door) {
            Some(state) => format!("{name} {state}"),
            None => format!("{name} always open"),
        }
    };
    let listens = |family: &Family| relay.addresses().any(|own| Family::of(own.ip()) == *family);
    // IPv6 first: it is the family that usually has a door.
    let doors: Vec<String> = Family::ALL.iter().rev().filter(|f| listens(f)).map(door).collect();
    let mut upstreams = config.relay.upstreams().into_iter();
    let upstream = match upstreams.all(|upstream| upstream.addresses.is_empty()) {
        true => "relaying to original destinations",
        false if relay.is_without_upstream() => "no upstream accepts connections",
        false => "upstream accepts connections",
    };
    format!("doors: {}; {upstream}", doors.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_notified_while_every_worker_makes_progress() {
        let mut watchdog =
            Watchdog { interval: Some(Duration::from_secs(30)), ..Watchdog::default() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(watchdog.is_due(at(0), vec![1, 1]));
        assert!(!watchdog.is_due(at(29), vec![100, 100]), "not yet");
        assert!(!watchdog.is_due(at(30), vec![100, 1]), "one worker hangs");
        assert!(watchdog.is_due(at(31), vec![104, 2]));
        assert!(!Watchdog::default().is_due(at(0), vec![1]));
    }
}
