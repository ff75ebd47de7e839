//! Whether one path, a host's address or its IPv6 as a whole, is used: failures in a row, back-off, and trials.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::OutboundOutcome;
use super::settings::SteeringSettings;
use crate::time::Timestamp;

/// A trial whose message took another path, or was never sent, ends after this time: the longest that Postfix waits for a
/// greeting (`smtp_helo_timeout`).
const TRIAL_LIMIT: Duration = Duration::from_secs(300);

/// Why and for how long a path is avoided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Avoidance {
    pub cause: OutboundOutcome,
    pub since: Timestamp,
    /// Then one message tries the path again.
    pub until: Timestamp,
}

/// What a message should do with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SteeringDecision {
    Use,
    /// Use it, as the one message that tries whether it works again.
    Try(Avoidance),
    Avoid(Avoidance),
}

/// Who makes a trial that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialBy {
    /// The message that the decision is for. Others wait for its result.
    Message,
    /// Whichever connections come next: the kernel lets them pass, and no question precedes them.
    AnyConnection,
}

/// ```text
///             failures               `until`              fails: the wait doubles
///   used ─────────────────▶ avoided ─────────▶ on trial ─────────────────────────▶ avoided
///    ▲                         │                  │
///    └─────────────────────────┴──────────────────┘ answered
/// ```
#[derive(Clone, Debug, Default)]
pub(super) struct PathHealth {
    avoided: Option<Avoidance>,
    /// Only while it is avoided.
    trial: Option<Trial>,
    /// The latest time at which the path worked.
    worked: Option<Timestamp>,
    /// Failures since then.
    failures: u32,
    /// How long it was avoided last, also after it recovered.
    wait: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    begun: Timestamp,
    /// No message that asked makes it yet.
    is_open: bool,
}

impl PathHealth {
    pub(super) const fn avoided(&self) -> Option<Avoidance> {
        self.avoided
    }

    /// Whether a message tries the path.
    pub(super) fn is_on_trial(&self, settings: &SteeringSettings, now: Timestamp) -> bool {
        self.trial.is_some_and(|trial| now.since(trial.begun) < trial_limit(settings))
    }

    pub(super) fn on_success(&mut self, at: Timestamp) {
        self.worked = self.worked.max(Some(at));
        // An older delivery, reported late, does not end what happened after it.
        if self.avoided.is_none_or(|avoided| avoided.since <= at) {
            (self.avoided, self.trial, self.failures) = (None, None, 0);
        }
    }

    /// `enough` failures in a row, if the path worked within `retry`, lead to its avoidance; one otherwise.
    pub(super) fn on_failure(
        &mut self,
        cause: OutboundOutcome,
        at: Timestamp,
        enough: u32,
        settings: &SteeringSettings,
    ) {
        let is_trial = self.trial.take_if(|trial| trial.begun <= at).is_some();
        if self.avoided.is_some() && !is_trial {
            // Of a message that was on its way before.
            return;
        }
        if self.avoided.is_none() {
            let worked_for = self.worked.map(|worked| at.since(worked));
            self.failures = self.failures.saturating_add(1);
            if worked_for.is_some_and(|time| time < settings.retry) && self.failures < enough {
                return;
            }
            // Long enough after it recovered the back-off begins again.
            if worked_for.is_none_or(|time| time >= self.wait) {
                self.wait = Duration::ZERO;
            }
        }
        self.wait = (self.wait * 2).clamp(settings.retry, settings.retry_max);
        let since = self.avoided.map_or(at, |avoided| avoided.since);
        self.avoided = Some(Avoidance { cause, since, until: at + self.wait });
    }

    /// Begins a trial if one is due. A message takes part in one that is open to any connection, and closes it.
    pub(super) fn decide(
        &mut self,
        now: Timestamp,
        by: TrialBy,
        settings: &SteeringSettings,
    ) -> SteeringDecision {
        let Some(avoided) = self.avoided else { return SteeringDecision::Use };
        if now < avoided.until {
            return SteeringDecision::Avoid(avoided);
        }
        let is_open = by == TrialBy::AnyConnection;
        match &mut self.trial {
            Some(trial) if now.since(trial.begun) < trial_limit(settings) => {
                if is_open || !trial.is_open {
                    return SteeringDecision::Avoid(avoided);
                }
                trial.is_open = false;
            }
            _ => self.trial = Some(Trial { begun: now, is_open }),
        }
        SteeringDecision::Try(avoided)
    }
}

fn trial_limit(settings: &SteeringSettings) -> Duration {
    TRIAL_LIMIT.min(settings.retry)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: SteeringSettings =
        SteeringSettings { retry: Duration::from_secs(600), retry_max: Duration::from_secs(7200) };

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000_000_000_000) + Duration::from_secs(seconds)
    }

    fn fail(path: &mut PathHealth, seconds: u64) {
        path.on_failure(OutboundOutcome::TimedOut, at(seconds), 2, &SETTINGS);
    }

    fn avoided(path: &PathHealth) -> Option<(u64, u64)> {
        let seconds = |time: Timestamp| time.since(at(0)).as_secs();
        path.avoided().map(|avoided| (seconds(avoided.since), seconds(avoided.until)))
    }

    #[test]
    fn one_failure_is_enough_for_a_path_that_did_not_work_lately() {
        let mut path = PathHealth::default();
        assert_eq!(path.decide(at(0), TrialBy::Message, &SETTINGS), SteeringDecision::Use);
        fail(&mut path, 0);
        assert_eq!(avoided(&path), Some((0, 600)));
        assert!(matches!(
            path.decide(at(599), TrialBy::Message, &SETTINGS),
            SteeringDecision::Avoid(_)
        ));
        path.on_success(at(700));
        assert_eq!(avoided(&path), None);
        fail(&mut path, 1299);
        assert_eq!(avoided(&path), None, "it worked 599 s before");
        fail(&mut path, 1300);
        assert_eq!(avoided(&path), Some((1300, 1900)));
    }

    #[test]
    fn one_message_tries_it_again_and_the_wait_doubles() {
        let mut path = PathHealth::default();
        fail(&mut path, 0);
        // Others were on their way.
        fail(&mut path, 20);
        fail(&mut path, 30);
        let mut now = 0;
        for wait in [600, 1200, 2400, 4800, 7200, 7200] {
            assert_eq!(avoided(&path), Some((0, now + wait)));
            now += wait;
            assert!(matches!(
                path.decide(at(now), TrialBy::Message, &SETTINGS),
                SteeringDecision::Try(_)
            ));
            assert!(matches!(
                path.decide(at(now), TrialBy::Message, &SETTINGS),
                SteeringDecision::Avoid(_)
            ));
            fail(&mut path, now);
        }
    }

    #[test]
    fn a_trial_without_a_result_is_repeated() {
        let mut path = PathHealth::default();
        fail(&mut path, 0);
        assert!(matches!(
            path.decide(at(600), TrialBy::Message, &SETTINGS),
            SteeringDecision::Try(_)
        ));
        assert!(matches!(
            path.decide(at(899), TrialBy::Message, &SETTINGS),
            SteeringDecision::Avoid(_)
        ));
        assert!(matches!(
            path.decide(at(900), TrialBy::Message, &SETTINGS),
            SteeringDecision::Try(_)
        ));
        path.on_success(at(901));
        assert_eq!(path.decide(at(902), TrialBy::Message, &SETTINGS), SteeringDecision::Use);
    }

    #[test]
    fn a_path_that_fails_again_soon_after_it_recovered_waits_longer() {
        let mut path = PathHealth::default();
        fail(&mut path, 0);
        assert!(matches!(
            path.decide(at(600), TrialBy::Message, &SETTINGS),
            SteeringDecision::Try(_)
        ));
        path.on_success(at(600));
        fail(&mut path, 610);
        fail(&mut path, 620);
        assert_eq!(avoided(&path), Some((620, 1820)));
        assert!(matches!(
            path.decide(at(1820), TrialBy::Message, &SETTINGS),
            SteeringDecision::Try(_)
        ));
        path.on_success(at(1820));
        fail(&mut path, 9999);
        assert_eq!(avoided(&path), Some((9999, 10_599)));
    }

    #[test]
    fn a_delivery_that_is_reported_late_ends_nothing() {
        let mut path = PathHealth::default();
        fail(&mut path, 100);
        path.on_success(at(99));
        assert_eq!(avoided(&path), Some((100, 700)));
        path.on_success(at(100));
        assert_eq!(avoided(&path), None);
    }

    /// Otherwise the kernel's trials, one after the other, would keep every message that asks from the path.
    #[test]
    fn a_message_takes_part_in_an_open_trial() {
        let mut path = PathHealth::default();
        fail(&mut path, 0);
        let decide = |path: &mut PathHealth, seconds, by| path.decide(at(seconds), by, &SETTINGS);
        for begun in [600, 900] {
            assert!(matches!(
                decide(&mut path, begun, TrialBy::AnyConnection),
                SteeringDecision::Try(_)
            ));
            for (by, tries) in [
                (TrialBy::AnyConnection, false),
                (TrialBy::Message, true),
                (TrialBy::Message, false),
                (TrialBy::AnyConnection, false),
            ] {
                let decision = decide(&mut path, begun + 1, by);
                assert_eq!(matches!(decision, SteeringDecision::Try(_)), tries, "{by:?}");
            }
        }
        fail(&mut path, 930);
        assert_eq!(avoided(&path), Some((0, 930 + 1200)));
    }
}
