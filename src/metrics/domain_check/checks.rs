//! Checks on request: one at a time for each domain, and its result for all who ask in the next minute.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};

use super::series::CheckedDomain;
use crate::policy::facts::DomainName;
use crate::readiness::CheckReport;
use crate::time::Timestamp;

/// Checks in progress; others wait.
const CHECKS: usize = 4;
/// Requests that wait for a check, so that the endpoint has connections left for the metrics.
const REQUESTS: usize = 32;
/// The limit of a check for a scraper that names no limit.
const LONGEST: Duration = Duration::from_secs(30);
/// In less time a dead server cannot be told from a slow one.
const SHORTEST: Duration = Duration::from_secs(3);
/// Of a scraper's time limit: for the end of the check, and for the answer's way.
const ENCODING: Duration = Duration::from_millis(250);
const OFFSET: Duration = Duration::from_millis(500);

/// Which domains are checked, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainCheckSettings {
    pub domains: BTreeSet<DomainName>,
    /// Age from which a result is no longer served.
    pub max_age: Duration,
}

impl DomainCheckSettings {
    /// The default of `max_age`.
    pub const MAX_AGE: Duration = Duration::from_secs(60);
}

impl Default for DomainCheckSettings {
    fn default() -> Self {
        Self { domains: BTreeSet::new(), max_age: Self::MAX_AGE }
    }
}

/// The report about a domain, or why there is none.
pub type CheckFuture = Pin<Box<dyn Future<Output = Result<CheckReport, String>> + Send>>;

/// Checks a domain within a time limit.
pub type CheckRunner = dyn Fn(DomainName, Duration) -> CheckFuture + Send + Sync;

/// The domains and their latest results.
pub struct DomainChecks {
    settings: DomainCheckSettings,
    /// Where the domains are listed, for people.
    list: &'static str,
    run: Box<CheckRunner>,
    states: Mutex<BTreeMap<DomainName, DomainState>>,
    checks: Semaphore,
    requests: Semaphore,
}

#[derive(Default)]
struct DomainState {
    latest: Option<(Instant, Arc<CheckedDomain>)>,
    /// Of the check in progress; closed if it panicked.
    running: Option<watch::Receiver<Option<CheckResult>>>,
}

type CheckResult = Result<Arc<CheckedDomain>, CheckFailure>;

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CheckFailure {
    #[error("too many checks at once; scrape fewer domains, or less often")]
    Busy,
    #[error(
        "the check goes on, and its result is for the next scrape; set scrape_timeout to 35s, or to this check's duration"
    )]
    TimedOut,
    #[error("the check cannot be done: {0}")]
    NotDone(String),
}

/// The time limits of one scraper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScrapeLimits {
    /// Of the check.
    pub(super) check: Duration,
    /// Of the wait for its result.
    pub(super) wait: Duration,
}

impl ScrapeLimits {
    /// For a scraper that waits so long for the answer.
    pub(super) fn new(scraper: Option<Duration>) -> Self {
        let Some(scraper) = scraper else {
            return Self { check: LONGEST, wait: LONGEST + ENCODING };
        };
        let check = scraper.saturating_sub(OFFSET).clamp(SHORTEST, LONGEST);
        let wait = scraper.saturating_sub(OFFSET - ENCODING).min(LONGEST + ENCODING);
        Self { check, wait }
    }
}

impl DomainChecks {
    /// `list` names the place of the list of domains: "`probe_domains` in [metrics]".
    pub fn new(settings: DomainCheckSettings, list: &'static str, run: Box<CheckRunner>) -> Self {
        Self {
            settings,
            list,
            run,
            states: Mutex::default(),
            checks: Semaphore::new(CHECKS),
            requests: Semaphore::new(REQUESTS),
        }
    }

    pub(super) const fn list(&self) -> &'static str {
        self.list
    }

    pub(super) fn checks_any(&self) -> bool {
        !self.settings.domains.is_empty()
    }

    pub(super) fn is_listed(&self, domain: &DomainName) -> bool {
        self.settings.domains.contains(domain)
    }

    /// The latest result, or that of the check in progress, or of a new one. The check goes on when the scraper has gone.
    pub(super) async fn result(
        self: &Arc<Self>,
        domain: &DomainName,
        limits: ScrapeLimits,
    ) -> CheckResult {
        let _request = self.requests.try_acquire().map_err(|_full| CheckFailure::Busy)?;
        let mut running = match self.join(domain, limits.check) {
            Ok(latest) => return Ok(latest),
            Err(running) => running,
        };
        match timeout(limits.wait, running.wait_for(Option::is_some)).await {
            Ok(Ok(result)) => result.clone().unwrap_or(Err(CheckFailure::Busy)),
            Ok(Err(_closed)) => {
                Err(CheckFailure::NotDone("it ended unexpectedly; see the log".to_owned()))
            }
            Err(_elapsed) => Err(CheckFailure::TimedOut),
        }
    }

    /// The latest result, or the check in progress, which is started if need be.
    fn join(
        self: &Arc<Self>,
        domain: &DomainName,
        limit: Duration,
    ) -> Result<Arc<CheckedDomain>, watch::Receiver<Option<CheckResult>>> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let state = states.entry(domain.clone()).or_default();
        if let Some((at, latest)) = &state.latest
            && at.elapsed() < self.settings.max_age
        {
            return Ok(Arc::clone(latest));
        }
        if let Some(running) = state.running.as_ref().filter(|one| one.has_changed().is_ok()) {
            return Err(running.clone());
        }
        let (sender, running) = watch::channel(None);
        state.running = Some(running.clone());
        let (checks, domain) = (Arc::clone(self), domain.clone());
        tokio::spawn(async move {
            let result = checks.check(&domain, limit).await;
            let mut states = checks.states.lock().unwrap_or_else(PoisonError::into_inner);
            let state = states.entry(domain).or_default();
            state.running = None;
            state.latest = result.clone().ok().map(|checked| (Instant::now(), checked));
            sender.send_replace(Some(result));
        });
        Err(running)
    }

    /// Waits for its turn, and checks in the rest of `limit`.
    async fn check(&self, domain: &DomainName, limit: Duration) -> CheckResult {
        let asked = Instant::now();
        let turn = timeout(limit, self.checks.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(CheckFailure::Busy) };
        let start = Instant::now();
        let limit = limit.saturating_sub(start - asked).max(SHORTEST);
        let report = (self.run)(domain.clone(), limit).await.map_err(CheckFailure::NotDone)?;
        Ok(Arc::new(CheckedDomain {
            domain: domain.clone(),
            report,
            at: Timestamp::from_system_time(SystemTime::now()),
            took: start.elapsed(),
        }))
    }
}

impl fmt::Debug for DomainChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainChecks").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Barrier;
    use tokio::task::JoinSet;

    use super::*;

    fn domain(name: &str) -> DomainName {
        DomainName::parse(name).unwrap()
    }

    const SHORT: ScrapeLimits =
        ScrapeLimits { check: Duration::from_secs(3), wait: Duration::from_millis(50) };

    fn checks(max_age: Duration, run: Box<CheckRunner>) -> Arc<DomainChecks> {
        let settings = DomainCheckSettings { domains: BTreeSet::new(), max_age };
        Arc::new(DomainChecks::new(settings, "here", run))
    }

    #[test]
    fn the_check_ends_before_the_scraper_does() {
        let seconds = Duration::from_secs_f64;
        for (scraper, check, wait) in [
            (None, 30.0, 30.25),
            (Some(35.0), 30.0, 30.25),
            (Some(10.0), 9.5, 9.75),
            (Some(2.0), 3.0, 1.75),
            (Some(0.1), 3.0, 0.0),
        ] {
            let expected = ScrapeLimits { check: seconds(check), wait: seconds(wait) };
            assert_eq!(ScrapeLimits::new(scraper.map(seconds)), expected, "{scraper:?}");
        }
    }

    #[tokio::test]
    async fn scrapers_share_a_check_and_its_result() {
        let count = Arc::new(AtomicUsize::new(0));
        let barrier = Arc::new(Barrier::new(2));
        let (counted, met) = (Arc::clone(&count), Arc::clone(&barrier));
        let checks = checks(
            Duration::from_secs(3600),
            Box::new(move |_, _| {
                counted.fetch_add(1, Ordering::Relaxed);
                let met = Arc::clone(&met);
                Box::pin(async move {
                    met.wait().await;
                    Ok(CheckReport::default())
                })
            }),
        );
        let limits = ScrapeLimits::new(None);
        let mut scrapers = JoinSet::new();
        for _ in 0..5 {
            let checks = Arc::clone(&checks);
            scrapers.spawn(async move { checks.result(&domain("a.example"), limits).await });
        }
        tokio::task::yield_now().await;
        barrier.wait().await;
        let results: Vec<_> = scrapers.join_all().await;
        assert!(results.iter().all(|one| *one == results[0] && one.is_ok()), "{results:?}");
        assert_eq!(checks.result(&domain("a.example"), SHORT).await, results[0]);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        let other = checks.result(&domain("b.example"), SHORT).await;
        assert_eq!(other, Err(CheckFailure::TimedOut));
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn an_old_result_is_not_served() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let checks = checks(
            Duration::ZERO,
            Box::new(move |_, _| {
                counted.fetch_add(1, Ordering::Relaxed);
                Box::pin(async { Ok(CheckReport::default()) })
            }),
        );
        for expected in [1, 2] {
            let result = checks.result(&domain("a.example"), ScrapeLimits::new(None)).await;
            assert!(result.is_ok(), "{result:?}");
            assert_eq!(count.load(Ordering::Relaxed), expected);
        }
    }

    #[tokio::test]
    async fn a_failure_and_a_panic_are_reported_and_not_kept() {
        let count = AtomicUsize::new(0);
        let checks = checks(
            Duration::from_secs(3600),
            Box::new(move |_, _| {
                let count = count.fetch_add(1, Ordering::Relaxed);
                Box::pin(async move {
                    match count {
                        0 => Err("no addresses".to_owned()),
                        1 => panic!("a fault that the test causes"),
                        _ => Ok(CheckReport::default()),
                    }
                })
            }),
        );
        let limits = ScrapeLimits::new(None);
        let a = domain("a.example");
        let result = checks.result(&a, limits).await.unwrap_err().to_string();
        assert_eq!(result, "the check cannot be done: no addresses");
        let result = checks.result(&a, limits).await.unwrap_err().to_string();
        assert_eq!(result, "the check cannot be done: it ended unexpectedly; see the log");
        assert!(checks.result(&a, limits).await.is_ok());
    }

    #[tokio::test]
    async fn few_checks_run_at_once_and_requests_are_limited() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let endless = Box::new(move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending()) as CheckFuture
        });
        let checks = checks(Duration::from_secs(3600), endless);
        let mut scrapers = JoinSet::new();
        for n in 0..40 {
            let checks = Arc::clone(&checks);
            let domain = domain(&format!("a{n}.example"));
            scrapers.spawn(async move { checks.result(&domain, SHORT).await });
        }
        let results = scrapers.join_all().await;
        let of = |failure: CheckFailure| {
            results.iter().filter(|one| one.as_ref().is_err_and(|one| *one == failure)).count()
        };
        assert_eq!(count.load(Ordering::Relaxed), CHECKS);
        let expected = (40 - REQUESTS, REQUESTS);
        assert_eq!((of(CheckFailure::Busy), of(CheckFailure::TimedOut)), expected);
    }
}
