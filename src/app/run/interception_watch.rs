//! The task that watches the interception of a running gateway: repairs what others remove or change, adapts it to the host,
//! and lets mail pass by rather than lose it. `intercept::watch` decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::addr::Family;
use crate::humanize::{self, duration};
use crate::intercept::watch::{InterceptionWatch, Suspicion, WatchStep};
use crate::intercept::{
    Inspection, InterceptCounters, InterceptError, InterceptEvents, Interception,
    SharedInterception,
};
use crate::metrics::Metrics;
use crate::report::{LogLevel, SessionLog};

/// Interval of inspections without an event.
const INSPECT_EVERY: Duration = Duration::from_secs(3);
/// Shortest time between two inspections: a router's routes may change all the time.
const INSPECT_AT_MOST: Duration = Duration::from_millis(500);
/// Time in which the notifications of one change arrive.
const SETTLE: Duration = Duration::from_millis(50);
/// After a start all mail may be lost; then the counters are read so often that a client's first repeated SYN, after 1 s,
/// finds another way.
const COUNT_EVERY: Duration = Duration::from_millis(250);
const AFTER_START: Duration = Duration::from_secs(30);
/// Lost SYNs of few sources are logged if none arrived for so long, and no more often than [`WARN_EVERY`].
const SUSPICIOUS: Duration = Duration::from_secs(600);
const WARN_EVERY: Duration = Duration::from_secs(3600);

/// A running task.
pub(super) struct InterceptionWatcher {
    outage: watch::Receiver<Option<String>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct WatchTask {
    interception: SharedInterception,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
    watch: InterceptionWatch,
    outage: watch::Sender<Option<String>>,
    /// By family, as in the metrics.
    bypassed: [u64; 2],
    /// The last inspection or adaptation failed; logged.
    has_failed: bool,
    warned: [Option<Instant>; 2],
}

impl InterceptionWatcher {
    /// After the installation.
    pub(super) fn start(
        interception: SharedInterception,
        metrics: Arc<Metrics>,
        log: Arc<SessionLog>,
    ) -> Self {
        let (outage, receiver) = watch::channel(None);
        let (stop, stopped) = oneshot::channel();
        let task = WatchTask {
            interception,
            metrics,
            log,
            watch: InterceptionWatch::default(),
            outage,
            bypassed: [0; 2],
            has_failed: false,
            warned: [None; 2],
        };
        Self { outage: receiver, stop, task: tokio::spawn(task.run(stopped)) }
    }

    /// Why mail is not intercepted, if so.
    pub(super) fn outage(&self) -> Option<String> {
        self.outage.borrow().clone()
    }

    /// Waits for a repair in progress.
    pub(super) async fn stop(self) {
        let _ended = self.stop.send(());
        let _panicked = self.task.await;
    }
}

impl WatchTask {
    async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let started = Instant::now();
        let mut events = match InterceptEvents::open() {
            Ok(events) => Some(events),
            Err(error) => {
                let notice = format!(
                    "changes of the interception are seen only every {} s: {error}",
                    INSPECT_EVERY.as_secs()
                );
                self.log.notice(LogLevel::Warn, &notice);
                None
            }
        };
        let mut inspected = Instant::now();
        self.inspect().await;
        // After a change.
        let mut due: Option<Instant> = None;
        loop {
            let is_urgent = started.elapsed() < AFTER_START || self.watch.is_on_trial();
            let pause = match due {
                Some(due) => due.saturating_duration_since(Instant::now()),
                None if is_urgent => COUNT_EVERY,
                None => INSPECT_EVERY,
            };
            let changed = async {
                match &mut events {
                    Some(events) => events.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut stop => return,
                () = changed => {
                    let earliest = inspected + INSPECT_AT_MOST;
                    due.get_or_insert(earliest.max(Instant::now() + SETTLE));
                }
                () = sleep(pause) => {
                    let is_due = due.is_some() || inspected.elapsed() >= INSPECT_EVERY;
                    if is_due || self.is_losing().await {
                        (inspected, due) = (Instant::now(), None);
                        self.inspect().await;
                    }
                }
            }
        }
    }

    /// Reads the counters only; returns whether an inspection is due.
    async fn is_losing(&mut self) -> bool {
        let counters = self.interception.lock().await.count().await;
        let Ok(counters) = counters else { return true };
        let now = Instant::now();
        self.on_counters(&counters, now);
        Family::ALL.iter().any(|&family| self.watch.suspicion(family, now) != Suspicion::None)
    }

    async fn inspect(&mut self) {
        let shared = Arc::clone(&self.interception);
        let mut interception = shared.lock().await;
        let inspection = match interception.inspect().await {
            Ok(inspection) => inspection,
            Err(error) => return self.on_failure("cannot inspect the interception", &error),
        };
        let now = Instant::now();
        self.on_counters(&inspection.counters, now);
        self.report(&inspection);
        let step = match self.watch.on_inspection(&inspection, now) {
            WatchStep::Nothing => self.check_losses(&interception, now).await,
            step => step,
        };
        let is_idle = step == WatchStep::Nothing;
        self.carry_out(step, &mut interception).await;
        if !is_idle && let Ok(inspection) = interception.inspect().await {
            self.report(&inspection);
        }
        let outage = self.watch.outage().map(str::to_owned);
        self.outage.send_if_modified(|before| {
            let is_new = *before != outage;
            *before = outage;
            is_new
        });
    }

    fn report(&self, inspection: &Inspection) {
        for family in Family::ALL {
            self.metrics.set_intercepted(family, inspection.intercepts[family as usize]);
        }
    }

    fn on_counters(&mut self, counters: &InterceptCounters, now: Instant) {
        let lost = self.watch.on_counters(counters, now);
        for family in Family::ALL {
            let of = family as usize;
            self.metrics.add_lost_syns(family, lost[of]);
            let bypassed = counters.bypassed[of];
            self.metrics.add_bypassed_packets(family, bypassed - self.bypassed[of]);
            self.bypassed[of] = bypassed;
        }
    }

    async fn check_losses(&mut self, interception: &Interception, now: Instant) -> WatchStep {
        for family in Family::ALL {
            let suspicion = self.watch.suspicion(family, now);
            let (syns, sources) = match suspicion {
                Suspicion::None => continue,
                Suspicion::All(syns) => (syns, 0),
                Suspicion::Sources { syns, age } => {
                    // The kernel counts in seconds.
                    let age = age.saturating_sub(Duration::from_secs(2));
                    let sources = interception.sources(family, age).await.unwrap_or_default();
                    (syns, sources)
                }
            };
            if self.watch.on_sources(suspicion, sources) {
                return self.watch.on_loss(family, loss(family, syns), now);
            }
            let is_due = self.warned[family as usize]
                .is_none_or(|at| now.saturating_duration_since(at) >= WARN_EVERY);
            if let Suspicion::Sources { age, .. } = suspicion
                && age >= SUSPICIOUS
                && is_due
            {
                self.warned[family as usize] = Some(now);
                let notice = format!(
                    "no {} mail has reached the gateway for {}, and {syns} new connections did not: unless a firewall banned \
                     them, see `gatepost intercept check`",
                    humanize::family(family),
                    duration(age)
                );
                self.log.notice(LogLevel::Warn, &notice);
            }
        }
        WatchStep::Nothing
    }

    async fn carry_out(&mut self, step: WatchStep, interception: &mut Interception) {
        match step {
            WatchStep::Nothing => self.has_failed = false,
            WatchStep::Repair(damage) => match interception.repair().await {
                Ok(()) => {
                    self.metrics.on_interception_repaired();
                    let notice = format!("interception repaired: {damage}");
                    self.log.notice(LogLevel::Warn, &notice);
                    self.watch.on_repaired(true, Instant::now());
                }
                Err(error) => {
                    let notice = format!("interception not repaired: {damage}: {error}");
                    self.log.notice(LogLevel::Error, &notice);
                    let step = self.watch.on_repair_failed(&error.to_string(), Instant::now());
                    if let WatchStep::FailOpen(reason) = step {
                        self.fail_open(reason, interception).await;
                    }
                }
            },
            WatchStep::Adapt(changes) => match interception.repair().await {
                Ok(()) => {
                    self.log.notice(LogLevel::Info, &format!("interception adapted: {changes}"));
                    self.watch.on_repaired(false, Instant::now());
                }
                Err(error) => self.on_failure("cannot adapt the interception", &error),
            },
            WatchStep::FailOpen(reason) => self.fail_open(reason, interception).await,
            WatchStep::Retry => {
                let result = interception.repair().await;
                self.watch.on_retried(result.is_ok(), Instant::now());
            }
            WatchStep::EndSparing => {
                if let Err(error) = interception.spare_no_more().await {
                    self.watch.on_sparing_kept();
                    self.on_failure("connections older than the gateway still pass by", &error);
                }
            }
            WatchStep::Recovered(lasted) => {
                let notice = format!("mail is intercepted again, after {}", duration(lasted));
                self.log.notice(LogLevel::Warn, &notice);
            }
            WatchStep::Remind(lasted) => {
                let reason = self.watch.outage().unwrap_or_default();
                let notice =
                    format!("mail has not been intercepted for {}: {reason}", duration(lasted));
                self.log.notice(LogLevel::Error, &notice);
            }
        }
    }

    async fn fail_open(&self, reason: Option<String>, interception: &mut Interception) {
        let result = interception.fail_open().await;
        let Some(reason) = reason else { return };
        let notice = format!(
            "mail is no longer intercepted and goes to the servers directly, uninspected: {reason}; tried again every minute"
        );
        self.log.notice(LogLevel::Error, &notice);
        if let Err(error) = result {
            let notice = format!(
                "the table inet gatepost is still there, and mail may be lost: {error}; run `nft delete table inet gatepost`"
            );
            self.log.notice(LogLevel::Error, &notice);
        }
    }

    /// Logged once until an inspection finds nothing to do.
    fn on_failure(&mut self, what: &str, error: &InterceptError) {
        if !std::mem::replace(&mut self.has_failed, true) {
            self.log.notice(LogLevel::Warn, &format!("{what}: {error}"));
        }
    }
}

fn loss(family: Family, syns: u64) -> String {
    let settings = match family {
        Family::Ipv4 => {
            "rp_filter or src_valid_mark (`sysctl -a --pattern 'rp_filter|src_valid_mark'`), "
        }
        Family::Ipv6 => "",
    };
    format!(
        "{syns} new {} connections were intercepted and none reached the gateway: an INPUT chain drops them, or {settings}an \
         `ip rule` before priority {}; see `gatepost intercept check`",
        humanize::family(family),
        crate::intercept::PRIORITY
    )
}
