//! The live relay: listeners, client identity, upstream connections, the pump, limits.
//!
//! Layer 4. [`Listeners`] are opened, then [`Relay::start`] starts the workers; a session is `session::run`, which asks the
//! engine everything. What happens is told to an [`Observe`]r; metrics and reports are that, not known here.

mod admission;
mod capture_tap;
mod clock;
mod identity;
mod listen;
mod lookups;
mod pump;
mod session;
mod settings;
mod splice;
mod upstream;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

pub use self::capture_tap::{Tap, Taps, TooManyTaps};
pub use self::clock::RelayClock;
pub use self::listen::{InheritedSockets, Listeners};
pub use self::lookups::{LookupFuture, LookupProvider};
pub use self::settings::{
    ListenSettings, RelayLimits, RelaySettings, TimeoutSets, UpstreamIdentity, UpstreamSettings,
};
pub use self::upstream::UpstreamHealth;

use self::admission::{Admission, RateLimit};
use self::listen::Opened;
use self::upstream::Health;
use self::worker::Worker;
use crate::addr::{ClientAddr, Family, Networks};
use crate::engine::{Observe, Profile};

/// How often the end of the last session is looked for, and idle clients are forgotten.
const LOOK: Duration = Duration::from_millis(20);
const FORGET: Duration = Duration::from_secs(60);
/// After the drain deadline: for the last 421s to leave.
const FAREWELL: Duration = Duration::from_secs(3);

/// What sessions are told about the gateway's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Transactions in progress may end, then sessions do.
    Draining,
    /// All sessions end now.
    Aborting,
}

/// The configuration in force; a session keeps the one that it began with.
struct ActiveConfig {
    settings: RelaySettings,
    profile: Arc<Profile>,
    rate: RateLimit,
}

/// What all sessions share.
struct Shared {
    active: ArcSwap<ActiveConfig>,
    admission: Arc<Admission>,
    health: Health,
    observer: Arc<dyn Observe>,
    ask: Arc<dyn LookupProvider>,
    /// By family, whether new sessions are let in.
    doors: [AtomicBool; Family::ALL.len()],
    /// Who is let in whatever the doors say.
    exempt: ArcSwap<Networks>,
    taps: Arc<Taps>,
    clock: RelayClock,
    stage: watch::Sender<Stage>,
}

/// A running relay.
pub struct Relay {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// As configured, and as bound: they differ for port 0.
    listening: Vec<(SocketAddr, SocketAddr)>,
    transparent: bool,
    inherited: InheritedSockets,
}

/// Why the relay cannot run as configured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    #[error("cannot listen on {address}: {why}; {}", listen_hint(why))]
    Listen { address: SocketAddr, why: io::Error },
    #[error("cannot start a worker thread: {0}; raise the limit on processes (ulimit -u)")]
    Thread(io::Error),
}

fn listen_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it: `ss -ltnp` shows which",
        io::ErrorKind::AddrNotAvailable => {
            "it is no address of this host: `ip address` shows which are"
        }
        io::ErrorKind::PermissionDenied => {
            "run as root, or give CAP_NET_BIND_SERVICE (ports below 1024) and, for tproxy, CAP_NET_ADMIN"
        }
        _ => "see `[listen] addresses`",
    }
}

impl Relay {
    /// Serves `listeners`, which were opened for `settings`. What the policy rules want to know is asked of `ask`.
    ///
    /// # Errors
    /// A worker cannot be started.
    pub fn start(
        settings: RelaySettings,
        listeners: Listeners,
        observer: Arc<dyn Observe>,
        ask: Arc<dyn LookupProvider>,
    ) -> Result<Self, RelayError> {
        let threads = settings.listen.threads.max(1);
        let transparent = settings.listen.transparent;
        let Listeners { opened, inherited } = listeners;
        let shared = Arc::new(Shared {
            active: ArcSwap::from_pointee(ActiveConfig::new(settings)),
            admission: Arc::default(),
            health: Health::default(),
            observer,
            ask,
            doors: [const { AtomicBool::new(true) }; Family::ALL.len()],
            exempt: ArcSwap::default(),
            taps: Arc::default(),
            clock: RelayClock::start(),
            stage: watch::Sender::new(Stage::Running),
        });
        let workers = (0..threads)
            .map(|number| Worker::start(number, Arc::clone(&shared)).map_err(RelayError::Thread))
            .collect::<Result<_, _>>()?;
        let mut relay = Self { shared, workers, listening: Vec::new(), transparent, inherited };
        relay.listen(opened);
        Ok(relay)
    }

    /// Where the relay listens.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listening.iter().map(|&(_, bound)| bound)
    }

    /// Puts `settings` in force for sessions that begin from now on. The number of threads stays as it is.
    ///
    /// # Errors
    /// A new address cannot be listened on; everything stays as it was then.
    pub fn reload(&mut self, settings: RelaySettings) -> Result<(), RelayError> {
        let transparent = settings.listen.transparent;
        let wanted = &settings.listen.addresses;
        let keeps = |&(configured, _): &(SocketAddr, SocketAddr)| {
            transparent == self.transparent && wanted.contains(&configured)
        };
        let (kept, left): (Vec<_>, Vec<_>) = self.listening.iter().copied().partition(keeps);
        let is_new =
            |address: &&SocketAddr| kept.iter().all(|(configured, _)| configured != *address);
        let new: Vec<SocketAddr> = wanted.iter().filter(is_new).copied().collect();
        let mark = settings.upstream.mark;
        // As many as there are workers, whatever the new file says.
        let listen = ListenSettings { threads: self.workers.len(), ..settings.listen.clone() };
        let opened = self.inherited.open(&new, &listen, mark)?;
        self.shared.active.store(Arc::new(ActiveConfig::new(settings)));
        for (configured, _) in left {
            self.workers.iter().for_each(|worker| worker.leave(configured));
        }
        (self.listening, self.transparent) = (kept, transparent);
        self.listen(opened);
        Ok(())
    }

    fn listen(&mut self, opened: Vec<Opened>) {
        for Opened { configured, bound, listeners } in opened {
            for (worker, listener) in self.workers.iter().zip(listeners) {
                worker.listen(configured, listener);
            }
            self.listening.push((configured, bound));
        }
    }

    /// What was inherited over, listened on or not.
    pub const fn inherited(&self) -> &InheritedSockets {
        &self.inherited
    }

    /// How often each worker's heart has beaten; one that stands still serves nobody.
    pub fn heartbeats(&self) -> impl Iterator<Item = u64> {
        self.workers.iter().map(Worker::heartbeats)
    }

    /// Whether every upstream failed lately; never, where the original destination is the upstream.
    pub fn is_without_upstream(&self) -> bool {
        let active = self.shared.active.load();
        self.shared.health.all_down(&active.settings.upstream.addresses)
    }

    /// What the door needs of the relay, for as long as it runs.
    pub fn handle(&self) -> RelayHandle {
        RelayHandle(Arc::clone(&self.shared))
    }

    /// Who is told what passes in sessions.
    pub fn taps(&self) -> &Arc<Taps> {
        &self.shared.taps
    }

    pub fn sessions(&self) -> usize {
        self.shared.admission.sessions()
    }

    /// Housekeeping without end: run it beside the relay.
    pub fn forget_idle_clients(&self) -> impl Future<Output = ()> + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            loop {
                sleep(FORGET).await;
                shared.active.load().rate.forget_idle();
            }
        }
    }

    /// Stops listening, lets transactions in progress end within the configured time, then ends what is left. Returns the
    /// number of sessions that had to be cut off.
    pub async fn drain(self) -> usize {
        let patience = self.shared.active.load().settings.drain;
        self.workers.iter().for_each(Worker::finish);
        self.shared.stage.send_replace(Stage::Draining);
        self.finished_within(patience).await;
        let cut_off = self.sessions();
        self.shared.stage.send_replace(Stage::Aborting);
        self.finished_within(FAREWELL).await;
        cut_off
    }

    async fn finished_within(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while !self.workers.iter().all(Worker::is_finished) && Instant::now() < deadline {
            sleep(LOOK).await;
        }
    }
}

/// A handle to a relay, for whoever keeps the doors or tells how things are.
#[derive(Clone)]
pub struct RelayHandle(Arc<Shared>);

impl RelayHandle {
    /// Lets new sessions of `family` in, or refuses them with 421 in place of the greeting; those in progress go on.
    pub fn set_door(&self, family: Family, admits: bool) {
        self.0.doors[family as usize].store(admits, Ordering::Relaxed);
    }

    /// Lets these in always.
    pub fn set_exempt(&self, networks: Networks) {
        self.0.exempt.store(Arc::new(networks));
    }

    /// Whether every upstream that takes sessions of `family` failed lately; never, where the original destination is the
    /// upstream.
    pub fn is_without_upstream(&self, family: Family) -> bool {
        let active = self.0.active.load();
        let upstream = &active.settings.upstream;
        let keeps_family = upstream.identity == UpstreamIdentity::Transparent;
        let usable = |address: &&SocketAddr| !keeps_family || Family::of(address.ip()) == family;
        let addresses: Vec<_> = upstream.addresses.iter().filter(usable).copied().collect();
        self.0.health.all_down(&addresses)
    }

    /// How the configured upstreams answered, in their order; none, where the original destination is the upstream.
    pub fn upstream_health(&self) -> Vec<UpstreamHealth> {
        let active = self.0.active.load();
        self.0.health.told(&active.settings.upstream.addresses)
    }

    /// Where the relay listens, as configured.
    pub fn listens_on(&self, family: Family) -> bool {
        let active = self.0.active.load();
        active.settings.listen.addresses.iter().any(|own| Family::of(own.ip()) == family)
    }

    /// The relay's clock, which every record's times are of.
    pub fn clock(&self) -> RelayClock {
        self.0.clock
    }
}

impl Shared {
    fn admits(&self, client: ClientAddr) -> bool {
        self.doors[client.family() as usize].load(Ordering::Relaxed)
            || self.exempt.load().contains(client.ip())
    }
}

impl ActiveConfig {
    fn new(settings: RelaySettings) -> Self {
        let profile = Arc::new(settings.profile());
        let rate = RateLimit::new(settings.limits.new_sessions_per_client_per_minute);
        Self { settings, profile, rate }
    }
}
