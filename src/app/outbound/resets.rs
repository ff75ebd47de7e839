//! Keeps the kernel's table of avoided addresses up to date: `[outbound] reset_users` and `reset_sources`.
//!
//! A failure here never stops mail: it is logged, tried again, and mail is sent as without the table.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::geteuid;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::reset_record::ResetRecord;
use super::steering::{AvoidedAddress, Steering};
use crate::intercept::InterceptError;
use crate::intercept::outbound_reset::{self, MAX_ADDRESSES, OutboundResetSettings};
use crate::report::{LogLevel, SessionLog};
use crate::time::Timestamp;

/// Each tick runs nft once at most.
const TICK: Duration = Duration::from_secs(1);
/// Interval at which the counter is read while addresses are avoided. It shows also whether others removed the table.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// Pause after nft failed.
const RETRY: Duration = Duration::from_secs(60);
/// A pin has no end: its addresses stay for so long, and are renewed after half of it.
const PINNED_FOR: Duration = Duration::from_secs(600);
/// Hosts that are looked up in a tick.
const CHECKS: usize = 32;
/// Pause before a host without an IPv4 address is looked up again.
const CHECK_AGAIN: Duration = Duration::from_secs(60);
/// Time to remove the table at the end.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A running task.
pub(super) struct OutboundResets {
    settings: watch::Sender<Option<OutboundResetSettings>>,
    task: JoinHandle<()>,
}

impl OutboundResets {
    /// Without settings there is no table.
    pub(super) fn start(
        settings: Option<OutboundResetSettings>,
        steering: Steering,
        record: Arc<ResetRecord>,
        log: Arc<SessionLog>,
    ) -> Self {
        let (sender, settings) = watch::channel(settings);
        let task = ResetTask {
            settings,
            steering,
            record,
            log,
            installed: None,
            is_counted: false,
            addresses: BTreeMap::new(),
            without_ipv4: HashMap::new(),
            connections: 0,
            count_at: None,
            retry_at: None,
        };
        Self { settings: sender, task: tokio::spawn(task.run()) }
    }

    pub(super) fn set(&self, settings: Option<OutboundResetSettings>) {
        self.settings.send_replace(settings);
    }

    /// Removes the table.
    pub(super) async fn stop(self) {
        drop(self.settings);
        let _late_or_panicked = timeout(STOP_LIMIT, self.task).await;
    }
}

struct ResetTask {
    settings: watch::Receiver<Option<OutboundResetSettings>>,
    steering: Steering,
    record: Arc<ResetRecord>,
    log: Arc<SessionLog>,
    /// The settings of the table, if there is one.
    installed: Option<OutboundResetSettings>,
    /// The counter of a table that will be replaced or removed was read.
    is_counted: bool,
    /// Elements of the set, with the time at which each expires.
    addresses: BTreeMap<Ipv6Addr, Timestamp>,
    /// Avoided addresses of hosts that were not found to have an IPv4 address, with the time of the lookup.
    without_ipv4: HashMap<Ipv6Addr, Instant>,
    /// The counter of the table, as read last.
    connections: u64,
    /// `None` while nothing can be counted.
    count_at: Option<Instant>,
    retry_at: Option<Instant>,
}

impl ResetTask {
    /// Until the sender of the settings is dropped.
    async fn run(mut self) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.record.set_configured(self.settings.borrow_and_update().is_some());
        loop {
            tokio::select! {
                changed = self.settings.changed() => match changed {
                    Ok(()) => {
                        self.record.set_configured(self.settings.borrow_and_update().is_some());
                        self.retry_at = None;
                    }
                    Err(_stopping) => break,
                },
                _ = tick.tick() => self.on_tick().await,
            }
        }
        if self.installed.is_some()
            && let Err(error) = outbound_reset::remove().await
        {
            let notice = format!(
                "outbound: the table inet gatepost_outbound is still there, and its elements expire: {error}"
            );
            self.log.notice(LogLevel::Warn, &notice);
        }
    }

    async fn on_tick(&mut self) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let wanted = self.settings.borrow().clone();
        let result = match (&self.installed, wanted) {
            (None, None) => return,
            (None, Some(wanted)) => self.install(wanted).await,
            (Some(installed), Some(wanted)) if *installed == wanted => self.update().await,
            (Some(_), _) if !self.is_counted => self.count().await,
            (Some(_), Some(wanted)) => self.install(wanted).await,
            (Some(_), None) => self.remove().await,
        };
        match result {
            Ok(()) => drop(self.record.set_problem(None)),
            Err(problem) => self.on_problem(problem),
        }
    }

    async fn install(&mut self, settings: OutboundResetSettings) -> Result<(), String> {
        if let Some(own) = settings.users.iter().find(|user| **user == geteuid().as_raw()) {
            return Err(format!(
                "reset_users has user {own}, as which gatepost itself runs, and its probes would be reset: remove it"
            ));
        }
        outbound_reset::install(&settings).await.map_err(explained)?;
        self.forget_table();
        self.installed = Some(settings);
        Ok(())
    }

    async fn remove(&mut self) -> Result<(), String> {
        outbound_reset::remove().await.map_err(explained)?;
        self.forget_table();
        Ok(())
    }

    /// Its set was emptied or removed.
    fn forget_table(&mut self) {
        self.installed = None;
        self.addresses.clear();
        self.record.set_addresses(&self.addresses, now());
        (self.is_counted, self.connections, self.count_at) = (false, 0, None);
    }

    /// Brings the set up to date, or reads the counter.
    async fn update(&mut self) -> Result<(), String> {
        let now = now();
        self.addresses.retain(|_, until| *until > now);
        let wanted = self.wanted(now).await;
        if wanted != self.addresses {
            // Before the kernel resets anything.
            self.record.set_addresses(&wanted, now);
            let elements: Vec<_> =
                wanted.iter().map(|(ip, until)| (*ip, until.since(now))).collect();
            match outbound_reset::set_addresses(&elements).await {
                Ok(true) => self.addresses = wanted,
                Ok(false) => self.on_missing(),
                Err(error) => {
                    self.record.set_addresses(&self.addresses, now);
                    return Err(explained(error));
                }
            }
            self.count_at.get_or_insert_with(|| Instant::now() + COUNT_EVERY);
        } else if self.count_at.is_some_and(|at| Instant::now() >= at) {
            self.count().await?;
            self.is_counted = false;
        }
        Ok(())
    }

    async fn count(&mut self) -> Result<(), String> {
        match outbound_reset::count().await.map_err(explained)? {
            Some(connections) => {
                self.record.add_connections(connections.saturating_sub(self.connections));
                self.connections = connections;
                self.is_counted = true;
                let is_idle = self.addresses.is_empty();
                self.count_at = (!is_idle).then(|| Instant::now() + COUNT_EVERY);
            }
            None => self.on_missing(),
        }
        Ok(())
    }

    fn on_missing(&mut self) {
        self.forget_table();
        let notice = "outbound: another program removed the table inet gatepost_outbound; it is installed again";
        self.log.notice(LogLevel::Warn, notice);
    }

    /// The elements that the set should have. Begins the trials that are due.
    async fn wanted(&mut self, now: Timestamp) -> BTreeMap<Ipv6Addr, Timestamp> {
        let mut wanted = BTreeMap::new();
        let mut new = Vec::new();
        for address in self.steering.avoided_addresses() {
            let known = self.addresses.get(&address.ip).copied();
            let renewed = || match known.filter(|until| until.since(now) > PINNED_FOR / 2) {
                Some(until) => until,
                None => now + PINNED_FOR,
            };
            let until = address.until.unwrap_or_else(renewed);
            if until <= now {
                // On trial.
            } else if known.is_some() {
                wanted.insert(address.ip, until);
            } else {
                new.push((address, until));
            }
        }
        let checked = Instant::now();
        self.without_ipv4.retain(|_, at| checked.duration_since(*at) < CHECK_AGAIN);
        let mut checks = JoinSet::new();
        new.retain(|(address, _)| !self.without_ipv4.contains_key(&address.ip));
        for (address, until) in new.into_iter().take(CHECKS) {
            let steering = self.steering.clone();
            checks.spawn(async move {
                let AvoidedAddress { ip, hosts, .. } = address;
                for host in &hosts {
                    if !steering.is_known_over_ipv4(host).await {
                        return (ip, None);
                    }
                }
                (ip, Some(until))
            });
        }
        while let Some(result) = checks.join_next().await {
            match result {
                Ok((ip, Some(until))) if wanted.len() < MAX_ADDRESSES => {
                    wanted.insert(ip, until);
                }
                Ok((ip, None)) => drop(self.without_ipv4.insert(ip, checked)),
                // Too many, or a panic: mail is sent as without it.
                Ok((_, Some(_))) | Err(_) => {}
            }
        }
        wanted
    }

    fn on_problem(&mut self, problem: String) {
        self.retry_at = Some(Instant::now() + RETRY);
        if self.record.set_problem(Some(problem.clone())) {
            let notice = format!(
                "outbound: connections of the MTA to addresses that are avoided are not reset: {problem}; mail is sent as without it"
            );
            self.log.notice(LogLevel::Warn, &notice);
        }
    }
}

fn explained(error: InterceptError) -> String {
    match error {
        InterceptError::NotPermitted { .. } => {
            format!("{error}, and restart gatepost, which drops it at the start without need")
        }
        _ => error.to_string(),
    }
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}
