//! The live relay: listeners, client identity, upstream connections, the pump, limits.
//!
//! Layer 4. Open [`Listeners`], then [`Relay::start`] starts the workers. A session is `session::run`: the engine decides,
//! the pump moves the bytes. An [`Observe`]r receives the events; metrics and reports are built on it, not here.

mod admission;
mod capture_tap;
mod client_source;
mod clock;
mod endpoint;
mod error;
mod failed_handshakes;
mod handle;
mod health;
mod host_names;
mod identity;
mod listen;
mod lookups;
mod pump;
mod session;
mod settings;
mod splice;
mod state;
mod stream;
mod target;
mod tls;
mod unix_socket;
mod upstream;
mod upstream_check;
mod upstream_targets;
mod upstream_tls;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, sleep};

pub use self::capture_tap::{Tap, Taps, TooManyTaps};
pub use self::clock::RelayClock;
pub use self::error::RelayError;
pub use self::handle::RelayHandle;
pub use self::health::UpstreamHealth;
pub use self::host_names::{HostReport, HostState, describe_lookup_failure, is_own_listener};
pub use self::listen::{InheritedSockets, Listeners};
pub use self::lookups::{HostAnswer, HostFuture, LookupFuture, LookupProvider};
pub use self::settings::{
    AfterTlsFailures, ListenerSettings, ListenerTls, RelayLimits, RelaySettings, TimeoutSets,
    UpstreamCheck, UpstreamIdentity, UpstreamSettings, UpstreamTlsSettings,
};
pub use self::state::TlsConfigs;
pub use self::target::{UpstreamHost, UpstreamSocket, UpstreamTarget};
pub use self::tls::{CertificateInspector, ClientTls, TlsLeg};
pub use self::unix_socket::describe_socket_failure;
pub use self::upstream_tls::UpstreamTlsConfigs;

use self::listen::{BoundAddress, WantedAddress};
use self::state::{Lifecycle, ListenerCell, RelayState};
use self::worker::Worker;
use crate::engine::Observe;

/// How often [`Relay::drain`] checks whether the last session has ended.
const DRAIN_POLL: Duration = Duration::from_millis(20);
/// How often idle clients are removed from the rate limiter.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);
/// After the drain deadline: time for the last 421 replies to be sent.
const ABORT_TIMEOUT: Duration = Duration::from_secs(3);

/// A running relay.
pub struct Relay {
    state: Arc<RelayState>,
    workers: Vec<Worker>,
    listening: Vec<ListeningAddress>,
    inherited: InheritedSockets,
}

struct ListeningAddress {
    configured: WantedAddress,
    /// Differs from it for port 0.
    bound: SocketAddr,
    listener: ListenerCell,
}

impl Relay {
    /// Serves `listeners`, which were opened for `settings`, with `tls` where the gateway ends TLS. `lookups` answers the
    /// lookups that policy rules need.
    ///
    /// # Errors
    /// A worker cannot be started.
    pub fn start(
        settings: RelaySettings,
        listeners: Listeners,
        tls: TlsConfigs,
        observer: Arc<dyn Observe>,
        lookups: Arc<dyn LookupProvider>,
    ) -> Result<Self, RelayError> {
        let threads = settings.threads.max(1);
        let Listeners { bound, inherited, .. } = listeners;
        let state = Arc::new(RelayState::new(settings, tls, observer, lookups));
        let workers = (0..threads)
            .map(|number| Worker::start(number, Arc::clone(&state)).map_err(RelayError::Thread))
            .collect::<Result<_, _>>()?;
        let mut relay = Self { state, workers, listening: Vec::new(), inherited };
        relay.listen(bound);
        Ok(relay)
    }

    /// The bound listening addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.listening.iter().map(|address| address.bound)
    }

    /// The same, each with the name of its listener.
    pub fn listening(&self) -> impl Iterator<Item = (Arc<str>, SocketAddr)> {
        self.listening.iter().map(|address| {
            let name = Arc::clone(&address.listener.load().settings.name);
            (name, address.bound)
        })
    }

    /// Puts `settings` in force for sessions that begin from now on. The number of threads does not change. The sockets of an
    /// address that stays remain open, also if another listener gets it.
    ///
    /// # Errors
    /// A new address cannot be bound; the old settings stay in force.
    pub fn reload(&mut self, settings: RelaySettings) -> Result<(), RelayError> {
        let wanted = WantedAddress::all(&settings);
        let is_new =
            |new: &&WantedAddress| self.listening.iter().all(|old| old.configured != **new);
        let new: Vec<WantedAddress> = wanted.iter().filter(is_new).copied().collect();
        let own: Vec<SocketAddr> = self.addresses().collect();
        // One socket for each running worker, whatever the new file sets.
        let (bound, _) = self.inherited.open(&new, self.workers.len(), settings.mark, &own)?;
        let active = self.state.activate(settings);
        let (kept, removed): (Vec<_>, Vec<_>) =
            self.listening.drain(..).partition(|old| wanted.contains(&old.configured));
        for address in &kept {
            if let Some(listener) = active.listener(address.configured.address) {
                address.listener.store(Arc::clone(listener));
            }
        }
        self.listening = kept;
        self.state.active.store(Arc::new(active));
        for address in removed {
            self.workers.iter().for_each(|worker| worker.stop_listening(address.configured));
        }
        self.listen(bound);
        Ok(())
    }

    fn listen(&mut self, addresses: Vec<BoundAddress>) {
        let active = self.state.active.load_full();
        for BoundAddress { configured, bound, sockets } in addresses {
            let Some(listener) = active.listener(configured.address) else { continue };
            let listener: ListenerCell = Arc::new(ArcSwap::new(Arc::clone(listener)));
            for (worker, socket) in self.workers.iter().zip(sockets) {
                worker.listen(configured, socket, Arc::clone(&listener));
            }
            self.listening.push(ListeningAddress { configured, bound, listener });
        }
    }

    /// The inherited sockets, used or not.
    pub const fn inherited(&self) -> &InheritedSockets {
        &self.inherited
    }

    /// Heartbeat count of each worker; a worker whose count stands still serves no session.
    pub fn heartbeats(&self) -> impl Iterator<Item = u64> {
        self.workers.iter().map(Worker::heartbeats)
    }

    /// Whether every upstream of every listener failed lately, or is a host name without an address; always false if the original
    /// destination is one, and without listeners.
    pub fn is_without_upstream(&self) -> bool {
        let active = self.state.active.load();
        let mut listeners = active.listeners.iter();
        !active.listeners.is_empty()
            && listeners.all(|listener| self.state.is_down(&listener.targets, None))
    }

    pub fn handle(&self) -> RelayHandle {
        RelayHandle(Arc::clone(&self.state))
    }

    /// The taps on sessions, for recorders.
    pub fn taps(&self) -> &Arc<Taps> {
        &self.state.taps
    }

    /// Number of open sessions.
    pub fn sessions(&self) -> usize {
        self.state.admission.sessions()
    }

    /// Removes clients whose state is of no use any more from the rate limiter and the failed handshakes, without end; spawn
    /// it.
    pub fn forget_idle_clients(&self) -> impl Future<Output = ()> + use<> {
        let state = Arc::clone(&self.state);
        async move {
            loop {
                sleep(CLEANUP_INTERVAL).await;
                state.active.load().rate.forget_idle();
                state.failed_handshakes.forget_old(std::time::Instant::now());
            }
        }
    }

    /// Checks the configured upstreams, without end; spawn it.
    pub fn check_upstreams(&self) -> impl Future<Output = ()> + use<> {
        upstream_check::run(Arc::clone(&self.state))
    }

    /// Stops listening, lets transactions in progress end within the configured time, then aborts the remaining sessions.
    /// Returns the number of aborted sessions.
    pub async fn drain(self) -> usize {
        let limit = self.state.active.load().settings.drain;
        self.workers.iter().for_each(Worker::finish);
        self.state.lifecycle.send_replace(Lifecycle::Draining);
        self.wait_until_finished(limit).await;
        let aborted = self.sessions();
        self.state.lifecycle.send_replace(Lifecycle::Aborting);
        self.wait_until_finished(ABORT_TIMEOUT).await;
        aborted
    }

    async fn wait_until_finished(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while !self.workers.iter().all(Worker::is_finished) && Instant::now() < deadline {
            sleep(DRAIN_POLL).await;
        }
    }
}
