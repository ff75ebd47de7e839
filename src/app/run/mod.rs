//! `gatepost run --config FILE`

mod answers;
mod begun;
mod control;
mod handed;
mod rights;
mod service;
mod status;

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use self::answers::Answers;
use self::begun::Begun;
use self::control::Desk;
use self::rights::Rights;
use self::service::Service;
use self::status::Surroundings;
use super::door::{Heard, Keeper, Parts};
use super::watch::Beside;
use crate::addr::Family;
use crate::config::{self, Config};
use crate::intercept;
use crate::intercept::door::Ingress;
use crate::lookup::LookupService;
use crate::metrics::Metrics;
use crate::metrics::http::{self, HealthState, ReadyState};
use crate::policy::rules::{FactName, PolicyRule};
use crate::relay::{Relay, RelayError};
use crate::report::status::Status;
use crate::report::{LogLevel, SessionLog};

/// How often `/readyz` learns how the upstreams are.
const LOOK: Duration = Duration::from_secs(1);
/// How long the last lines of the log may take.
const LAST_LINES: Duration = Duration::from_secs(2);

pub(super) async fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let mut gateway = Gateway::start(path, config).await?;
    gateway.serve().await?;
    gateway.stop().await
}

/// Everything of a running gateway.
struct Gateway {
    path: PathBuf,
    config: Config,
    relay: Relay,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
    readiness: HealthState,
    /// Dropped or used, it ends the metrics endpoint.
    endpoint: Option<oneshot::Sender<()>>,
    control: Option<JoinHandle<()>>,
    watch: Option<Beside>,
    /// Who keeps the doors, with `[door]`, and the task.
    door: Option<(Keeper, JoinHandle<()>)>,
    /// `None` if nobody can be asked; the log says why.
    reach: Option<LookupService>,
    rights: Rights,
    service: Service,
    /// Octets that recorders did not get, as far as the metrics know.
    overflowed: u64,
}

impl Gateway {
    async fn start(path: &Path, config: Config) -> anyhow::Result<Self> {
        let Begun { control, listeners, metrics_listener, door, rights } =
            Begun::begin(&config).await?;
        let metrics = Arc::new(Metrics::new()?);
        let counted = Arc::clone(&metrics);
        let on_lost = Box::new(move |lines| counted.add_dropped_log_lines(lines));
        let log = Arc::new(SessionLog::start(&config.log, on_lost)?);
        log.notice(LogLevel::Info, &rights.told(&config));
        for warning in config.warnings() {
            log.notice(LogLevel::Warn, &warning);
        }
        if let Some(warning) = raise_descriptor_limit(config.relay.limits.sessions) {
            log.notice(LogLevel::Warn, &warning);
        }
        let readiness = HealthState::new();
        let status = Arc::new(Status::new(config.status));
        let surroundings = Surroundings::default();
        let mut endpoint = None;
        if let Some(listener) = metrics_listener {
            let (stop, stopped) = oneshot::channel::<()>();
            let shutdown = async { drop(stopped.await) };
            let page = surroundings.page(Arc::clone(&status), (path, &config), readiness.clone());
            let router = http::routes(Arc::clone(&metrics), readiness.clone()).merge(page);
            tokio::spawn(http::serve(listener, router, shutdown));
            endpoint = Some(stop);
        }
        let control = control.map_err(|why| log.notice(LogLevel::Warn, &why)).ok();
        metrics.set_sessions_limit(config.relay.limits.sessions);
        metrics.set_rules(&config.relay.rules)?;
        let lookups = Arc::new((Arc::clone(&metrics), Arc::clone(&status)));
        let reach = answers::start(&config.lookup, lookups, &log);
        let answers = Arc::new(Answers::new(reach.clone()));
        let exempt = config.door.as_ref().map(|door| door.exempt.clone()).unwrap_or_default();
        let heard = Arc::new(Heard::new(exempt));
        let told = (Arc::clone(&log), (Arc::clone(&heard), status));
        let observer = Arc::new((Arc::clone(&metrics), told));
        let ask = Arc::clone(&answers) as _;
        let relay = Relay::start(config.relay.clone(), listeners, observer, ask)?;
        // Only now: what is intercepted needs a listener.
        if let Some(settings) = &config.intercept {
            intercept::install(settings).await?;
            for warning in intercept::show().await?.warnings {
                log.notice(LogLevel::Warn, &warning.to_string());
            }
        }
        tokio::spawn(relay.forget_idle_clients());
        let door = match door {
            Some((settings, enforcer)) => Some(Keeper::start(Parts {
                settings,
                enforcer,
                gate: relay.handle(),
                heard,
                surroundings: answers::surroundings(&config, reach.as_ref(), &metrics, &log)?,
                metrics: Arc::clone(&metrics),
                log: Arc::clone(&log),
            })),
            None => None,
        };
        surroundings.relayed_by(relay.handle());
        if let Some((keeper, _)) = &door {
            answers.kept_by(keeper.clone());
            surroundings.kept_by(keeper.clone());
        }
        let control = control.map(|listener| {
            let desk = Desk {
                recorders: Arc::clone(relay.taps()),
                keeper: door.as_ref().map(|(keeper, _)| keeper.clone()),
                reach: reach.clone(),
                log: Arc::clone(&log),
            };
            tokio::spawn(desk.serve(listener))
        });
        let watch = match &config.watch {
            Some(settings) => {
                let upstreams = &config.relay.upstream.addresses;
                let (metrics, log) = (Arc::clone(&metrics), Arc::clone(&log));
                let told = reach.clone().map(answers::passing);
                let watch = Beside::start(settings.clone(), upstreams, metrics, log, told);
                Some(watch.context("cannot start the thread that watches")?)
            }
            None => None,
        };
        let (path, overflowed) = (path.to_owned(), 0);
        let mut gateway = Self {
            path,
            config,
            relay,
            metrics,
            log,
            readiness,
            endpoint,
            control,
            watch,
            door,
            reach,
            rights,
            service: Service::start(),
            overflowed,
        };
        gateway.say_ready();
        Ok(gateway)
    }

    fn say_ready(&mut self) {
        let listening: Vec<SocketAddr> = self.relay.addresses().collect();
        for (level, notice) in handed::notices(self.relay.inherited(), &listening) {
            self.log.notice(level, &notice);
        }
        let addresses: Vec<String> = listening.iter().map(ToString::to_string).collect();
        let how = if self.config.intercept.is_some() { " for intercepted mail" } else { "" };
        self.readiness.set(ReadyState::Ready);
        self.log
            .notice(LogLevel::Info, &format!("ready: listening on {}{how}", addresses.join(", ")));
        let status = self.status();
        self.service.ready(status);
    }

    fn status(&self) -> String {
        service::status(&self.config, self.door.as_ref().map(|(keeper, _)| keeper), &self.relay)
    }

    /// Until a signal says stop.
    async fn serve(&mut self) -> anyhow::Result<()> {
        let on =
            |kind| -> anyhow::Result<Signal> { signal(kind).context("cannot watch for signals") };
        let mut terminate = on(SignalKind::terminate())?;
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut hangup = on(SignalKind::hangup())?;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = hangup.recv() => self.reload().await,
                _ = look.tick() => self.look(),
            }
        }
    }

    fn look(&mut self) {
        self.readiness.set(if self.relay.is_without_upstream() {
            ReadyState::NoUpstream
        } else {
            ReadyState::Ready
        });
        let upstreams = self.relay.handle().upstream_health();
        for family in Family::ALL {
            let of_family =
                upstreams.iter().filter(|known| Family::of(known.address.ip()) == family);
            let down = of_family.clone().filter(|known| known.up == Some(false)).count();
            self.metrics.set_upstreams(family, of_family.count() - down, down);
        }
        let overflowed = self.relay.taps().dropped_bytes();
        self.metrics.add_record_omitted_bytes(overflowed.saturating_sub(self.overflowed));
        self.overflowed = overflowed;
        let status = self.status();
        self.service.look(status, &self.relay);
    }

    /// SIGHUP: the new configuration, or the old one and an error.
    async fn reload(&mut self) {
        self.service.reloading();
        self.log.reopen();
        match self.try_reload().await {
            Ok(()) => {
                self.metrics.on_config_applied();
                self.log.notice(LogLevel::Info, "configuration reloaded");
                self.say_ready();
            }
            Err(error) => {
                self.metrics.on_config_rejected();
                let kept = "configuration not reloaded, the old one stays in force";
                for line in format!("{error:#}").lines() {
                    self.log.notice(LogLevel::Error, &format!("{kept}: {line}"));
                }
                let status = self.status();
                self.service.ready(status);
            }
        }
    }

    async fn try_reload(&mut self) -> anyhow::Result<()> {
        let config = Config::load(&self.path)?;
        self.rights.allow(&config)?;
        self.relay.reload(config.relay.clone()).map_err(given_up)?;
        if config.intercept != self.config.intercept {
            match &config.intercept {
                Some(settings) => intercept::install(settings).await?,
                None => drop(intercept::remove().await?),
            }
        }
        if let Some((keeper, _)) = &self.door {
            keeper.renew(entrance(&config, self.relay.addresses())).await;
        }
        let old = &self.config;
        for (changed, key) in [
            (config.door != old.door, "[door]"),
            (config.metrics != old.metrics, "[metrics]"),
            (config.status != old.status, "[status]"),
            (config.log != old.log, "[log]"),
            (config.control != old.control, "[control]"),
            (config.user != old.user, "[process]"),
            (config.watch != old.watch, "[watch]"),
            (config.lookup != old.lookup, "[lookup]"),
            (config.vantage != old.vantage, "[vantage]"),
            (config.relay.listen.threads != old.relay.listen.threads, "listen.threads"),
        ] {
            if changed {
                self.log.notice(
                    LogLevel::Warn,
                    &format!("{key} changed: it takes effect at the next start"),
                );
            }
        }
        self.metrics.set_sessions_limit(config.relay.limits.sessions);
        self.metrics.set_rules(&config.relay.rules)?;
        self.config = config;
        Ok(())
    }

    /// No new sessions, an end for those in progress, and nothing left in the kernel.
    async fn stop(mut self) -> anyhow::Result<ExitCode> {
        self.readiness.set(ReadyState::Draining);
        let sessions = self.relay.sessions();
        let stopping = format!("stopping: {sessions} sessions in progress");
        self.log.notice(LogLevel::Info, &stopping);
        self.service.stopping(stopping);
        let recorders = Arc::clone(self.relay.taps());
        let cut_off = self.relay.drain().await;
        if cut_off > 0 {
            let late = format!("{cut_off} sessions did not end in time and were ended with 421");
            self.log.notice(LogLevel::Warn, &late);
        }
        // Sessions in progress needed the rules; without a listener new ones passed by.
        if self.config.intercept.is_some() {
            intercept::remove().await?;
        }
        recorders.flush(LAST_LINES).await;
        if let Some(control) = self.control {
            control.abort();
        }
        if let Some(watch) = self.watch {
            watch.stop();
        }
        if let Some((_, keeping)) = self.door {
            keeping.abort();
        }
        if let Some(reach) = &self.reach {
            reach.flush();
        }
        self.log.notice(LogLevel::Info, "stopped");
        drop(self.endpoint);
        self.log.flush(LAST_LINES);
        Ok(ExitCode::SUCCESS)
    }
}

/// The right to bind ports below 1024 is never kept.
fn given_up(error: RelayError) -> anyhow::Error {
    match &error {
        RelayError::Listen { why, .. } if why.kind() == ErrorKind::PermissionDenied => {
            anyhow!("{error}; a running gateway has given that up: restart it")
        }
        _ => error.into(),
    }
}

/// What sessions come in by.
fn entrance(config: &Config, listening: impl Iterator<Item = SocketAddr>) -> Ingress {
    match &config.intercept {
        Some(settings) => Ingress::Intercepted(settings.clone()),
        None => Ingress::Listeners(listening.collect()),
    }
}

/// Whose doors are kept: those of `[door]`; without it none is guarded, and the receive path may be asked for all the same.
fn doors(config: &Config) -> Option<config::DoorConfig> {
    let asks = |rule: &PolicyRule| {
        rule.require.iter().any(|require| require.fact == FactName::ReceivePath)
    };
    let unguarded = || config.relay.rules.iter().any(asks).then(config::DoorConfig::unguarded);
    config.door.clone().or_else(unguarded)
}

/// A session takes two descriptors, a spliced one up to four more. Returns a warning if the hard limit is too low.
fn raise_descriptor_limit(sessions: usize) -> Option<String> {
    let wanted = u64::try_from(sessions).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(512);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard {
        let _stays_as_it_is = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    (hard < wanted).then(|| {
        format!(
            "limits.sessions = {sessions} needs {wanted} file descriptors and the hard limit is {hard}; \
             raise it (LimitNOFILE= or ulimit -Hn) or lower limits.sessions"
        )
    })
}
