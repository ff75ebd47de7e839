//! Decisions about a running interception: when to repair it, when to give it up for a while, when it works again. Pure
//! functions of inspections and time; `app` carries them out.
//!
//! A change by others is repaired at once. If the repair fails, or the interception is broken again soon after it, twice
//! within a minute, mail must not suffer from the struggle: the interception is removed, mail passes uninspected, and once a
//! minute it is tried again. The same if SYNs are taken but none arrives at the gateway.

use std::time::{Duration, Instant};

use super::counters::InterceptCounters;
use super::interception::Inspection;
use super::losses::LossDetector;
pub use super::losses::Suspicion;
use crate::addr::Family;

/// Two failures within it end the attempts; a repair that holds so long is a success.
const MINUTE: Duration = Duration::from_secs(60);
const FAILURES: usize = 2;
/// The least time between two adaptations to the host.
const ADAPT_EVERY: Duration = Duration::from_secs(4);
/// While nothing is intercepted, the log repeats it.
const REMIND_EVERY: Duration = Duration::from_secs(3600);
/// Connections that are older than the interception are spared until none had packets for so long, ...
const SPARE_IDLE: Duration = Duration::from_secs(15 * 60);
/// ... and at most so long.
const SPARE_MOST: Duration = Duration::from_secs(2 * 3600);

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchStep {
    Nothing,
    /// Install it again: this was found.
    Repair(String),
    /// Install it again: the host has changed so.
    Adapt(String),
    /// Remove it: mail passes uninspected. Without a text, the log has the reason already.
    FailOpen(Option<String>),
    /// Try to install it again.
    Retry,
    /// Packets of earlier connections no longer pass by.
    EndSparing,
    /// It works again, after this time without.
    Recovered(Duration),
    /// It has not worked for this time.
    Remind(Duration),
}

#[derive(Clone, Debug)]
enum WatchState {
    Intercepting,
    /// Removed.
    Open {
        outage: Outage,
        retry_at: Instant,
    },
    /// Installed again.
    Trial {
        outage: Outage,
        began: Instant,
    },
}

#[derive(Clone, Debug)]
struct Outage {
    since: Instant,
    reason: String,
    reminded: Instant,
    /// Over only when a SYN of this family arrives.
    lost: Option<Family>,
}

/// Earlier connections that pass by.
#[derive(Clone, Copy, Debug)]
struct Sparing {
    since: Instant,
    last_packet: Instant,
    packets: u64,
}

#[derive(Debug)]
pub struct InterceptionWatch {
    state: WatchState,
    last_repair: Option<Instant>,
    last_adaptation: Option<Instant>,
    /// Repairs that failed or did not last.
    failures: Vec<Instant>,
    losses: [LossDetector; 2],
    sparing: Option<Sparing>,
}

impl Default for InterceptionWatch {
    fn default() -> Self {
        Self {
            state: WatchState::Intercepting,
            last_repair: None,
            last_adaptation: None,
            failures: Vec::new(),
            losses: [LossDetector::default(); 2],
            sparing: None,
        }
    }
}

impl InterceptionWatch {
    /// Why mail is not intercepted, or not certain to be.
    pub fn outage(&self) -> Option<&str> {
        match &self.state {
            WatchState::Intercepting => None,
            WatchState::Open { outage, .. } | WatchState::Trial { outage, .. } => {
                Some(&outage.reason)
            }
        }
    }

    /// An outage is being ended: its result is wanted soon.
    pub const fn is_on_trial(&self) -> bool {
        matches!(self.state, WatchState::Trial { .. })
    }

    /// Takes the counters; returns how many SYNs of each family were lost since the last call.
    pub fn on_counters(&mut self, counters: &InterceptCounters, now: Instant) -> [u64; 2] {
        if let Some(sparing) = &mut self.sparing
            && counters.earlier > sparing.packets
        {
            (sparing.packets, sparing.last_packet) = (counters.earlier, now);
        }
        Family::ALL.map(|family| {
            let (taken, arrived) =
                (counters.taken[family as usize], counters.arrived[family as usize]);
            self.losses[family as usize].on_counts(taken, arrived, now)
        })
    }

    /// By family, for `Interception::sources`.
    pub fn suspicion(&self, family: Family, now: Instant) -> Suspicion {
        match self.state {
            WatchState::Open { .. } => Suspicion::None,
            _ => self.losses[family as usize].suspicion(now),
        }
    }

    /// After a suspicion: from so many sources came SYNs since the latest arrival. Returns whether all mail is lost.
    pub fn on_sources(&self, suspicion: Suspicion, sources: usize) -> bool {
        match suspicion {
            Suspicion::None => false,
            Suspicion::All(_) => true,
            Suspicion::Sources { .. } => LossDetector::is_certain(sources),
        }
    }

    /// All mail of a family is lost.
    pub fn on_loss(&mut self, family: Family, reason: String, now: Instant) -> WatchStep {
        self.losses[family as usize].restart(true);
        self.fail_open(reason, Some(family), now)
    }

    pub fn on_inspection(&mut self, inspection: &Inspection, now: Instant) -> WatchStep {
        self.on_sparing(inspection, now);
        if let WatchState::Open { outage, retry_at } = &mut self.state {
            // Such as by a reload.
            if inspection.is_installed {
                self.begin_trial(now);
            } else if now >= *retry_at {
                return WatchStep::Retry;
            } else if now.saturating_duration_since(outage.reminded) >= REMIND_EVERY {
                outage.reminded = now;
                return WatchStep::Remind(now.saturating_duration_since(outage.since));
            } else {
                return WatchStep::Nothing;
            }
        }
        if !inspection.damage.is_empty() {
            return self.on_damage(&inspection.damage.join("; "), now);
        }
        if let WatchState::Trial { outage, began } = &self.state {
            let works = match outage.lost {
                Some(family) => self.losses[family as usize].has_arrival(),
                None => now.saturating_duration_since(*began) >= MINUTE,
            };
            if works {
                let lasted = now.saturating_duration_since(outage.since);
                self.state = WatchState::Intercepting;
                return WatchStep::Recovered(lasted);
            }
        }
        if !inspection.changes.is_empty()
            && self
                .last_adaptation
                .is_none_or(|at| now.saturating_duration_since(at) >= ADAPT_EVERY)
        {
            self.last_adaptation = Some(now);
            return WatchStep::Adapt(inspection.changes.join("; "));
        }
        match self.sparing {
            Some(Sparing { since, last_packet, .. })
                if now.saturating_duration_since(last_packet) >= SPARE_IDLE
                    || now.saturating_duration_since(since) >= SPARE_MOST =>
            {
                WatchStep::EndSparing
            }
            _ => WatchStep::Nothing,
        }
    }

    fn on_sparing(&mut self, inspection: &Inspection, now: Instant) {
        let packets = inspection.counters.earlier;
        if inspection.spares_earlier {
            let new = Sparing { since: now, last_packet: now, packets };
            self.sparing.get_or_insert(new);
        } else {
            self.sparing = None;
        }
    }

    fn on_damage(&mut self, damage: &str, now: Instant) -> WatchStep {
        if self.is_on_trial() {
            return self.end_trial(now);
        }
        let is_again =
            self.last_repair.is_some_and(|at| now.saturating_duration_since(at) < MINUTE);
        if is_again && self.has_failed(now) {
            let reason = format!("it was repaired, and is broken again: {damage}");
            return self.fail_open(reason, None, now);
        }
        WatchStep::Repair(damage.to_owned())
    }

    /// The repair succeeded, or, if there was no damage, the adaptation. Earlier connections are spared anew.
    pub fn on_repaired(&mut self, was_damaged: bool, now: Instant) {
        self.sparing = None;
        if was_damaged {
            self.last_repair = Some(now);
            self.losses.iter_mut().for_each(|detector| detector.restart(false));
        }
    }

    /// [`WatchStep::EndSparing`] failed; it is tried again later.
    pub fn on_sparing_kept(&mut self) {
        self.sparing = None;
    }

    /// The repair failed.
    pub fn on_repair_failed(&mut self, error: &str, now: Instant) -> WatchStep {
        if self.has_failed(now) {
            return self.fail_open(format!("it cannot be repaired: {error}"), None, now);
        }
        WatchStep::Nothing
    }

    /// The result of [`WatchStep::Retry`].
    pub fn on_retried(&mut self, installed: bool, now: Instant) {
        if installed {
            self.begin_trial(now);
            self.sparing = None;
        } else if let WatchState::Open { retry_at, .. } = &mut self.state {
            *retry_at = now + MINUTE;
        }
    }

    fn begin_trial(&mut self, now: Instant) {
        if let WatchState::Open { outage, .. } = &self.state {
            self.state = WatchState::Trial { outage: outage.clone(), began: now };
            self.losses.iter_mut().for_each(|detector| detector.restart(false));
        }
    }

    /// The outage goes on.
    fn end_trial(&mut self, now: Instant) -> WatchStep {
        if let WatchState::Trial { outage, .. } = &self.state {
            self.state = WatchState::Open { outage: outage.clone(), retry_at: now + MINUTE };
        }
        WatchStep::FailOpen(None)
    }

    fn fail_open(&mut self, reason: String, lost: Option<Family>, now: Instant) -> WatchStep {
        if self.is_on_trial() {
            return self.end_trial(now);
        }
        let outage = Outage { since: now, reason: reason.clone(), reminded: now, lost };
        self.state = WatchState::Open { outage, retry_at: now + MINUTE };
        self.failures.clear();
        self.last_repair = None;
        WatchStep::FailOpen(Some(reason))
    }

    /// Counts a failure; returns whether there are too many.
    fn has_failed(&mut self, now: Instant) -> bool {
        self.failures.retain(|at| now.saturating_duration_since(*at) < MINUTE);
        self.failures.push(now);
        self.failures.len() >= FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Run {
        watch: InterceptionWatch,
        start: Instant,
    }

    fn fine() -> Inspection {
        Inspection { is_installed: true, ..Inspection::default() }
    }

    fn broken() -> Inspection {
        Inspection { damage: vec!["the table is missing".into()], ..fine() }
    }

    fn removed() -> Inspection {
        Inspection::default()
    }

    fn counters(taken: u64, arrived: u64) -> InterceptCounters {
        InterceptCounters { taken: [taken, 0], arrived: [arrived, 0], ..Default::default() }
    }

    impl Run {
        fn new() -> Self {
            Self { watch: InterceptionWatch::default(), start: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        fn sees(&mut self, inspection: &Inspection, seconds: u64) -> WatchStep {
            let now = self.at(seconds);
            self.watch.on_inspection(inspection, now)
        }

        fn repaired(&mut self, seconds: u64) {
            let now = self.at(seconds);
            self.watch.on_repaired(true, now);
        }
    }

    #[test]
    fn damage_is_repaired_each_time_if_it_is_rare() {
        let mut run = Run::new();
        assert_eq!(run.sees(&fine(), 0), WatchStep::Nothing);
        for seconds in (0..600).step_by(61) {
            let repair = WatchStep::Repair("the table is missing".into());
            assert_eq!(run.sees(&broken(), seconds), repair);
            run.repaired(seconds);
        }
        assert_eq!(run.watch.outage(), None);
    }

    #[test]
    fn a_repair_that_does_not_last_twice_in_a_minute_ends_in_failing_open() {
        let mut run = Run::new();
        for seconds in [0, 10] {
            assert!(matches!(run.sees(&broken(), seconds), WatchStep::Repair(_)));
            run.repaired(seconds);
        }
        let WatchStep::FailOpen(Some(reason)) = run.sees(&broken(), 20) else { panic!() };
        assert_eq!(reason, "it was repaired, and is broken again: the table is missing");
        assert_eq!(run.watch.outage(), Some(reason.as_str()));
    }

    #[test]
    fn a_repair_that_fails_twice_ends_in_failing_open() {
        let mut run = Run::new();
        assert!(matches!(run.sees(&broken(), 0), WatchStep::Repair(_)));
        let now = run.at(0);
        assert_eq!(run.watch.on_repair_failed("refused", now), WatchStep::Nothing);
        assert!(matches!(run.sees(&broken(), 3), WatchStep::Repair(_)));
        let step = run.watch.on_repair_failed("refused", now);
        assert_eq!(step, WatchStep::FailOpen(Some("it cannot be repaired: refused".into())));
    }

    fn opened() -> Run {
        let mut run = Run::new();
        for seconds in [0, 1, 2] {
            run.sees(&broken(), seconds);
            run.repaired(seconds);
        }
        assert!(run.watch.outage().is_some());
        run
    }

    #[test]
    fn an_outage_ends_after_a_minute_that_lasts() {
        let mut run = opened();
        assert_eq!(run.sees(&removed(), 30), WatchStep::Nothing);
        assert_eq!(run.sees(&removed(), 62), WatchStep::Retry);
        let now = run.at(62);
        run.watch.on_retried(true, now);
        assert_eq!(run.sees(&fine(), 100), WatchStep::Nothing, "on trial");
        assert!(run.watch.outage().is_some());
        assert_eq!(run.sees(&fine(), 122), WatchStep::Recovered(Duration::from_secs(120)));
        assert_eq!(run.watch.outage(), None);
    }

    #[test]
    fn an_outage_is_logged_once_and_then_once_an_hour() {
        let mut run = opened();
        let mut lines = 0;
        for seconds in (62..7200).step_by(3) {
            match run.sees(&removed(), seconds) {
                WatchStep::Retry => {
                    let now = run.at(seconds);
                    run.watch.on_retried(true, now);
                    assert_eq!(run.sees(&broken(), seconds), WatchStep::FailOpen(None));
                }
                WatchStep::Remind(_) => lines += 1,
                step => assert_eq!(step, WatchStep::Nothing),
            }
        }
        assert_eq!(lines, 1);
    }

    #[test]
    fn a_reload_begins_a_trial() {
        let mut run = opened();
        assert_eq!(run.sees(&fine(), 5), WatchStep::Nothing);
        assert!(run.watch.is_on_trial());
    }

    #[test]
    fn when_all_mail_was_lost_only_an_arrival_ends_the_outage() {
        let mut run = Run::new();
        let now = run.at(1);
        run.watch.on_counters(&counters(3, 0), now);
        let suspicion = run.watch.suspicion(Family::Ipv4, now);
        assert_eq!(suspicion, Suspicion::All(3));
        assert!(run.watch.on_sources(suspicion, 1));
        assert_eq!(
            run.watch.on_loss(Family::Ipv4, "lost".into(), now),
            WatchStep::FailOpen(Some("lost".into()))
        );
        assert_eq!(run.watch.suspicion(Family::Ipv4, now), Suspicion::None);
        assert_eq!(run.sees(&removed(), 61), WatchStep::Retry);
        let now = run.at(61);
        run.watch.on_retried(true, now);
        assert_eq!(run.sees(&fine(), 200), WatchStep::Nothing, "no SYN arrived");
        // Lost again: no second line.
        run.watch.on_counters(&counters(6, 0), now);
        assert_eq!(run.watch.suspicion(Family::Ipv4, now), Suspicion::All(3));
        assert_eq!(run.watch.on_loss(Family::Ipv4, "lost".into(), now), WatchStep::FailOpen(None));
        assert_eq!(run.sees(&removed(), 261), WatchStep::Retry);
        let now = run.at(261);
        run.watch.on_retried(true, now);
        run.watch.on_counters(&counters(7, 1), now);
        assert_eq!(run.sees(&fine(), 262), WatchStep::Recovered(Duration::from_secs(261)));
    }

    #[test]
    fn a_banned_source_is_no_loss() {
        let mut run = Run::new();
        let now = run.at(1);
        run.watch.on_counters(&counters(1, 1), now);
        run.watch.on_counters(&counters(9, 1), now);
        let suspicion = run.watch.suspicion(Family::Ipv4, run.at(5));
        assert!(!run.watch.on_sources(suspicion, 1));
        assert!(run.watch.on_sources(suspicion, 3));
    }

    #[test]
    fn adaptations_are_no_failures_but_limited() {
        let mut run = Run::new();
        let changed = Inspection { changes: vec!["a NAT chain appeared".into()], ..fine() };
        let mut adaptations = 0;
        for seconds in 0..60 {
            match run.sees(&changed, seconds) {
                WatchStep::Adapt(_) => adaptations += 1,
                step => assert_eq!(step, WatchStep::Nothing),
            }
        }
        assert_eq!(adaptations, 15);
    }

    #[test]
    fn sparing_ends_when_earlier_connections_are_idle_or_after_two_hours() {
        let earlier = |packets| InterceptCounters { earlier: packets, ..Default::default() };
        let sparing =
            |packets| Inspection { spares_earlier: true, counters: earlier(packets), ..fine() };
        let mut run = Run::new();
        assert_eq!(run.sees(&sparing(0), 0), WatchStep::Nothing);
        assert_eq!(run.sees(&sparing(0), 899), WatchStep::Nothing);
        assert_eq!(run.sees(&sparing(0), 900), WatchStep::EndSparing);
        run.sees(&fine(), 901);

        // Spared again, with packets all the time.
        let mut end = None;
        for seconds in (1000..20_000).step_by(60) {
            let now = run.at(seconds);
            run.watch.on_counters(&earlier(seconds), now);
            if run.sees(&sparing(seconds), seconds) == WatchStep::EndSparing {
                end = end.or(Some(seconds));
            }
        }
        assert_eq!(end, Some(1000 + 7200));
    }
}
