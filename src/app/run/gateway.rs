//! A running gateway: its parts, their start and their stop.

mod reload;
mod state;
mod tick;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::SignalKind;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::bootstrap::Bootstrap;
use super::canary::{CanaryService, PassedCanaries};
use super::capabilities::KeptCapabilities;
use super::certificate_updates::CertificateUpdates;
use super::certificates::Certificates;
use super::control::ControlService;
use super::evidence::evidence_sources;
use super::host_log::HostLog;
use super::interception_watch::InterceptionWatcher;
use super::joined_sessions::JoinedSessions;
use super::lookup_router::{LookupRouter, start_lookups};
use super::own_addresses::own_addresses;
use super::policy_service;
use super::service_manager::ServiceManager;
use super::status_page::StatusSources;
use super::upstream_log::UpstreamLog;
use crate::addr::Networks;
use crate::app::check::{CheckingHost, domain_checks};
use crate::app::door::{DoorController, DoorHandle, SharedEvidence};
use crate::app::host_checks;
use crate::app::intercept::check_before_start;
use crate::app::metrics_endpoint::{self, HttpEndpoint};
use crate::app::outbound::OutboundService;
use crate::app::signals::{Shutdown, on};
use crate::app::watch::BackgroundWatch;
use crate::config::Config;
use crate::intercept::SharedInterception;
use crate::lookup::LookupService;
use crate::metrics::Metrics;
use crate::metrics::domain_check::{DomainChecks, probe};
use crate::metrics::http::{HealthState, PATHS_WITH_PROBE, ReadyState};
use crate::postfix::policy::PolicyService;
use crate::relay::{Relay, RelayHandle, TlsConfigs};
use crate::report::status::StatusCollector;
use crate::report::{LogLevel, SessionLog};
use crate::traffic::FlowObserver;

/// Interval at which metrics, `/readyz` and the service manager are updated.
const TICK: Duration = Duration::from_secs(1);
/// Time for the first lookup of each host name; sessions that need it wait for it longer.
const FIRST_LOOKUPS: Duration = Duration::from_secs(6);
/// Time to write the last lines of the log, and the last frames to recorders.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Gateway {
    path: PathBuf,
    config: Config,
    relay: Relay,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
    health: HealthState,
    /// Of the status page.
    sources: StatusSources,
    endpoint: Option<HttpEndpoint>,
    control: Option<JoinHandle<()>>,
    watch: Option<BackgroundWatch>,
    /// With its task.
    doors: Option<(DoorHandle, JoinHandle<()>)>,
    /// With the task that watches it.
    interception: Option<(SharedInterception, InterceptionWatcher)>,
    certificates: CertificateUpdates,
    /// With its address, as the log has it.
    policy_service: Option<(PolicyService, String)>,
    /// With `[outbound]`.
    outbound: Option<OutboundService>,
    canary: CanaryService,
    /// `None` if lookups are disabled.
    lookup: Option<LookupService>,
    capabilities: KeptCapabilities,
    manager: ServiceManager,
    upstream_log: UpstreamLog,
    host_log: HostLog,
    /// Bytes that recorders missed, as reported to the metrics.
    missed_bytes: u64,
    ticks: u32,
}

impl Gateway {
    pub(super) async fn start(path: &Path, config: Config) -> anyhow::Result<Self> {
        let Bootstrap {
            control,
            listeners,
            policy_listener,
            metrics_listener,
            map,
            doors,
            interception,
            certificates,
            upstream_tls: upstreams,
            capabilities,
        } = Bootstrap::run(&config).await?;
        let metrics = Arc::new(Metrics::new()?);
        metrics.set_not_intercepting();
        metrics.set_mail_log_up(None);
        metrics.clear_canary_parity();
        let log = start_log(&config, &metrics)?;
        log.notice(LogLevel::Info, &capabilities.summary(&config));
        let warnings = config.warnings().into_iter().chain(host_checks::warnings(&config, path));
        for warning in warnings.chain(host_checks::root_warning()) {
            log.notice(LogLevel::Warn, &warning);
        }
        report_passthrough(&config, &log);
        for address in listeners.overlapping() {
            let warning = format!(
                "another program listens on the port of {address} at an overlapping address, perhaps a second gateway: \
                 `ss -ltnp` shows which"
            );
            log.notice(LogLevel::Warn, &warning);
        }
        if let Some(warning) = certificates.as_ref().and_then(Certificates::unreadable) {
            log.notice(LogLevel::Warn, &warning);
        }
        // Without a listener there are no sessions.
        let sessions = match config.relay.listeners.is_empty() {
            true => 0,
            false => config.relay.limits.sessions,
        };
        if let Some(warning) = raise_descriptor_limit(sessions) {
            log.notice(LogLevel::Warn, &warning);
        }
        let health = HealthState::new();
        let status = Arc::new(StatusCollector::new(&config.status));
        let sources = StatusSources::default();
        sources.set_warning(danger(&config));
        let endpoint = metrics_listener.map(|listener| {
            let page = sources.page(Arc::clone(&status), (path, &config), health.clone());
            let page = page.merge(probe(domain_checks_of(&config)));
            metrics_endpoint::serve(
                listener,
                Arc::clone(&metrics),
                health.clone(),
                (page, PATHS_WITH_PROBE),
            )
        });
        let control = control.map_err(|error| log.notice(LogLevel::Warn, &error)).ok();
        metrics.set_sessions_limit(config.relay.limits.sessions);
        metrics.set_vantage_up(config.vantage.as_ref().map(|_| false));
        metrics.set_rules(&config.relay.rules)?;
        metrics.set_listeners(&listener_names(&config))?;
        let lookup_observer = Arc::new((Arc::clone(&metrics), Arc::clone(&status)));
        let lookup = start_lookups(&config.lookup, lookup_observer, &log);
        let router = Arc::new(LookupRouter::new(lookup.clone()));
        let exempt = config.door.as_ref().map(|door| door.exempt.clone()).unwrap_or_default();
        let evidence = Arc::new(SharedEvidence::new(exempt, &config.relay));
        // Postfix's sessions are no evidence: what becomes of them is not known.
        let asking = Arc::new((Arc::clone(&metrics), (Arc::clone(&log), Arc::clone(&status))));
        let passed_canaries = PassedCanaries::default();
        let session_observers =
            (Arc::clone(&log), (Arc::clone(&evidence), (status, passed_canaries.clone())));
        let observer = JoinedSessions::new((Arc::clone(&metrics), session_observers));
        let observer = Arc::new(observer);
        let joined = Arc::clone(&observer);
        let provider = Arc::clone(&router) as _;
        let clients = certificates.as_ref().map(Certificates::client_tls);
        let tls = TlsConfigs { clients, upstreams };
        let relay = Relay::start(config.relay.clone(), listeners, tls, observer, provider)?;
        let policy_address = policy_listener.as_ref().map(|own| own.address().to_string());
        let policy_service = policy_service::start(policy_listener, &config, &router, asking, &log);
        if let Some(service) = &policy_service {
            joined.set_asked(service.records());
        }
        // After the relay: intercepted connections need a listener.
        for warning in check_before_start(&config).await? {
            log.notice(LogLevel::Warn, &warning);
        }
        let interception = match interception {
            Some(interception) => {
                interception.lock().await.install().await?;
                Some(watched(interception, &metrics, &log))
            }
            None => None,
        };
        // A name that is found now is no reason for a warning.
        let first_lookups = relay.handle();
        let _too_slow = timeout(FIRST_LOOKUPS, first_lookups.wait_for_first_lookups()).await;
        if let Some(lookup) = &lookup {
            set_addresses(lookup, &config, &relay.handle());
        }
        tokio::spawn(relay.forget_idle_clients());
        tokio::spawn(relay.check_upstreams());
        let canary = CanaryService::start(&config, lookup.as_ref(), &metrics, &log)?;
        let doors = match doors {
            Some((settings, enforcer)) => {
                let controller = DoorController {
                    settings,
                    enforcer,
                    relay: relay.handle(),
                    evidence,
                    sources: evidence_sources(&config, lookup.as_ref(), &canary, &metrics)?,
                    metrics: Arc::clone(&metrics),
                    log: Arc::clone(&log),
                };
                Some(controller.start())
            }
            None => None,
        };
        sources.set_relay(relay.handle());
        sources.set_canary(canary.clone());
        passed_canaries.set(canary.clone());
        if let Some((handle, _)) = &doors {
            router.set_doors(handle.clone());
            sources.set_doors(handle.clone());
        }
        let outbound = map.zip(config.outbound.as_ref()).map(|(listener, outbound)| {
            OutboundService::start(outbound, listener, lookup.clone(), &metrics, &log)
        });
        let outbound = outbound.transpose().context("cannot read the mail log")?;
        let control = control.map(|listener| {
            let service = ControlService {
                taps: Arc::clone(relay.taps()),
                doors: doors.as_ref().map(|(handle, _)| handle.clone()),
                lookup: lookup.clone(),
                outbound: outbound.as_ref().map(|outbound| outbound.evidence().clone()),
                canary: canary.clone(),
                log: Arc::clone(&log),
            };
            tokio::spawn(service.serve(listener))
        });
        let watch = match &config.watch {
            Some(settings) => {
                let hosts = (&*relay.handle().upstream_addresses(), own_side(&config));
                let (metrics, log) = (Arc::clone(&metrics), Arc::clone(&log));
                let mut observers: Vec<Arc<dyn FlowObserver>> = Vec::new();
                let of_lookups =
                    lookup.clone().map(|lookup| Arc::new(lookup) as Arc<dyn FlowObserver>);
                observers.extend(of_lookups.map(|observer| match &outbound {
                    Some(outbound) => outbound.without_own_resets(observer),
                    None => observer,
                }));
                observers.extend(outbound.as_ref().and_then(OutboundService::flow_observer));
                let watch =
                    BackgroundWatch::start(settings.clone(), hosts, metrics, log, observers);
                Some(watch.context("cannot start the capture thread")?)
            }
            None => None,
        };
        let observers = (&metrics, &log);
        let certificates =
            CertificateUpdates::new(certificates, relay.handle(), observers, sources.clone());
        Ok(Self {
            path: path.to_owned(),
            config,
            relay,
            metrics,
            log,
            health,
            sources,
            endpoint,
            control,
            watch,
            doors,
            interception,
            certificates,
            outbound,
            policy_service: policy_service.zip(policy_address),
            canary,
            lookup,
            capabilities,
            manager: ServiceManager::new(),
            upstream_log: UpstreamLog::default(),
            host_log: HostLog::default(),
            missed_bytes: 0,
            ticks: 0,
        })
    }

    /// Runs until SIGTERM or SIGINT.
    pub(super) async fn serve(&mut self) -> anyhow::Result<()> {
        let mut shutdown = Shutdown::new(None)?;
        let mut hangup = on(SignalKind::hangup())?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        // Whoever learns that it is ready may send a signal.
        self.report_ready();
        loop {
            tokio::select! {
                _ = shutdown.requested() => return Ok(()),
                _ = hangup.recv() => self.reload().await,
                _ = tick.tick() => self.on_tick(),
            }
        }
    }

    /// Stops accepting sessions, drains those in progress, and removes everything from the kernel.
    pub(super) async fn stop(mut self) -> anyhow::Result<ExitCode> {
        self.health.set(ReadyState::Draining);
        let sessions = self.relay.sessions();
        let stopping = format!("stopping: {sessions} sessions in progress");
        self.log.notice(LogLevel::Info, &stopping);
        self.manager.notify_stopping(stopping);
        if self.interception.is_some() {
            // Without a listener `tproxy` takes nothing.
            let notice = "new mail goes to the servers directly from now on, uninspected, until gatepost runs again";
            self.log.notice(LogLevel::Warn, notice);
        }
        if let Some(outbound) = self.outbound {
            outbound.stop().await;
        }
        let taps = Arc::clone(self.relay.taps());
        let cut_off = self.relay.drain().await;
        // After the drain: Postfix asks about sessions in progress, and the questions belong to their records.
        if let Some((service, _)) = self.policy_service {
            service.stop().await;
        }
        if cut_off > 0 {
            let notice = format!("{cut_off} sessions exceeded the drain time and got a 421");
            self.log.notice(LogLevel::Warn, &notice);
        }
        // After the drain: sessions in progress need the rules, and new ones pass by without a listener.
        if let Some((interception, watcher)) = self.interception {
            watcher.stop().await;
            interception.lock().await.remove().await?;
        }
        taps.flush(FLUSH_TIMEOUT).await;
        if let Some(control) = self.control {
            control.abort();
        }
        if let Some(watch) = self.watch {
            watch.stop();
        }
        if let Some((_, task)) = self.doors {
            task.abort();
        }
        self.canary.stop();
        if let Some(lookup) = &self.lookup {
            lookup.flush();
        }
        self.log.notice(LogLevel::Info, "stopped");
        drop(self.endpoint);
        self.log.flush(FLUSH_TIMEOUT);
        Ok(ExitCode::SUCCESS)
    }
}

/// For `/probe`.
fn domain_checks_of(config: &Config) -> Arc<DomainChecks> {
    let settings = config.metrics.as_ref().map(|metrics| metrics.checks.clone());
    let host = CheckingHost {
        dns: config.lookup.dns_servers.first().copied(),
        hostname: config.relay.smtp.hostname.clone(),
        controls: config
            .metrics
            .as_ref()
            .map(|metrics| metrics.controls.clone())
            .unwrap_or_default(),
        control_socket: Some(config.control.socket.clone()),
        site: config.site.addresses.clone(),
    };
    domain_checks(settings.unwrap_or_default(), "`probe_domains` in [metrics]", host)
}

/// The networks on our side of a router: `[site] addresses`, and those of the MTAs whose connections to avoided addresses are
/// reset.
fn own_side(config: &Config) -> Networks {
    let resets = config.outbound.as_ref().and_then(|outbound| outbound.resets.as_ref());
    let sources = resets.into_iter().flat_map(|resets| resets.sources.iter());
    Networks::new(sources.chain(config.site.addresses.iter()))
}

/// Passes the addresses of this host and its upstreams on: of interfaces and host names they change.
fn set_addresses(lookup: &LookupService, config: &Config, relay: &RelayHandle) {
    lookup.set_own_addresses(own_addresses(config, relay.upstream_addresses()));
    if let Some(listener) = &config.lookup.named_upstream {
        lookup.set_upstreams(relay.upstream_addresses_of(listener));
    }
}

fn listener_names(config: &Config) -> Vec<Arc<str>> {
    config.relay.listeners.iter().map(|listener| Arc::clone(&listener.name)).collect()
}

/// An installed interception, with the task that watches it.
fn watched(
    interception: SharedInterception,
    metrics: &Arc<Metrics>,
    log: &Arc<SessionLog>,
) -> (SharedInterception, InterceptionWatcher) {
    let shared = Arc::clone(&interception);
    let watcher = InterceptionWatcher::start(shared, Arc::clone(metrics), Arc::clone(log));
    (interception, watcher)
}

/// The setting on which the site's safety hangs, for the status page.
fn danger(config: &Config) -> Option<String> {
    config.identity_warning().filter(|_| config.depends_on_trust())
}

fn start_log(config: &Config, metrics: &Arc<Metrics>) -> anyhow::Result<Arc<SessionLog>> {
    let metrics = Arc::clone(metrics);
    let on_dropped = Box::new(move |lines| metrics.add_dropped_log_lines(lines));
    Ok(Arc::new(SessionLog::start(&config.log, on_dropped)?))
}

/// A warning if policy rules do not apply to sessions under TLS.
fn report_passthrough(config: &Config, log: &SessionLog) {
    if let Some(notice) = config.passthrough_notice() {
        let escapes = !config.rules_without_envelope().is_empty();
        log.notice(if escapes { LogLevel::Warn } else { LogLevel::Info }, &notice);
    }
}

/// A session takes two descriptors, a spliced one up to four more. Returns a warning if the hard limit is too low.
fn raise_descriptor_limit(sessions: usize) -> Option<String> {
    let wanted = u64::try_from(sessions).unwrap_or(u64::MAX).saturating_mul(2).saturating_add(512);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft < hard {
        let _unchanged = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    (hard < wanted).then(|| {
        format!(
            "limits.sessions = {sessions} needs {wanted} file descriptors and the hard limit is {hard}; \
             raise it (LimitNOFILE= or ulimit -Hn) or lower limits.sessions"
        )
    })
}
