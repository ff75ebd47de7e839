//! `gatepost run --config FILE`

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::watch::Beside;
use crate::config::Config;
use crate::control::{self, Answer, Connection, Request};
use crate::intercept;
use crate::metrics::Metrics;
use crate::metrics::http::{self, Readiness, ReadyState};
use crate::recording::Selection;
use crate::relay::{Recorders, Relay};
use crate::report::{Level, SessionLog};

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
    readiness: Readiness,
    /// Dropped or used, it ends the metrics endpoint.
    endpoint: Option<oneshot::Sender<()>>,
    control: Option<JoinHandle<()>>,
    watch: Option<Beside>,
    /// Octets that recorders did not get, as far as the metrics know.
    overflowed: u64,
}

impl Gateway {
    async fn start(path: &Path, config: Config) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new()?);
        let counted = Arc::clone(&metrics);
        let on_lost = Box::new(move |lines| counted.log_lines_dropped(lines));
        let log = Arc::new(SessionLog::start(&config.log, on_lost)?);
        for warning in config.warnings() {
            log.notice(Level::Warn, &warning);
        }
        if let Some(warning) = raise_descriptor_limit(config.relay.limits.sessions) {
            log.notice(Level::Warn, &warning);
        }
        let readiness = Readiness::new();
        let mut endpoint = None;
        if let Some(address) = config.metrics {
            let listener = TcpListener::bind(address).await;
            let listener = listener.with_context(|| {
                format!("cannot listen on {address} for metrics; change `[metrics] address`")
            })?;
            let (stop, stopped) = oneshot::channel::<()>();
            let shutdown = async { drop(stopped.await) };
            tokio::spawn(http::serve(listener, Arc::clone(&metrics), readiness.clone(), shutdown));
            endpoint = Some(stop);
        }
        let control = control_socket(&config.control, &log)?;
        metrics.set_sessions_limit(config.relay.limits.sessions);
        metrics.set_rules(&config.relay.rules)?;
        let observer = Arc::new((Arc::clone(&metrics), Arc::clone(&log)));
        let relay = Relay::start(config.relay.clone(), observer, Arc::new(()))?;
        // Only now: what is intercepted needs a listener.
        if let Some(settings) = &config.intercept {
            intercept::install(settings).await?;
            for warning in intercept::show().await?.warnings {
                log.notice(Level::Warn, &warning.to_string());
            }
        }
        tokio::spawn(relay.forget_idle_clients());
        let control = control.map(|listener| {
            let (recorders, log) = (Arc::clone(relay.recorders()), Arc::clone(&log));
            tokio::spawn(listener.serve(move |request, connection| {
                let (recorders, log) = (Arc::clone(&recorders), Arc::clone(&log));
                async move {
                    match request {
                        Request::Record(wanted) => feed(&recorders, wanted, connection, &log).await,
                    }
                }
            }))
        });
        let watch = match &config.watch {
            Some(settings) => {
                let upstreams = &config.relay.upstream.addresses;
                let (metrics, log) = (Arc::clone(&metrics), Arc::clone(&log));
                let watch = Beside::start(settings.clone(), upstreams, metrics, log);
                Some(watch.context("cannot start the thread that watches")?)
            }
            None => None,
        };
        let (path, overflowed) = (path.to_owned(), 0);
        let gateway = Self {
            path,
            config,
            relay,
            metrics,
            log,
            readiness,
            endpoint,
            control,
            watch,
            overflowed,
        };
        gateway.say_ready();
        Ok(gateway)
    }

    fn say_ready(&self) {
        let addresses: Vec<String> = self.relay.addresses().map(|a| a.to_string()).collect();
        let how = if self.config.intercept.is_some() { " for intercepted mail" } else { "" };
        self.readiness.set(ReadyState::Ready);
        self.log.notice(Level::Info, &format!("ready: listening on {}{how}", addresses.join(", ")));
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
        let overflowed = self.relay.recorders().overflowed();
        self.metrics.record_omitted_octets(overflowed.saturating_sub(self.overflowed));
        self.overflowed = overflowed;
    }

    /// SIGHUP: the new configuration, or the old one and an error.
    async fn reload(&mut self) {
        self.log.reopen();
        match self.try_reload().await {
            Ok(()) => {
                self.metrics.config_reload_applied();
                self.log.notice(Level::Info, "configuration reloaded");
                self.say_ready();
            }
            Err(error) => {
                self.metrics.config_reload_failed();
                let kept = "configuration not reloaded, the old one stays in force";
                for line in format!("{error:#}").lines() {
                    self.log.notice(Level::Error, &format!("{kept}: {line}"));
                }
            }
        }
    }

    async fn try_reload(&mut self) -> anyhow::Result<()> {
        let config = Config::load(&self.path)?;
        self.relay.reload(config.relay.clone())?;
        if config.intercept != self.config.intercept {
            match &config.intercept {
                Some(settings) => intercept::install(settings).await?,
                None => drop(intercept::remove().await?),
            }
        }
        let old = &self.config;
        for (changed, key) in [
            (config.metrics != old.metrics, "[metrics]"),
            (config.log != old.log, "[log]"),
            (config.control != old.control, "[control]"),
            (config.watch != old.watch, "[watch]"),
            (config.relay.listen.threads != old.relay.listen.threads, "listen.threads"),
        ] {
            if changed {
                self.log.notice(
                    Level::Warn,
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
    async fn stop(self) -> anyhow::Result<ExitCode> {
        self.readiness.set(ReadyState::Draining);
        let sessions = self.relay.sessions();
        self.log.notice(Level::Info, &format!("stopping: {sessions} sessions in progress"));
        let recorders = Arc::clone(self.relay.recorders());
        let cut_off = self.relay.drain().await;
        if cut_off > 0 {
            let late = format!("{cut_off} sessions did not end in time and were ended with 421");
            self.log.notice(Level::Warn, &late);
        }
        // Sessions in progress needed the rules; without a listener new ones passed by.
        if self.config.intercept.is_some() {
            intercept::remove().await?;
        }
        recorders.settle(LAST_LINES).await;
        if let Some(control) = self.control {
            control.abort();
        }
        if let Some(watch) = self.watch {
            watch.stop();
        }
        self.log.notice(Level::Info, "stopped");
        drop(self.endpoint);
        self.log.flush(LAST_LINES);
        Ok(ExitCode::SUCCESS)
    }
}

/// The control socket. Where the file names none, a gateway can do without.
fn control_socket(
    settings: &control::Settings,
    log: &SessionLog,
) -> anyhow::Result<Option<control::Listener>> {
    match control::Listener::bind(settings) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if settings.required => Err(error.into()),
        Err(error) => {
            log.notice(Level::Warn, &format!("no control socket: {error}"));
            Ok(None)
        }
    }
}

/// Tells a recorder of sessions until it hangs up.
async fn feed(
    recorders: &Arc<Recorders>,
    selection: Selection,
    mut connection: Connection,
    log: &SessionLog,
) {
    let mut recorder = match recorders.attach(selection) {
        Ok(recorder) => recorder,
        Err(error) => {
            let _gone_already = connection.answer(&Answer::Error(error.to_string())).await;
            return;
        }
    };
    log.notice(Level::Info, "a recorder is attached: sessions that begin now are told to it");
    let mut there = connection.answer(&Answer::Ok).await.is_ok();
    while there {
        there = tokio::select! {
            octets = recorder.next() => connection.send(octets).await.is_ok(),
            () = connection.hung_up() => false,
        };
    }
    log.notice(Level::Info, "a recorder is gone");
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
