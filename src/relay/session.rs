//! One session from accept to record: who is it, may it come in, which upstream takes it, then the pump.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

use super::admission::SessionPermit;
use super::identity::{self, Header, MAX_HEADER};
use super::lookups::PendingLookups;
use super::pump::{Endpoint, Pump};
use super::upstream::connect;
use super::{ActiveConfig, RelaySettings, Shared, Stage, UpstreamIdentity};
use crate::addr::{ClientAddr, OriginalDst, Side};
use crate::engine::{Outcome, Proxy, Refusal};

/// How long a trusted peer may take to send its PROXY header; it sends it at once.
const HEADER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client that is still sending may go on, unheard, so that it reads our last words before the reset.
const LINGER: Duration = Duration::from_secs(2);

/// Runs the session of an accepted connection to its end, when `_in_progress` is dropped.
pub(super) async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    _in_progress: Sender<()>,
) {
    let mut place = shared.admission.enter();
    let active = shared.active.load_full();
    // The address the client meant: ours, or with a transparent listener the one that was intercepted.
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let peer = ClientAddr::new(peer);
    let mut arrival = Arrival {
        client: peer,
        destination: OriginalDst::new(local),
        early: Vec::new(),
        valid: true,
    };
    let mut stream = stream;
    if active.settings.proxy_trusted.contains(peer.ip()) {
        arrival.read_header(&mut stream).await;
    }
    let mut pump = begin(stream, arrival.client, &mut place, &active, &shared, &arrival).await;
    let mut stages = shared.stage.subscribe();
    let mut drained = *stages.borrow_and_update() != Stage::Running;
    if drained {
        pump.tell(|engine, _, out| engine.drain(out)).await;
    }
    loop {
        tokio::select! {
            biased;
            () = poll_fn(|cx| pump.poll(cx)) => break,
            Ok(()) = stages.changed() => {
                let stage = *stages.borrow_and_update();
                if stage == Stage::Aborting {
                    pump.tell(|engine, _, out| engine.abort(Outcome::Shutdown, out)).await;
                } else if !drained {
                    drained = true;
                    pump.tell(|engine, _, out| engine.drain(out)).await;
                }
            }
        }
    }
    pump.record();
    if pump.wants_lingering() {
        linger(pump.client().stream()).await;
    }
}

/// Who came, for whom, and what they said already.
struct Arrival {
    client: ClientAddr,
    destination: OriginalDst,
    early: Vec<u8>,
    /// False without a valid PROXY header where one is mandatory.
    valid: bool,
}

impl Arrival {
    async fn read_header(&mut self, stream: &mut TcpStream) {
        let reading = async {
            loop {
                match Header::parse(&self.early) {
                    Header::Incomplete => {}
                    Header::Invalid => return None,
                    Header::Complete { len, addresses } => return Some((len, addresses)),
                }
                let mut chunk = [0; MAX_HEADER];
                match stream.read(&mut chunk).await {
                    Ok(count @ 1..) => self.early.extend_from_slice(chunk.get(..count)?),
                    _ => return None,
                }
            }
        };
        let Ok(Some((len, addresses))) = timeout(HEADER_PATIENCE, reading).await else {
            self.valid = false;
            return;
        };
        self.early.drain(..len);
        if let Some((source, destination)) = addresses {
            self.client = ClientAddr::new(source);
            self.destination = OriginalDst::new(destination);
        }
    }
}

/// The pump, with an upstream if the session gets one, and with our last words if it does not.
async fn begin(
    stream: TcpStream,
    client: ClientAddr,
    place: &mut SessionPermit,
    active: &ActiveConfig,
    shared: &Arc<Shared>,
    arrival: &Arrival,
) -> Pump {
    let settings = &active.settings;
    let limits = &settings.limits;
    let stressed = shared.admission.is_stressed(limits.sessions, settings.timeouts.stress_above);
    let timeouts = if stressed { settings.timeouts.stress } else { settings.timeouts.normal };
    let profile = Arc::clone(&active.profile);
    let destination = arrival.destination;
    let now = shared.clock.now();
    let engine = Proxy::new(profile, timeouts, client, destination, now);
    let mut tap = shared.taps.begin(client, destination, now);
    tap.said(Side::Client, &arrival.early, now);
    let observer = Arc::clone(&shared.observer);
    let leg = Endpoint::new(stream, arrival.early.clone(), Vec::new());
    let questions = PendingLookups::new(Arc::clone(&shared.ask));
    let family = client.family();
    let mut pump = Pump::new(engine, family, observer, tap, questions, shared.clock, leg);

    let refusal = if !arrival.valid {
        Some(Refusal::ProxyHeader)
    } else if !shared.admits(client) {
        Some(Refusal::Door)
    } else {
        place.admit(client, limits, &active.rate).err()
    };
    if !pump.tell(|engine, _, out| engine.open(refusal, out)).await {
        return pump;
    }
    if would_come_back(settings, destination) {
        pump.tell(|engine, _, out| engine.on_unavailable(out)).await;
        return pump;
    }
    let observe = |event| shared.observer.event(family, event);
    let connecting = connect(&settings.upstream, &shared.health, client, destination, observe);
    // Boxed: the race is the largest part of a session, and over before the session is.
    let mut connecting = Box::pin(connecting);
    let connected = tokio::select! {
        biased;
        connected = &mut connecting => connected,
        () = poll_fn(|cx| pump.poll_without_upstream(cx)) => return pump,
    };
    drop(connecting);
    match connected {
        Ok((stream, address)) => {
            let header = match settings.upstream.identity {
                UpstreamIdentity::ProxyV1 => identity::header(1, client, destination),
                UpstreamIdentity::ProxyV2 => identity::header(2, client, destination),
                UpstreamIdentity::None
                | UpstreamIdentity::Transparent
                | UpstreamIdentity::Xclient => Vec::new(),
            };
            pump.tell(|engine, at, out| engine.on_connected(address, at, out)).await;
            pump.connect(Endpoint::new(stream, Vec::new(), header));
            pump.hear_early().await;
        }
        Err(_) => pump.tell(|engine, _, out| engine.on_unavailable(out)).await,
    }
    pump
}

/// Whether the upstream is the original destination and that is our own listener: the client connected to it directly, and
/// so would we.
fn would_come_back(settings: &RelaySettings, destination: OriginalDst) -> bool {
    let listen = &settings.listen.addresses;
    settings.upstream.addresses.is_empty() && listen.iter().any(|a| a.port() == destination.port())
}

/// Closing with unread octets in the socket resets the connection, and a reset may overtake the reply that says why.
async fn linger(stream: &TcpStream) {
    let _gone_already = SockRef::from(stream).shutdown(std::net::Shutdown::Write);
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
    let _too_long = timeout(LINGER, until_end).await;
}
