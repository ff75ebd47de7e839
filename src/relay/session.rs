//! One session from accept to record: PROXY header, admission, upstream connection, then the pump.

use std::borrow::Cow;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use super::admission::SessionPermit;
use super::endpoint::RelayEndpoint;
use super::identity::{self, MAX_HEADER, ProxyHeader, ProxySender};
use super::lookups::PendingLookups;
use super::pump::{Pump, PumpParts};
use super::settings::{AfterTlsFailures, ListenerSettings, UpstreamIdentity, UpstreamSettings};
use super::state::{ActiveConfig, ActiveListener, Lifecycle, RelayState};
use super::stream::RelayStream;
use super::unix_socket::{self, ADDRESS_OF_SOCKETS};
use super::upstream::{UpstreamChoice, connect};
use super::upstream_tls::UpstreamTlsPlan;
use crate::addr::{ClientAddr, OriginalDst, Side, UpstreamAddr};
use crate::engine::{ClientTlsFacts, Outcome, Profile, Proxy, Refusal, TlsMode, UpstreamFailure};

/// A trusted peer sends its PROXY header at once.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the input of a client that still sends is discarded, so that it can read the last reply before the reset.
const LINGER: Duration = Duration::from_secs(2);

/// Runs the session of a connection that `listener` accepted to its end, when `_in_progress` is dropped.
pub(super) async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    listener: Arc<ActiveListener>,
    state: Arc<RelayState>,
    _in_progress: Sender<()>,
) {
    let mut permit = state.admission.acquire();
    let active = state.active.load_full();
    // Our address; with a transparent listener, the one that the client connected to.
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let peer = ClientAddr::new(peer);
    let mut arrival = Arrival {
        client: peer,
        destination: OriginalDst::new(local),
        early_data: Vec::new(),
        is_valid: true,
        is_local: false,
    };
    let mut stream = stream;
    if listener.settings.proxy_trusted.contains(peer.ip()) {
        Box::pin(arrival.read_proxy_header(&mut stream)).await;
    }
    // Boxed, as the header's reader and `linger`: each has a buffer or a pump of its own, for which an idle session would keep
    // room.
    let beginning = begin(stream, arrival, &mut permit, (&active, &listener), &state);
    let mut pump = Box::pin(beginning).await;
    let mut lifecycle = state.lifecycle.subscribe();
    let mut drained = *lifecycle.borrow_and_update() != Lifecycle::Running;
    if drained {
        pump.with_engine(|engine, _, out| engine.drain(out)).await;
    }
    loop {
        tokio::select! {
            biased;
            () = poll_fn(|cx| pump.poll(cx)) => break,
            Ok(()) = lifecycle.changed() => {
                let now = *lifecycle.borrow_and_update();
                if now == Lifecycle::Aborting {
                    pump.with_engine(|engine, _, out| engine.abort(Outcome::Shutdown, out)).await;
                } else if !drained {
                    drained = true;
                    pump.with_engine(|engine, _, out| engine.drain(out)).await;
                }
            }
        }
    }
    pump.finish();
    if pump.needs_lingering_close() {
        Box::pin(linger(&pump.client().stream)).await;
    }
}

/// The client's identity, and the bytes that it sent already.
struct Arrival {
    client: ClientAddr,
    destination: OriginalDst,
    /// Bytes behind the PROXY header.
    early_data: Vec<u8>,
    /// False without a valid PROXY header where one is mandatory, and with one that does not give the client's address.
    is_valid: bool,
    /// A trusted peer connects for itself (LOCAL), so upstream receives no client's address.
    is_local: bool,
}

impl Arrival {
    async fn read_proxy_header(&mut self, stream: &mut TcpStream) {
        let reading = async {
            loop {
                match ProxyHeader::parse(&self.early_data) {
                    ProxyHeader::Incomplete => {}
                    ProxyHeader::Invalid => return None,
                    ProxyHeader::Complete { len, sender } => return Some((len, sender)),
                }
                let mut chunk = [0; MAX_HEADER];
                match stream.read(&mut chunk).await {
                    Ok(count @ 1..) => self.early_data.extend_from_slice(chunk.get(..count)?),
                    _ => return None,
                }
            }
        };
        let Ok(Some((len, sender))) = timeout(HEADER_TIMEOUT, reading).await else {
            self.is_valid = false;
            return;
        };
        self.early_data.drain(..len);
        match sender {
            ProxySender::Client { source, destination } => {
                self.client = ClientAddr::new(source);
                self.destination = OriginalDst::new(destination);
            }
            ProxySender::Peer => self.is_local = true,
            ProxySender::Unknown => self.is_valid = false,
        }
    }
}

/// The pump of a new session: with an upstream if the session gets one, else with its last reply.
async fn begin(
    stream: TcpStream,
    mut arrival: Arrival,
    permit: &mut SessionPermit,
    (active, listener): (&ActiveConfig, &ActiveListener),
    state: &Arc<RelayState>,
) -> Pump {
    let Arrival { client, destination, is_valid, is_local, .. } = arrival;
    let early_data = std::mem::take(&mut arrival.early_data);
    let settings = &active.settings;
    let limits = &settings.limits;
    let stressed = state.admission.is_stressed(limits.sessions, settings.timeouts.stress_above);
    let timeouts = if stressed { settings.timeouts.stress } else { settings.timeouts.normal };
    let mut profile = Arc::clone(&listener.profile);
    if is_local && profile.xclient {
        profile = Arc::new(Profile { xclient: false, ..(*profile).clone() });
    }
    let refusal = if !is_valid {
        Some(Refusal::ProxyHeader)
    } else if !state.door_admits(client) {
        Some(Refusal::Door)
    } else {
        permit.admit(client, limits, &active.rate).err()
    };
    let now = state.clock.now();
    let mut tap = state.taps.begin(&listener.settings.name, client, destination, now);
    let has_tls_first = profile.tls == TlsMode::Implicit;
    if !has_tls_first {
        tap.on_bytes(Side::Client, &early_data, now);
    }
    let hides = settings.after_tls_failures == AfterTlsFailures::Hide
        && matches!(profile.tls, TlsMode::Terminate { .. });
    let failed_handshakes = hides.then(|| Arc::clone(&state.failed_handshakes));
    let is_hidden =
        failed_handshakes.as_ref().is_some_and(|failed| failed.hide_from(client, Instant::now()));
    let mut pump = Pump::new(PumpParts {
        engine: Proxy::new(profile, timeouts, client, destination, now),
        address: client,
        observer: Arc::clone(&state.observer),
        tap,
        lookups: PendingLookups::new(Arc::clone(&state.lookups), client.ip()),
        clock: state.clock,
        line_length: limits.session.line_length,
        tls: state.tls.load_full(),
        failed_handshakes,
        client: RelayEndpoint::new(RelayStream::Tcp(stream), early_data, Vec::new()),
    });
    if has_tls_first && !secure(&mut pump, state).await {
        return pump;
    }
    if !pump.with_engine(|engine, _, out| engine.open(refusal, out)).await {
        return pump;
    }
    if is_hidden {
        pump.with_engine(|engine, _, out| engine.hide_starttls(out)).await;
    }
    join_upstream(&mut pump, &arrival, (active, listener), state).await;
    pump
}

/// Connects the session to an upstream; without one the client has its last reply afterwards.
async fn join_upstream(
    pump: &mut Pump,
    arrival: &Arrival,
    (active, listener): (&ActiveConfig, &ActiveListener),
    state: &Arc<RelayState>,
) {
    let Arrival { client, destination, is_local, .. } = *arrival;
    if is_direct(&listener.settings, destination) {
        let detail =
            format!("{destination} is the gateway's own listener, for intercepted mail only");
        let failure = UpstreamFailure { detail, is_local: false };
        return pump.with_engine(|engine, _, out| engine.on_unavailable(failure, out)).await;
    }
    let observe = |event| state.observer.event(client.family(), event);
    let upstream = settings_for(&listener.settings.upstream, is_local);
    let targets = &listener.targets;
    let choice = UpstreamChoice { settings: &upstream, targets, mark: active.settings.mark };
    let connecting = async {
        match targets.socket() {
            Some(socket) => {
                let (family, health) = (client.family(), &state.health);
                let connected = unix_socket::connect(socket, &upstream, health, family, observe);
                connected.await.map(|stream| (RelayStream::Unix(stream), None))
            }
            None => {
                let connected = connect(choice, &state.health, client, destination, observe);
                connected.await.map(|(stream, to)| (RelayStream::Tcp(stream), Some(to)))
            }
        }
    };
    // Boxed: the race is the largest part of a session's future, and over before the session is.
    let mut connecting = Box::pin(connecting);
    let connected = tokio::select! {
        biased;
        connected = &mut connecting => connected,
        () = poll_fn(|cx| pump.poll_without_upstream(cx)) => return,
    };
    drop(connecting);
    let (stream, address) = match connected {
        Ok(connected) => connected,
        Err(failure) => {
            return pump.with_engine(|engine, _, out| engine.on_unavailable(failure, out)).await;
        }
    };
    let to = address.map_or(ADDRESS_OF_SOCKETS, UpstreamAddr::socket);
    let own = match &stream {
        RelayStream::Tcp(tcp) => tcp.local_addr().unwrap_or_else(|_| client.socket()),
        RelayStream::Unix(_) => ADDRESS_OF_SOCKETS,
    };
    let name = match targets.socket() {
        Some(socket) => Some(socket.to_string().into()),
        None => targets.name_of(to).cloned(),
    };
    let header = proxy_header(upstream.identity, arrival, (own, to), pump.implicit_tls());
    let shared = (&**state.upstream_tls.load(), &state.failed_tls);
    let tls = UpstreamTlsPlan::new(listener.settings.tls, &upstream.tls, to, shared);
    pump.with_engine(|engine, at, out| {
        engine.on_connected(address, at, out);
        engine.name_upstream(name);
        engine.use_upstream_tls(tls.level);
    })
    .await;
    pump.set_upstream(RelayEndpoint::new(stream, Vec::new(), header), Some(tls));
    pump.feed_early_data().await;
}

/// What upstream receives first, over a connection from `own` to `upstream`; empty without the PROXY protocol.
fn proxy_header(
    identity: UpstreamIdentity,
    arrival: &Arrival,
    (own, upstream): (SocketAddr, SocketAddr),
    tls: Option<ClientTlsFacts<'_>>,
) -> Vec<u8> {
    let version = match identity {
        UpstreamIdentity::ProxyV1 => 1,
        UpstreamIdentity::ProxyV2 => 2,
        UpstreamIdentity::None | UpstreamIdentity::Transparent | UpstreamIdentity::Xclient => {
            return Vec::new();
        }
    };
    match arrival.is_local {
        true => identity::encode_own(version, own, upstream),
        false => identity::encode(version, arrival.client, arrival.destination, tls),
    }
}

/// TLS that comes before anything else. Returns whether it is established; a gateway that stops does not wait for it.
async fn secure(pump: &mut Pump, state: &RelayState) -> bool {
    pump.with_engine(|engine, _, out| engine.begin_implicit_tls(out)).await;
    let mut lifecycle = state.lifecycle.subscribe();
    let stops = tokio::select! {
        biased;
        () = poll_fn(|cx| pump.poll_handshake(cx)) => false,
        stops = lifecycle.wait_for(|now| *now != Lifecycle::Running) => stops.is_ok(),
    };
    if stops {
        pump.with_engine(|engine, _, out| engine.abort(Outcome::Shutdown, out)).await;
    }
    pump.is_secured()
}

/// A peer that connects for itself has no client whose address the gateway could connect from.
fn settings_for(upstream: &UpstreamSettings, is_local: bool) -> Cow<'_, UpstreamSettings> {
    if is_local && upstream.identity == UpstreamIdentity::Transparent {
        let identity = UpstreamIdentity::None;
        return Cow::Owned(UpstreamSettings { identity, ..upstream.clone() });
    }
    Cow::Borrowed(upstream)
}

/// Whether a client connected to a transparent listener itself: its port is never intercepted. Without `[upstream] addresses`
/// the gateway would connect to itself.
fn is_direct(listener: &ListenerSettings, destination: OriginalDst) -> bool {
    listener.transparent && listener.addresses.iter().any(|own| own.port() == destination.port())
}

/// Discards input for a while: a close with unread bytes in the socket sends a reset, which may overtake the last reply.
async fn linger(stream: &RelayStream) {
    let _already_closed = SockRef::from(stream).shutdown(std::net::Shutdown::Write);
    let mut discard = [0; 4096];
    let until_end = async {
        while stream.readable().await.is_ok() {
            match stream.try_read(&mut discard) {
                Ok(0) => return,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    };
    let _elapsed = timeout(LINGER, until_end).await;
}
