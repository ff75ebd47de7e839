//! Mail over one family that stops arriving, while the other family delivers.
//!
//! A fault on the way to us (a route, a tunnel, an AAAA record that is gone) shows here only as silence. Without a vantage,
//! that silence is the only sign. It never closes a door: perhaps nobody has mail for us.
//!
//! The share `p` of this family among the sessions that deliver mail is estimated from history. While nothing arrives over this
//! family, the arrivals over the other one are counted: if each arrival independently is of this family with probability `p`,
//! `n` arrivals of the other family in a row have the probability `(1-p)^n`. The sign is raised when that is less than one in
//! the number of such runs in a year at the present volume, so that it is false **at most once a year**. Examples, with a
//! share of 20 %: at 2,000 sessions an hour in all the sign takes two and a half minutes, at 100 an hour three quarters of an
//! hour. The estimate errs on the side of fewer alarms:
//!
//! - `p` is the lower end of its 99 % confidence interval (Wilson 1927), over a week or over six hours, whichever is less: the
//!   share changes with the time of day.
//! - Real mail comes in bursts. In a run a network of the other family counts for no more than three times its usual rate, and
//!   one that was never seen counts once: a newsletter sent to us over IPv4 raises nothing.
//! - History contains finished runs only. The silence itself does not dilute it.
//! - At least [`MIN_HISTORY`] arrivals, and [`MIN_SILENCE`] of silence.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::addr::{Family, NetworkKey};
use crate::humanize::{counted, duration, family as family_name};
use crate::time::Timestamp;

/// Arrivals of the family before anything is expected.
const MIN_HISTORY: f64 = 20.0;
/// Shorter pauses are no silence: a link that flaps, a restart.
const MIN_SILENCE: Duration = Duration::from_secs(60);
/// Time constants of the two estimates of the share.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3_600);
const HOURS: Duration = Duration::from_secs(6 * 3_600);
const YEAR: f64 = 365.25 * 24.0 * 3_600.0;
/// A short history has at least so many runs in a year.
const MIN_RUNS: f64 = 1_000.0;
/// Quantile of the normal distribution: one side, 99 %.
const Z: f64 = 2.326;
/// How many times its usual rate a network may have in a run.
const BURST: f64 = 3.0;
/// Networks that are remembered, in history and in a run. Beyond it new ones are not counted.
const MAX_NETWORKS: usize = 4096;

/// Below it the weights are applied, before they become too small for a float.
const MIN_SCALE: f64 = 1e-60;

/// Watches one family.
#[derive(Clone, Debug)]
pub struct SilenceDetector {
    family: Family,
    week: History,
    hours: History,
    /// Arrivals of the other family by network, weighted as in `week`, divided by `scale`.
    networks: BTreeMap<NetworkKey, f64>,
    /// The weight of everything in `networks`: it decays in one place.
    scale: f64,
    run: Run,
}

/// Exponentially weighted counts.
#[derive(Clone, Copy, Debug)]
struct History {
    constant: Duration,
    began: Option<Timestamp>,
    updated: Timestamp,
    own: f64,
    other: f64,
}

/// Since the last arrival of the family.
#[derive(Clone, Debug, Default)]
struct Run {
    since: Option<Timestamp>,
    others: BTreeMap<NetworkKey, u32>,
    sessions: u32,
}

/// Mail of a family is missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SilenceSign {
    /// The last session that delivered mail over the family.
    pub since: Timestamp,
    /// Sessions that delivered mail over the other family since.
    pub other_sessions: u32,
    /// Sessions that were expected over the family, at least.
    pub expected: f64,
}

impl SilenceSign {
    /// For people: a clause.
    pub fn text(&self, of: Family, now: Timestamp) -> String {
        let sessions = counted(self.other_sessions.into(), "session");
        format!(
            "no mail arrived over {} for {}, while {sessions} delivered mail over {}; about {:.0} were expected",
            family_name(of),
            duration(now.since(self.since)),
            family_name(of.other()),
            self.expected.max(1.0)
        )
    }
}

impl SilenceDetector {
    pub const fn new(family: Family) -> Self {
        Self {
            family,
            week: History::new(WEEK),
            hours: History::new(HOURS),
            networks: BTreeMap::new(),
            scale: 1.0,
            run: Run { since: None, others: BTreeMap::new(), sessions: 0 },
        }
    }

    /// A session of `arrived` that delivered mail, or proved otherwise that mail arrives.
    pub fn on_arrival(&mut self, arrived: Family, network: NetworkKey, at: Timestamp) {
        if arrived == self.family {
            self.finish_run(at);
        } else if self.run.since.is_some() {
            self.run.sessions = self.run.sessions.saturating_add(1);
            if self.run.others.len() < MAX_NETWORKS || self.run.others.contains_key(&network) {
                let count = self.run.others.entry(network).or_default();
                *count = count.saturating_add(1);
            }
        }
    }

    /// The gateway refuses the family: nothing can arrive, so nothing is missing.
    pub fn on_refused(&mut self, at: Timestamp) {
        self.run = Run { since: self.run.since.map(|since| since.max(at)), ..Run::default() };
    }

    /// The sign at `now`; it remains until mail arrives.
    pub fn sign(&self, now: Timestamp) -> Option<SilenceSign> {
        let since = self.run.since?;
        if now.since(since) < MIN_SILENCE {
            return None;
        }
        let share = self.share()?;
        let arrivals = self.effective(now);
        let needed = self.runs_in_a_year().ln() / -(1.0 - share).ln();
        (arrivals >= needed).then(|| SilenceSign {
            since,
            other_sessions: self.run.sessions,
            expected: arrivals * share / (1.0 - share),
        })
    }

    fn finish_run(&mut self, at: Timestamp) {
        let others = self.effective(at);
        self.scale *= self.week.add(others, at);
        self.hours.add(others, at);
        if self.scale < MIN_SCALE {
            self.networks.values_mut().for_each(|count| *count *= self.scale);
            self.scale = 1.0;
        }
        if self.run.others.len() + self.networks.len() > MAX_NETWORKS {
            self.networks.retain(|_, count| *count * self.scale >= 0.5);
        }
        for (network, count) in std::mem::take(&mut self.run.others) {
            if self.networks.len() < MAX_NETWORKS || self.networks.contains_key(&network) {
                *self.networks.entry(network).or_default() += f64::from(count) / self.scale;
            }
        }
        self.run = Run { since: Some(at), ..Run::default() };
    }

    /// The arrivals of the other family in this run up to `now`, without bursts.
    fn effective(&self, now: Timestamp) -> f64 {
        let Some(since) = self.run.since else { return 0.0 };
        let span = now.since(since).as_secs_f64() / self.week.span();
        let counted = self.run.others.iter().map(|(network, count)| {
            let known = self.networks.get(network).copied().unwrap_or_default() * self.scale;
            f64::from(*count).min((BURST * known * span).max(1.0))
        });
        counted.sum()
    }

    /// The least share of this family that agrees with the history; `None` while that is too short.
    fn share(&self) -> Option<f64> {
        let week = self.week.counts().filter(|(own, _)| *own >= MIN_HISTORY)?;
        let lower = |(own, other)| wilson_lower(own, own + other);
        // After some hours with few arrivals the short history says little.
        let hours = self.hours.counts().filter(|(own, other)| own + other >= MIN_HISTORY);
        let share = hours.map_or_else(|| lower(week), |hours| lower(hours).min(lower(week)));
        Some(share.clamp(1e-6, 0.999))
    }

    /// Each arrival of the family begins a run.
    fn runs_in_a_year(&self) -> f64 {
        (self.week.rate() * YEAR).max(MIN_RUNS)
    }
}

impl History {
    const fn new(constant: Duration) -> Self {
        let updated = Timestamp::from_nanos(0);
        Self { constant, began: None, updated, own: 0.0, other: 0.0 }
    }

    fn weight(&self, at: Timestamp) -> f64 {
        (-at.since(self.updated).as_secs_f64() / self.constant.as_secs_f64()).exp()
    }

    /// Adds an arrival of the family and the `others` before it. Returns the weight of everything before.
    fn add(&mut self, others: f64, at: Timestamp) -> f64 {
        let weight = self.weight(at);
        self.began.get_or_insert(at);
        self.updated = self.updated.max(at);
        self.own = self.own * weight + 1.0;
        self.other = self.other * weight + others;
        weight
    }

    /// The weights are those of the last arrival: silence does not dilute the history.
    fn counts(&self) -> Option<(f64, f64)> {
        self.began.map(|_| (self.own, self.other))
    }

    /// Arrivals of the family in a second.
    fn rate(&self) -> f64 {
        self.own / self.span()
    }

    /// The time that the counts stand for, in seconds.
    fn span(&self) -> f64 {
        let constant = self.constant.as_secs_f64();
        let span = self.began.map_or(0.0, |began| self.updated.since(began).as_secs_f64());
        constant * (1.0 - (-span.max(1.0) / constant).exp())
    }
}

/// Lower end of the Wilson score interval of `own` successes in `all` trials.
fn wilson_lower(own: f64, all: f64) -> f64 {
    if all <= 0.0 {
        return 0.0;
    }
    let share = own / all;
    let squared = Z * Z / all;
    let spread = Z * (share * (1.0 - share) / all + squared / (4.0 * all)).sqrt();
    (share + squared / 2.0 - spread) / (1.0 + squared)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

    /// xorshift64*: the same sequence in each run.
    struct Random(u64);

    impl Random {
        fn uniform(&mut self) -> f64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
            (bits as f64 + 0.5) / (1_u64 << 53) as f64
        }

        /// Time to the next arrival of a Poisson process, in seconds.
        fn wait(&mut self, rate: f64) -> f64 {
            -self.uniform().ln() / rate
        }
    }

    /// A site: independent senders in 200 networks.
    struct Site {
        random: Random,
        detector: SilenceDetector,
        now: f64,
        /// Arrivals of both families in a second.
        rate: f64,
        share: f64,
    }

    impl Site {
        fn new(seed: u64, per_hour: f64, share: f64) -> Self {
            let detector = SilenceDetector::new(Family::Ipv6);
            let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            Self { random, detector, now: 0.0, rate: per_hour / 3_600.0, share }
        }

        fn at(&self) -> Timestamp {
            START + Duration::from_secs_f64(self.now)
        }

        fn arrive(&mut self, ipv6_works: bool) {
            self.now += self.random.wait(self.rate);
            let family = match self.random.uniform() < self.share {
                true if ipv6_works => Family::Ipv6,
                // The sender falls back.
                _ => Family::Ipv4,
            };
            let network = (self.random.uniform() * 200.0) as u8;
            self.detector.on_arrival(family, network_of(network), self.at());
        }

        fn run(&mut self, days: f64) -> (u32, u32) {
            let end = self.now + days * 86_400.0;
            let (mut arrivals, mut alarms, mut raised) = (0, 0, false);
            while self.now < end {
                self.arrive(true);
                arrivals += 1;
                let sign = self.detector.sign(self.at()).is_some();
                alarms += u32::from(sign && !raised);
                raised = sign;
            }
            (arrivals, alarms)
        }
    }

    fn network_of(number: u8) -> NetworkKey {
        NetworkKey::of(IpAddr::V4(Ipv4Addr::new(198, 51, number, 1)))
    }

    /// The stated rate: at most one false alarm in a year at each site.
    #[test]
    fn false_alarms_are_at_most_one_a_year() {
        let mut report = String::new();
        for (per_hour, share, years) in [(20.0, 0.1, 10.0), (60.0, 0.3, 5.0), (400.0, 0.2, 1.0)] {
            let mut site = Site::new(7, per_hour, share);
            let (arrivals, alarms) = site.run(365.25 * years);
            report += &format!(
                "{per_hour}/h, share {share}: {alarms} alarms in {years} years, {arrivals} arrivals\n"
            );
            assert!(f64::from(alarms) <= years, "{report}");
        }
        println!("{report}");
    }

    /// Minutes from the end of IPv6 to the sign, over many outages.
    #[test]
    fn an_outage_shows_within_minutes_at_a_busy_site() {
        for (per_hour, share, limit) in
            [(2_000.0, 0.3, 5.0), (2_000.0, 0.2, 7.0), (600.0, 0.4, 8.0), (100.0, 0.2, 90.0)]
        {
            let mut minutes: Vec<f64> = (1..=20)
                .map(|seed| {
                    let mut site = Site::new(seed, per_hour, share);
                    site.run(2.0);
                    let began = site.now;
                    while site.detector.sign(site.at()).is_none() {
                        site.arrive(false);
                        assert!(site.now < began + 86_400.0, "never");
                    }
                    (site.now - began) / 60.0
                })
                .collect();
            minutes.sort_by(f64::total_cmp);
            println!(
                "{per_hour}/h, share {share}: median {:.1} min, worst {:.1} min",
                minutes[10], minutes[19]
            );
            assert!(minutes[10] <= limit, "{per_hour}/h, share {share}: {minutes:?}");
        }
    }

    #[test]
    fn a_burst_of_one_network_is_no_sign() {
        let mut site = Site::new(3, 200.0, 0.2);
        site.run(3.0);
        site.detector.on_arrival(Family::Ipv6, network_of(0), site.at());
        // A newsletter: 2,000 sessions within two minutes, half of them from a network that is known.
        for session in 0..2_000 {
            site.now += 0.06;
            let network = network_of(if session % 2 == 0 { 1 } else { 250 });
            site.detector.on_arrival(Family::Ipv4, network, site.at());
        }
        assert_eq!(site.detector.sign(site.at()), None);
    }

    #[test]
    fn mail_ends_the_sign_and_a_closed_door_is_no_silence() {
        let mut site = Site::new(5, 600.0, 0.3);
        site.run(1.0);
        site.share = 0.0;
        while site.detector.sign(site.at()).is_none() {
            site.arrive(false);
        }
        let sign = site.detector.sign(site.at()).unwrap();
        assert!(sign.expected >= 5.0, "{sign:?}");
        let text = sign.text(Family::Ipv6, site.at());
        assert!(text.starts_with("no mail arrived over IPv6 for "), "{text}");
        assert!(text.contains(" delivered mail over IPv4; about "), "{text}");
        let mut refused = site.detector.clone();
        refused.on_refused(site.at());
        assert_eq!(refused.sign(site.at() + Duration::from_secs(300)), None);
        site.detector.on_arrival(Family::Ipv6, network_of(1), site.at());
        assert_eq!(site.detector.sign(site.at() + Duration::from_secs(300)), None);
    }

    #[test]
    fn without_history_nothing_is_expected() {
        let mut site = Site::new(9, 600.0, 0.0);
        site.run(2.0);
        assert_eq!(site.detector.sign(site.at()), None);
        for _ in 0..10 {
            site.detector.on_arrival(Family::Ipv6, network_of(1), site.at());
        }
        site.run(1.0);
        assert_eq!(site.detector.sign(site.at()), None, "ten sessions are too few");
    }
}
