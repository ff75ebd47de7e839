//! The task that controls the doors: once a second it collects signals, updates each door, and has the kernel or the relay
//! enforce the result.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::inbound_evidence::SharedEvidence;
use crate::addr::Family;
use crate::config;
use crate::control::DoorChange;
use crate::intercept::door::{DoorEnforcement, DoorEnforcer, DoorError, Ingress, RefuseMethod};
use crate::metrics::Metrics;
use crate::policy::door::{
    Door, DoorInputs, DoorReport, DoorSettings, DoorState, DoorTransition, FamilyInputs,
    ProbeResult, ProbeResults, Signals, SilenceSign, VantageStatus, receive_path, signals_of,
};
use crate::policy::facts::{Answer, Reason};
use crate::relay::RelayHandle;
use crate::report::{LogLevel, SessionLog};
use crate::time::Timestamp;

const TICK: Duration = Duration::from_secs(1);
/// Interval of the MX lookups.
const MX_EVERY: Duration = Duration::from_secs(300);
/// Interval, in ticks, of the gateway's own connections to upstreams; longer than their time limit.
const CHECK_EVERY: u32 = 4;
/// Interval, in ticks, at which the kernel's counters are read. Interception runs nft(8) for it.
const COUNT_EVERY: u32 = 5;

type Query<T> = Box<dyn Fn(Family) -> BoxFuture<'static, T> + Send + Sync>;

/// The latest proofs of a family in watched traffic: an accepted message, and a session under TLS.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::app) struct WatchedEvidence {
    pub(in crate::app) accepted: Option<Timestamp>,
    pub(in crate::app) under_tls: Option<Timestamp>,
}

/// Evidence besides the relay's own sessions.
#[derive(Default)]
pub(in crate::app) struct EvidenceSources {
    pub(in crate::app) watched: Option<Box<dyn Fn(Family) -> WatchedEvidence + Send + Sync>>,
    /// Whether the MX of each of our domains has an address in the family; `None` if unknown.
    pub(in crate::app) mx_has_address: Option<Query<Option<bool>>>,
    pub(in crate::app) vantage: Option<Query<ProbeResult>>,
    /// Why mail of the family is filtered away, if canaries show that.
    pub(in crate::app) filtered: Option<Box<dyn Fn(Family) -> Option<String> + Send + Sync>>,
}

/// The parts of a running gateway that doors read and change.
pub(in crate::app) struct DoorController {
    pub(in crate::app) settings: config::DoorConfig,
    /// With both doors open; and why the kernel does not enforce them, if so.
    pub(in crate::app) enforcer: (DoorEnforcer, Option<DoorError>),
    pub(in crate::app) relay: RelayHandle,
    pub(in crate::app) evidence: Arc<SharedEvidence>,
    pub(in crate::app) sources: EvidenceSources,
    pub(in crate::app) metrics: Arc<Metrics>,
    pub(in crate::app) log: Arc<SessionLog>,
}

/// Sends requests to the controller's task.
#[derive(Clone)]
pub(in crate::app) struct DoorHandle {
    requests: mpsc::Sender<DoorRequest>,
    states: watch::Receiver<DoorStates>,
}

/// By family; `None` without a door.
type DoorStates = [Option<DoorState>; Family::ALL.len()];

enum DoorRequest {
    Change { change: Option<DoorChange>, reply: oneshot::Sender<Result<Vec<DoorReport>, String>> },
    Report(oneshot::Sender<Vec<DoorReport>>),
    ReceivePath { family: Family, reply: oneshot::Sender<Answer> },
    SetIngress(Ingress),
}

/// A result of one of [`EvidenceSources`].
enum SourceResult {
    Probe(Family, ProbeResult),
    Mx(Family, Option<bool>),
    /// Whether an upstream accepts the gateway's own connection.
    Upstream(Family, SocketAddr, bool),
}

impl DoorHandle {
    /// The door's state after the last tick; `None` without a door.
    pub(in crate::app) fn state(&self, family: Family) -> Option<DoorState> {
        self.states.borrow()[family as usize]
    }

    /// Applies `change`, reads the kernel's counters and reports both doors.
    pub(in crate::app) async fn change(
        &self,
        change: Option<DoorChange>,
    ) -> Result<Vec<DoorReport>, String> {
        let (reply, report) = oneshot::channel();
        let stopping = || Err("the gateway is stopping".to_owned());
        if self.requests.send(DoorRequest::Change { change, reply }).await.is_err() {
            return stopping();
        }
        report.await.unwrap_or_else(|_| stopping())
    }

    /// Both doors with the counters last read; `None` while the gateway stops.
    pub(in crate::app) async fn report(&self) -> Option<Vec<DoorReport>> {
        let (reply, report) = oneshot::channel();
        self.requests.send(DoorRequest::Report(reply)).await.ok()?;
        report.await.ok()
    }

    /// The answer to [`crate::policy::facts::Lookup::ReceivePath`].
    pub(in crate::app) async fn receive_path(&self, family: Family) -> Answer {
        let (reply, answer) = oneshot::channel();
        let stopping = Answer::Unknown(Reason::NoResolver);
        if self.requests.send(DoorRequest::ReceivePath { family, reply }).await.is_err() {
            return stopping;
        }
        answer.await.unwrap_or(stopping)
    }

    /// Enforces the doors at another ingress from now on.
    pub(in crate::app) async fn set_ingress(&self, ingress: Ingress) {
        let _stopping = self.requests.send(DoorRequest::SetIngress(ingress)).await;
    }
}

struct FamilyState {
    family: Family,
    /// `None` without a door.
    door: Option<Door>,
    settings: DoorSettings,
    probes: Option<ProbeResults>,
    /// A probe is in flight; a second one would return the same result.
    is_probing: bool,
    mx_has_address: Option<bool>,
    /// SYNs refused, as reported to the metrics.
    refused: u64,
    /// Of a closed door: whether it refuses sessions, as read last.
    in_force: bool,
    /// Mail is missing.
    silence: Option<SilenceSign>,
}

fn states(families: &[FamilyState; Family::ALL.len()], now: Timestamp) -> DoorStates {
    families.each_ref().map(|state| state.door.as_ref().map(|door| door.status(now).state))
}

struct DoorTask {
    families: [FamilyState; Family::ALL.len()],
    parts: DoorController,
    states: watch::Sender<DoorStates>,
    results: mpsc::Sender<SourceResult>,
    /// `None` without one.
    vantage: Option<VantageStatus>,
    ticks: u32,
}

impl DoorController {
    /// Starts the task. Aborting it opens the doors.
    pub(in crate::app) fn start(mut self) -> (DoorHandle, JoinHandle<()>) {
        if let Some(error) = self.enforcer.1.take() {
            let notice = format!("a closed door refuses with 421 only: {error}");
            self.log.notice(LogLevel::Warn, &notice);
        }
        self.relay.set_exempt(self.settings.exempt.clone());
        let now = self.relay.clock().now();
        let families = Family::ALL.map(|family| {
            let settings = self.settings.of(family);
            FamilyState {
                family,
                door: settings.map(|settings| Door::new(family, settings.clone(), now)),
                settings: settings.cloned().unwrap_or_default(),
                probes: None,
                is_probing: false,
                mx_has_address: None,
                refused: 0,
                in_force: true,
                silence: None,
            }
        });
        let (requests, inbox) = mpsc::channel(16);
        let (results, finished) = mpsc::channel(16);
        let (sender, states) = watch::channel(states(&families, now));
        let vantage = self.sources.vantage.is_some().then(|| VantageStatus::new(now));
        let task = DoorTask { families, parts: self, states: sender, results, vantage, ticks: 0 };
        (DoorHandle { requests, states }, tokio::spawn(task.run(inbox, finished)))
    }
}

impl DoorTask {
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<DoorRequest>,
        mut results: mpsc::Receiver<SourceResult>,
    ) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut last_probe, mut last_mx): (Option<Instant>, Option<Instant>) = (None, None);
        // Ticks drift by microseconds; without the tolerance an interval would often be one tick longer.
        let is_due = |last: Option<Instant>, every| {
            last.is_none_or(|last| last.elapsed() + TICK / 2 >= every)
        };
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    if is_due(last_probe, self.parts.settings.probe_interval) {
                        last_probe = Some(Instant::now());
                        self.start_probes();
                    }
                    if is_due(last_mx, MX_EVERY) {
                        last_mx = Some(Instant::now());
                        self.start_mx_lookups();
                    }
                    self.start_upstream_checks();
                    self.update_doors().await;
                    self.ticks = self.ticks.wrapping_add(1);
                    if self.ticks.is_multiple_of(COUNT_EVERY) {
                        self.read_counters().await;
                    }
                }
                Some(request) = requests.recv() => self.handle(request).await,
                Some(result) = results.recv() => self.on_result(result),
            }
        }
    }

    /// A vantage may take longer than a tick, so each probe has its own task.
    fn start_probes(&mut self) {
        let Some(vantage) = &self.parts.sources.vantage else { return };
        for state in &mut self.families {
            let family = state.family;
            if state.is_probing || !self.parts.relay.listens_on(family) {
                continue;
            }
            state.is_probing = true;
            let (probe, results) = (vantage(family), self.results.clone());
            tokio::spawn(async move {
                let result = probe.await;
                let _stopping = results.send(SourceResult::Probe(family, result)).await;
            });
        }
    }

    /// Only where it depends on the client whether a session finds an upstream.
    fn start_upstream_checks(&self) {
        if !self.ticks.is_multiple_of(CHECK_EVERY) || !self.parts.relay.upstream_depends_on_client()
        {
            return;
        }
        for family in Family::ALL {
            let targets = self.parts.evidence.lock().upstream_checks(family, self.now());
            for target in targets {
                let (results, relay) = (self.results.clone(), self.parts.relay.clone());
                tokio::spawn(async move {
                    let reached = relay.is_reached(target).await;
                    let result = SourceResult::Upstream(family, target, reached);
                    let _stopping = results.send(result).await;
                });
            }
        }
    }

    fn start_mx_lookups(&self) {
        let Some(mx_has_address) = &self.parts.sources.mx_has_address else { return };
        for family in Family::ALL {
            let (lookup, results) = (mx_has_address(family), self.results.clone());
            tokio::spawn(async move {
                let result = lookup.await;
                let _stopping = results.send(SourceResult::Mx(family, result)).await;
            });
        }
    }

    fn on_result(&mut self, result: SourceResult) {
        let now = self.now();
        match result {
            SourceResult::Probe(family, result) => {
                self.on_vantage_result(&result, now);
                if result == (ProbeResult::Reached { large: true }) {
                    // Large segments pass: earlier stalls say nothing, also once the vantage no longer responds.
                    self.parts.evidence.lock().clear_stalled(family, now);
                }
                let state = &mut self.families[family as usize];
                state.is_probing = false;
                state.probes = ProbeResults::with(state.probes.take(), result, now);
            }
            SourceResult::Upstream(family, upstream, reached) => {
                let mut evidence = self.parts.evidence.lock();
                evidence.on_upstream_check(family, upstream, reached, now);
            }
            // A failed lookup changes nothing: it must not end the time for which a door is held open.
            SourceResult::Mx(family, has) => {
                let known = &mut self.families[family as usize].mx_has_address;
                *known = has.or(*known);
            }
        }
    }

    fn on_vantage_result(&mut self, result: &ProbeResult, now: Timestamp) {
        let Some(vantage) = &mut self.vantage else { return };
        let answered = match result {
            ProbeResult::NoAnswer(error) => Err(error.as_str()),
            ProbeResult::Reached { .. } | ProbeResult::NotReached(_) | ProbeResult::Unknown => {
                Ok(())
            }
        };
        let was_up = vantage.up;
        if vantage.on_result(answered, now) {
            match answered {
                Ok(()) if was_up == Some(false) => {
                    self.parts.log.notice(LogLevel::Info, "vantage probes work again");
                }
                Ok(()) => {}
                Err(error) => {
                    let notice = format!("vantage probes fail: {error}");
                    self.parts.log.notice(LogLevel::Warn, &notice);
                }
            }
        }
        self.parts.metrics.set_vantage_up(Some(vantage.up == Some(true)));
    }

    async fn handle(&mut self, request: DoorRequest) {
        match request {
            DoorRequest::Change { change, reply } => {
                let _client_is_gone = reply.send(self.change(change).await);
            }
            DoorRequest::Report(reply) => {
                let _client_is_gone = reply.send(self.report());
            }
            DoorRequest::ReceivePath { family, reply } => {
                let settings = &self.families[family as usize].settings;
                let answer = receive_path(&self.signals(family), settings, self.now());
                let _client_is_gone = reply.send(answer);
            }
            DoorRequest::SetIngress(ingress) => {
                if let Err(error) = self.parts.enforcer.0.update(ingress).await {
                    self.fall_back_to_421(&error);
                }
            }
        }
    }

    async fn change(&mut self, change: Option<DoorChange>) -> Result<Vec<DoorReport>, String> {
        if let Some(DoorChange { family, mode }) = change {
            let Some(door) = &mut self.families[family as usize].door else {
                return Err(format!(
                    "{family} has no door: add [door.{family}] to the configuration"
                ));
            };
            door.set_mode(mode);
            let notice = format!("door {family}: set to {mode} by an operator");
            self.parts.log.notice(LogLevel::Info, &notice);
            self.update_doors().await;
        }
        self.read_counters().await;
        Ok(self.report())
    }

    fn report(&self) -> Vec<DoorReport> {
        let now = self.now();
        let report = |state: &FamilyState| DoorReport {
            family: state.family,
            status: state.door.as_ref().map(|door| door.status(now)),
            refuses: self.parts.enforcer.0.method().as_str().to_owned(),
            refused: state.refused + self.parts.metrics.smtp_door_refusals(state.family),
            vantage: self.vantage.clone(),
            silence: state.silence.clone(),
            filtered: self.filtered(state.family),
            enforced: state.in_force,
        };
        // IPv6 first: it is the family that usually has a door.
        self.families.iter().rev().map(report).collect()
    }

    /// The signals of one family, without alternatives.
    fn signals(&self, family: Family) -> Signals {
        let state = &self.families[family as usize];
        let evidence = self.parts.evidence.lock().of(family, &state.settings, self.now());
        let (sources, relay) = (&self.parts.sources, &self.parts.relay);
        let watched = sources.watched.as_ref().map(|watched| watched(family)).unwrap_or_default();
        // Where a client's own address or choice decides whether upstream can be reached, several clients must agree.
        let upstream_down = if relay.upstream_depends_on_client() {
            evidence.upstream_down
        } else {
            relay.is_without_upstream(family)
        };
        Signals {
            accepted: evidence.accepted.max(watched.accepted),
            encrypted: evidence.encrypted.max(watched.under_tls),
            probes: state.probes.clone(),
            has_vantage: sources.vantage.is_some(),
            upstream_down,
            filtered: self.filtered(family),
            ..evidence.into()
        }
    }

    fn filtered(&self, family: Family) -> Option<String> {
        self.parts.sources.filtered.as_ref().and_then(|filtered| filtered(family))
    }

    fn inputs(&self) -> DoorInputs {
        self.families.each_ref().map(|state| FamilyInputs {
            signals: self.signals(state.family),
            settings: state.settings.clone(),
            is_served: self.parts.relay.listens_on(state.family),
            is_closed: state.door.as_ref().is_some_and(|door| !door.admits()),
            mx_has_address: state.mx_has_address,
        })
    }

    async fn update_doors(&mut self) {
        let now = self.now();
        let mut inputs = self.inputs();
        for family in Family::ALL {
            let Some(door) = &mut self.families[family as usize].door else {
                self.parts.metrics.clear_door(family);
                continue;
            };
            let transition = door.update(&signals_of(family, &inputs, now), now);
            inputs[family as usize].is_closed = !door.admits();
            self.parts.metrics.set_door(&door.status(now));
            if let Some(transition) = transition {
                self.on_transition(family, &transition).await;
            }
        }
        self.update_silence(now);
        self.states.send_replace(states(&self.families, now));
    }

    fn update_silence(&mut self, now: Timestamp) {
        for state in &mut self.families {
            let family = state.family;
            let admits = state.door.as_ref().is_none_or(Door::admits);
            let sign = self.parts.evidence.lock().silence(family, admits, now);
            self.parts.metrics.set_silence(family, sign.is_some());
            match (&state.silence, &sign) {
                (None, Some(sign)) => {
                    let notice = format!("door {family}: {}", sign.text(family, now));
                    self.parts.log.notice(LogLevel::Warn, &notice);
                }
                (Some(_), None) => {
                    let notice = format!("door {family}: mail arrives again");
                    self.parts.log.notice(LogLevel::Info, &notice);
                }
                _ => {}
            }
            state.silence = sign;
        }
    }

    async fn on_transition(&mut self, family: Family, transition: &DoorTransition) {
        let DoorTransition { from, to, reason, detail, .. } = transition;
        let level = match to {
            DoorState::Closing | DoorState::Closed => LogLevel::Warn,
            DoorState::Opening | DoorState::Open => LogLevel::Info,
        };
        let notice = format!("door {family}: {to}, was {from}: {detail} ({reason})");
        self.parts.log.notice(level, &notice);
        self.parts.metrics.on_door_change(family, transition);
        if from.admits() != to.admits() {
            self.parts.evidence.lock().clear_stalled(family, transition.at);
            self.enforce(family, to.admits()).await;
        }
    }

    async fn enforce(&mut self, family: Family, admits: bool) {
        let set = self.parts.enforcer.0.set(family, admits).await;
        let is_in_kernel = set.is_ok() && self.parts.enforcer.0.method() == RefuseMethod::Syn;
        if let Err(error) = set {
            self.fall_back_to_421(&error);
        }
        self.parts.relay.set_door(family, admits || is_in_kernel);
    }

    fn fall_back_to_421(&self, error: &DoorError) {
        let notice =
            format!("the kernel did not change a door; the gateway refuses with 421: {error}");
        self.parts.log.notice(LogLevel::Error, &notice);
        for state in &self.families {
            let admits = state.door.as_ref().is_none_or(Door::admits);
            self.parts.relay.set_door(state.family, admits);
        }
    }

    async fn read_counters(&mut self) {
        let DoorEnforcement { refused_syns, in_force } = self.parts.enforcer.0.enforcement().await;
        for state in &mut self.families {
            let refused = refused_syns[state.family as usize];
            let more = refused.saturating_sub(state.refused);
            self.parts.metrics.add_syn_refusals(state.family, more);
            state.refused = state.refused.max(refused);
            let is_closed = state.door.as_ref().is_some_and(|door| !door.admits());
            state.in_force = !is_closed || in_force[state.family as usize];
            let is_enforced = state.door.as_ref().map(|_| state.in_force);
            self.parts.metrics.set_door_enforced(state.family, is_enforced);
        }
    }

    fn now(&self) -> Timestamp {
        self.parts.relay.clock().now()
    }
}
