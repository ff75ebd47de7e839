//! The keeper of the doors: once a second it gathers the signs, lets the doors look, and has the kernel or the relay do it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Heard;
use super::probes::{ProbeResult, add};
use crate::addr::Family;
use crate::config;
use crate::control::DoorChange;
use crate::intercept::door::{DoorEnforcer, DoorError, Ingress, RefuseMethod};
use crate::metrics::Metrics;
use crate::policy::door::{
    Alternatives, Door, DoorReport, DoorSettings, DoorState, DoorTransition, OtherFamily,
    ProbeResults, Signals, receive_path,
};
use crate::policy::facts::Answer;
use crate::relay::RelayHandle;
use crate::report::{LogLevel, SessionLog};
use crate::time::Timestamp;

const TICK: Duration = Duration::from_secs(1);
/// How often the DNS is asked what addresses our MX has.
const ASK_MX: Duration = Duration::from_secs(300);
/// How often the kernel is asked whom it refused: where it intercepts, nft(8) is run for it.
const COUNT: u32 = 5;

type Ask<T> = Box<dyn Fn(Family) -> BoxFuture<'static, T> + Send + Sync>;

/// Who knows more than the relay.
#[derive(Default)]
pub(in crate::app) struct Surroundings {
    /// When what is watched passing by last showed a message that was taken.
    pub(in crate::app) watched: Option<Box<dyn Fn(Family) -> Option<Timestamp> + Send + Sync>>,
    /// Whether the MX of each of our domains has an address in the family; `None`: not known.
    pub(in crate::app) mx_has: Option<Ask<Option<bool>>>,
    /// A prober elsewhere.
    pub(in crate::app) vantage: Option<Ask<ProbeResult>>,
}

/// All that keeps the doors.
pub(in crate::app) struct Parts {
    pub(in crate::app) settings: config::DoorConfig,
    /// Who refuses, with both doors open; or the relay, and why it is not the kernel.
    pub(in crate::app) enforcer: (DoorEnforcer, Option<DoorError>),
    pub(in crate::app) gate: RelayHandle,
    pub(in crate::app) heard: Arc<Heard>,
    pub(in crate::app) surroundings: Surroundings,
    pub(in crate::app) metrics: Arc<Metrics>,
    pub(in crate::app) log: Arc<SessionLog>,
}

/// The handle to the task that keeps the doors.
#[derive(Clone)]
pub(in crate::app) struct Keeper {
    orders: mpsc::Sender<Order>,
    states: watch::Receiver<States>,
}

/// By family; `None`: nothing guards it.
type States = [Option<DoorState>; Family::ALL.len()];

enum Order {
    Tell { turn: Option<DoorChange>, answer: oneshot::Sender<Result<Vec<DoorReport>, String>> },
    Show(oneshot::Sender<Vec<DoorReport>>),
    ReceivePath { family: Family, answer: oneshot::Sender<Answer> },
    Renew(Ingress),
}

enum Found {
    Probe(Family, ProbeResult),
    Mx(Family, Option<bool>),
}

impl Keeper {
    /// Begins to keep the doors. Aborting the task opens them.
    pub(in crate::app) fn start(parts: Parts) -> (Self, JoinHandle<()>) {
        let (orders, inbox) = mpsc::channel(16);
        let (finders, found) = mpsc::channel(16);
        let (keeping, states) = Keeping::new(parts, finders);
        (Self { orders, states }, tokio::spawn(keeping.run(inbox, found)))
    }

    /// How the door of `family` was at the last look; `None`: nothing guards it.
    pub(in crate::app) fn state(&self, family: Family) -> Option<DoorState> {
        self.states.borrow()[family as usize]
    }

    /// How the doors are, after doing what is asked.
    pub(in crate::app) async fn told(
        &self,
        turn: Option<DoorChange>,
    ) -> Result<Vec<DoorReport>, String> {
        let (answer, told) = oneshot::channel();
        let gone = "the gateway is stopping".to_owned();
        if self.orders.send(Order::Tell { turn, answer }).await.is_err() {
            return Err(gone);
        }
        told.await.unwrap_or(Err(gone))
    }

    /// How the doors are, without asking the kernel whom it refused since it was asked last; `None` while the gateway stops.
    pub(in crate::app) async fn shown(&self) -> Option<Vec<DoorReport>> {
        let (answer, told) = oneshot::channel();
        self.orders.send(Order::Show(answer)).await.ok()?;
        told.await.ok()
    }

    /// The answer to [`crate::policy::facts::Lookup::ReceivePath`].
    pub(in crate::app) async fn receive_path(&self, family: Family) -> Answer {
        let (answer, told) = oneshot::channel();
        let nobody = Answer::Unknown(crate::policy::facts::Reason::NoResolver);
        if self.orders.send(Order::ReceivePath { family, answer }).await.is_err() {
            return nobody;
        }
        told.await.unwrap_or(nobody)
    }

    /// Sessions come in by another entrance now.
    pub(in crate::app) async fn renew(&self, entrance: Ingress) {
        let _stopping = self.orders.send(Order::Renew(entrance)).await;
    }
}

/// What is kept of one family.
struct Kept {
    family: Family,
    /// `None`: nothing guards it.
    door: Option<Door>,
    settings: DoorSettings,
    probes: Option<ProbeResults>,
    /// A prober is at it: another question now would only be told the same once more.
    is_probed: bool,
    mx_has: Option<bool>,
    /// Refused at the SYN, as far as the metrics know.
    refused: u64,
}

fn states(of: &[Kept; Family::ALL.len()], now: Timestamp) -> States {
    of.each_ref().map(|kept| kept.door.as_ref().map(|door| door.status(now).state))
}

struct Keeping {
    /// By family.
    of: [Kept; Family::ALL.len()],
    parts: Parts,
    states: watch::Sender<States>,
    finders: mpsc::Sender<Found>,
    ticks: u32,
}

impl Keeping {
    fn new(mut parts: Parts, finders: mpsc::Sender<Found>) -> (Self, watch::Receiver<States>) {
        let settings = &parts.settings;
        if let Some(error) = parts.enforcer.1.take() {
            let words = format!("a closed door refuses with 421 only: {error}");
            parts.log.notice(LogLevel::Warn, &words);
        }
        parts.gate.set_exempt(settings.exempt.clone());
        let now = parts.gate.clock().now();
        let of = Family::ALL.map(|family| {
            let guarded = settings.of(family);
            Kept {
                family,
                door: guarded.map(|settings| Door::new(family, settings.clone(), now)),
                settings: guarded.cloned().unwrap_or_default(),
                probes: None,
                is_probed: false,
                mx_has: None,
                refused: 0,
            }
        });
        let (states, told) = watch::channel(states(&of, now));
        (Self { of, parts, states, finders, ticks: 0 }, told)
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Order>, mut found: mpsc::Receiver<Found>) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut probed, mut asked_mx): (Option<Instant>, Option<Instant>) = (None, None);
        // Ticks are not a second apart to the microsecond; to wait for one more would be a second lost each time.
        let is_due = |last: Option<Instant>, every| {
            last.is_none_or(|last| last.elapsed() + TICK / 2 >= every)
        };
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    if is_due(probed, self.parts.settings.probe_every) {
                        probed = Some(Instant::now());
                        self.probe();
                    }
                    if is_due(asked_mx, ASK_MX) {
                        asked_mx = Some(Instant::now());
                        self.ask_mx();
                    }
                    self.look().await;
                    self.ticks = self.ticks.wrapping_add(1);
                    if self.ticks.is_multiple_of(COUNT) {
                        self.count().await;
                    }
                }
                Some(order) = inbox.recv() => self.obey(order).await,
                Some(found) = found.recv() => self.note(found),
            }
        }
    }

    /// Each in a task of its own: a prober may take its time.
    fn probe(&mut self) {
        let Some(vantage) = &self.parts.surroundings.vantage else { return };
        for kept in &mut self.of {
            let family = kept.family;
            if kept.is_probed || !self.parts.gate.listens_on(family) {
                continue;
            }
            kept.is_probed = true;
            let (probing, finders) = (vantage(family), self.finders.clone());
            tokio::spawn(async move {
                let result = probing.await;
                let _stopping = finders.send(Found::Probe(family, result)).await;
            });
        }
    }

    fn ask_mx(&self) {
        let Some(mx_has) = &self.parts.surroundings.mx_has else { return };
        for family in Family::ALL {
            let (asking, finders) = (mx_has(family), self.finders.clone());
            tokio::spawn(async move {
                let result = asking.await;
                let _stopping = finders.send(Found::Mx(family, result)).await;
            });
        }
    }

    fn note(&mut self, found: Found) {
        let now = self.now();
        match found {
            Found::Probe(family, result) => {
                let kept = &mut self.of[family as usize];
                kept.is_probed = false;
                kept.probes = add(kept.probes.take(), result, now);
            }
            Found::Mx(family, has) => self.of[family as usize].mx_has = has,
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Tell { turn, answer } => {
                let _asker_is_gone = answer.send(self.turn(turn).await);
            }
            Order::Show(answer) => {
                let _asker_is_gone = answer.send(self.told());
            }
            Order::ReceivePath { family, answer } => {
                let kept = &self.of[family as usize];
                let said = receive_path(&self.signs(family), &kept.settings, self.now());
                let _asker_is_gone = answer.send(said);
            }
            Order::Renew(entrance) => {
                if let Err(error) = self.parts.enforcer.0.update(entrance).await {
                    self.fall_back(&error);
                }
            }
        }
    }

    async fn turn(&mut self, turn: Option<DoorChange>) -> Result<Vec<DoorReport>, String> {
        if let Some(DoorChange { family, mode }) = turn {
            let Some(door) = &mut self.of[family as usize].door else {
                return Err(format!(
                    "nothing guards {family}: add [door.{family}] to its configuration"
                ));
            };
            door.set_mode(mode);
            let by_hand = format!("door {family}: an operator says {mode}");
            self.parts.log.notice(LogLevel::Info, &by_hand);
            self.look().await;
        }
        self.count().await;
        Ok(self.told())
    }

    fn told(&self) -> Vec<DoorReport> {
        let now = self.now();
        let told = |kept: &Kept| DoorReport {
            family: kept.family,
            status: kept.door.as_ref().map(|door| door.status(now)),
            refuses: self.parts.enforcer.0.method().as_str().to_owned(),
            refused: kept.refused + self.parts.metrics.smtp_door_refusals(kept.family),
        };
        // As people name them: the one that is guarded first.
        self.of.iter().rev().map(told).collect()
    }

    /// What is known of a family, but for the state of the other.
    fn signs(&self, family: Family) -> Signals {
        let heard = self.parts.heard.of(family);
        let watched = self.parts.surroundings.watched.as_ref().and_then(|watched| watched(family));
        let kept = &self.of[family as usize];
        Signals {
            accepted: heard.accepted.max(watched),
            probes: kept.probes.clone(),
            has_vantage: self.parts.surroundings.vantage.is_some(),
            upstream_down: self.parts.gate.is_without_upstream(family),
            stalled: heard.stalled,
            alternatives: Alternatives::default(),
        }
    }

    async fn look(&mut self) {
        let now = self.now();
        let mut signs = Family::ALL.map(|family| self.signs(family));
        let accepted = Family::ALL.map(|family| signs[family as usize].accepted);
        for family in Family::ALL {
            let alternatives = &mut signs[family as usize].alternatives;
            alternatives.mx_in_other_family = self.of[family.other() as usize].mx_has;
            alternatives.other_accepted = accepted[family.other() as usize];
        }
        // By the signs, not by who looks first: else the first would close on both being bad.
        let bad = Family::ALL
            .map(|family| signs[family as usize].are_bad(&self.of[family as usize].settings, now));
        for family in Family::ALL {
            let other = family.other();
            let is_shut = |door: &Door| !door.admits();
            signs[family as usize].alternatives.other = if !self.parts.gate.listens_on(other) {
                OtherFamily::NotServed
            } else if bad[other as usize]
                || self.of[other as usize].door.as_ref().is_some_and(is_shut)
            {
                OtherFamily::Down
            } else {
                OtherFamily::Up
            };
            let Some(door) = &mut self.of[family as usize].door else {
                self.parts.metrics.clear_door(family);
                continue;
            };
            let change = door.update(&signs[family as usize], now);
            self.parts.metrics.set_door(&door.status(now));
            if let Some(change) = change {
                self.changed(family, &change).await;
            }
        }
        self.states.send_replace(states(&self.of, now));
    }

    async fn changed(&mut self, family: Family, change: &DoorTransition) {
        let DoorTransition { from, to, reason, detail, .. } = change;
        let level = match to {
            DoorState::Closing | DoorState::Closed => LogLevel::Warn,
            DoorState::Opening | DoorState::Open => LogLevel::Info,
        };
        let words = format!("door {family}: {to}, was {from}: {detail} ({reason})");
        self.parts.log.notice(level, &words);
        self.parts.metrics.on_door_change(family, change);
        if from.admits() != to.admits() {
            self.parts.heard.forget_stalled(family);
            self.enforce(family, to.admits()).await;
        }
    }

    async fn enforce(&mut self, family: Family, admits: bool) {
        let set = self.parts.enforcer.0.set(family, admits).await;
        let kernel_does = set.is_ok() && self.parts.enforcer.0.method() == RefuseMethod::Syn;
        if let Err(error) = set {
            self.fall_back(&error);
        }
        self.parts.gate.set_door(family, admits || kernel_does);
    }

    /// The kernel did not do it: the relay does.
    fn fall_back(&self, error: &DoorError) {
        let words = format!("the kernel did not turn a door, 421 does instead: {error}");
        self.parts.log.notice(LogLevel::Error, &words);
        for kept in &self.of {
            let admits = kept.door.as_ref().is_none_or(Door::admits);
            self.parts.gate.set_door(kept.family, admits);
        }
    }

    async fn count(&mut self) {
        for kept in &mut self.of {
            let refused = self.parts.enforcer.0.refused_syns(kept.family).await;
            let more = refused.saturating_sub(kept.refused);
            self.parts.metrics.add_syn_refusals(kept.family, more);
            kept.refused = kept.refused.max(refused);
        }
    }

    fn now(&self) -> Timestamp {
        self.parts.gate.clock().now()
    }
}
