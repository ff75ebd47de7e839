//! What the service manager is told (sd_notify(3)); without one, nothing.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::doors;
use crate::addr::Family;
use crate::app::door::Keeper;
use crate::config::Config;
use crate::relay::Relay;

/// What was told last.
#[derive(Default)]
pub(super) struct Service {
    status: String,
    watchdog: Watchdog,
}

/// Fed only while every worker lives: one that hangs keeps its clients waiting, and they are better served by a restart.
#[derive(Default)]
struct Watchdog {
    /// `None`: there is none.
    every: Option<Duration>,
    fed: Option<Instant>,
    beats: Vec<u64>,
}

impl Service {
    pub(super) fn start() -> Self {
        // Twice in the time that it gives us.
        let every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { status: String::new(), watchdog: Watchdog { every, ..Watchdog::default() } }
    }

    pub(super) fn ready(&mut self, status: String) {
        tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// Until it is ready again.
    pub(super) fn reloading(&self) {
        // systemd.service(5), notify-reload: the time is what it knows by that it is this reload.
        if let Ok(now) = NotifyState::monotonic_usec_now() {
            tell(&[NotifyState::Reloading, now]);
        }
    }

    pub(super) fn stopping(&mut self, status: String) {
        tell(&[NotifyState::Stopping, NotifyState::Status(&status)]);
        self.status = status;
    }

    /// Once a second.
    pub(super) fn look(&mut self, status: String, relay: &Relay) {
        if status != self.status {
            tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
        if self.watchdog.is_hungry(Instant::now(), relay.heartbeats().collect()) {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

impl Watchdog {
    /// Whether it is time to feed it and every one of `beats` went on since it was fed.
    fn is_hungry(&mut self, now: Instant, beats: Vec<u64>) -> bool {
        let Some(every) = self.every else { return false };
        let is_due = self.fed.is_none_or(|fed| now.duration_since(fed) >= every);
        let all_live = self.beats.len() != beats.len()
            || self.beats.iter().zip(&beats).all(|(before, after)| before != after);
        let is_hungry = is_due && all_live;
        if is_hungry {
            (self.fed, self.beats) = (Some(now), beats);
        }
        is_hungry
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // A manager that is gone needs no telling.
    let _nobody_listens = sd_notify::notify(states);
}

/// In a sentence, for `systemctl status`.
pub(super) fn status(config: &Config, keeper: Option<&Keeper>, relay: &Relay) -> String {
    let guarded = doors(config);
    // As people name them: the one that is guarded first.
    let door = |family: &Family| {
        let name = match family {
            Family::Ipv6 => "IPv6",
            Family::Ipv4 => "IPv4",
        };
        let is_guarded = guarded.as_ref().is_some_and(|doors| doors.of(*family).is_some());
        match keeper.and_then(|keeper| keeper.state(*family)).filter(|_| is_guarded) {
            Some(state) => format!("{name} {state}"),
            None => format!("{name} always open"),
        }
    };
    let listens = |family: &Family| relay.addresses().any(|own| Family::of(own.ip()) == *family);
    let doors: Vec<String> = Family::ALL.iter().rev().filter(|f| listens(f)).map(door).collect();
    let upstream = match config.relay.upstream.addresses.len() {
        0 => "relaying to where clients meant to go",
        _ if relay.is_without_upstream() => "no upstream takes connections",
        _ => "upstream takes connections",
    };
    format!("doors: {}; {upstream}", doors.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_fed_while_every_worker_lives() {
        let mut watchdog = Watchdog { every: Some(Duration::from_secs(30)), ..Watchdog::default() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(watchdog.is_hungry(at(0), vec![1, 1]));
        assert!(!watchdog.is_hungry(at(29), vec![100, 100]), "not yet");
        assert!(!watchdog.is_hungry(at(30), vec![100, 1]), "one stands still");
        assert!(watchdog.is_hungry(at(31), vec![104, 2]));
        assert!(!Watchdog::default().is_hungry(at(0), vec![1]));
    }
}
