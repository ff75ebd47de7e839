//! Active checks of the configured upstreams: connect, wait for the greeting, QUIT. Without mail nothing else would show
//! that an upstream is down, or that it accepts connections and never greets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::health::HealthKey;
use super::identity;
use super::settings::{UpstreamCheck, UpstreamIdentity, UpstreamSettings};
use super::state::RelayState;
use super::target::UpstreamSocket;
use super::unix_socket::{self, ADDRESS_OF_SOCKETS};
use super::upstream::{outcome_of, socket};
use crate::engine::AttemptOutcome;
use crate::smtp::{Reply, ReplyParse};

/// Time for the connection and the greeting. postscreen(8) delays its greeting by 6 s, Postfix looks the gateway's name up.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Time for the reply to QUIT. Without it Postfix would log a lost connection.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Two SYNs are not answered by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a reload is noticed that changes what is checked.
const TICK: Duration = Duration::from_secs(1);

/// When the next check of each upstream is due, as long as it has these addresses, or this Unix socket.
type DueChecks = Vec<(UpstreamSettings, Vec<HealthKey>, Instant)>;

/// Checks all upstreams, each at its configured interval, without end; spawn it. New addresses of a host name are checked at
/// once.
pub(super) async fn run(state: Arc<RelayState>) {
    let mut due: DueChecks = Vec::new();
    loop {
        let active = state.active.load_full();
        state.health.retain(&active.upstream_addresses());
        let now = Instant::now();
        let mut next = Vec::new();
        let mut start = Vec::new();
        let upstreams = active.upstreams().into_iter();
        for (upstream, targets) in upstreams.filter(|(one, _)| one.check == UpstreamCheck::Smtp) {
            let keys = targets.health_keys();
            let is_same = |(known, of, _): &&(_, _, _)| *known == *upstream && *of == keys;
            let at = match due.iter().find(is_same) {
                Some(&(_, _, at)) if at > now => at,
                _ => {
                    start.push((upstream, targets, keys.clone()));
                    now + upstream.check_interval
                }
            };
            next.push((upstream.clone(), keys, at));
        }
        due = next;
        let mark = active.settings.mark;
        join_all(start.iter().flat_map(|(upstream, _, keys)| {
            let state = &state;
            keys.iter().map(move |key| check(state, upstream, key, mark))
        }))
        .await;
        for (_, targets, _) in start {
            if targets.has_names() && state.health.all_down(&targets.addresses()) {
                targets.refresh();
            }
        }
        sleep(TICK).await;
    }
}

async fn check(
    state: &RelayState,
    upstream: &UpstreamSettings,
    key: &HealthKey,
    mark: Option<u32>,
) {
    let greeting = async {
        match key {
            HealthKey::Address(address) => greeting(upstream, *address, mark).await,
            HealthKey::Socket(socket) => greeting_of_socket(upstream, socket).await,
        }
    };
    let result = timeout(TIMEOUT, greeting).await.unwrap_or(Err(AttemptOutcome::Timeout));
    // A lack of resources here says nothing about the upstream.
    if result != Err(AttemptOutcome::Resources) {
        let valid = upstream.check_interval + TIMEOUT + QUIT_TIMEOUT;
        state.health.record_check(key.clone(), result, valid);
    }
}

/// See [`super::RelayHandle::is_reached`].
pub(super) async fn is_reached(upstream: SocketAddr, mark: Option<u32>) -> bool {
    let connecting = async { socket(upstream, mark)?.connect(upstream).await };
    match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => {
            use AttemptOutcome::{Refused, Timeout, Unreachable};
            !matches!(outcome_of(upstream, &error), Refused | Timeout | Unreachable)
        }
        Err(_elapsed) => false,
    }
}

/// # Errors
/// No connection, or no greeting with a 2xx code.
async fn greeting(
    upstream: &UpstreamSettings,
    address: SocketAddr,
    mark: Option<u32>,
) -> Result<(), AttemptOutcome> {
    let connecting = async { socket(address, mark)?.connect(address).await };
    let mut stream = connecting.await.map_err(|error| outcome_of(address, &error))?;
    let own = stream.local_addr().map_err(|_closed| AttemptOutcome::Greeting)?;
    is_greeted(read_greeting(&mut stream, upstream.identity, (own, address)).await)
}

async fn greeting_of_socket(
    upstream: &UpstreamSettings,
    socket: &UpstreamSocket,
) -> Result<(), AttemptOutcome> {
    let connecting = UnixStream::connect(&socket.path).await;
    let mut stream = connecting.map_err(|error| unix_socket::outcome_of(&error))?;
    let addresses = (ADDRESS_OF_SOCKETS, ADDRESS_OF_SOCKETS);
    is_greeted(read_greeting(&mut stream, upstream.identity, addresses).await)
}

fn is_greeted(code: io::Result<u16>) -> Result<(), AttemptOutcome> {
    if code.is_ok_and(|code| (200..300).contains(&code)) {
        Ok(())
    } else {
        Err(AttemptOutcome::Greeting)
    }
}

/// `own` and `address` are those of the connection.
async fn read_greeting(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    identity: UpstreamIdentity,
    (own, address): (SocketAddr, SocketAddr),
) -> io::Result<u16> {
    let header = match identity {
        UpstreamIdentity::ProxyV1 => identity::encode_own(1, own, address),
        UpstreamIdentity::ProxyV2 => identity::encode_own(2, own, address),
        UpstreamIdentity::None | UpstreamIdentity::Transparent | UpstreamIdentity::Xclient => {
            Vec::new()
        }
    };
    stream.write_all(&header).await?;
    let code = read_reply(stream).await?;
    stream.write_all(b"QUIT\r\n").await?;
    let _no_reply = timeout(QUIT_TIMEOUT, read_reply(stream)).await;
    Ok(code)
}

/// The code of the next reply. What follows it is discarded.
async fn read_reply(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u16> {
    let mut received = Vec::new();
    loop {
        match Reply::parse(&received) {
            ReplyParse::Complete(reply) => return Ok(reply.code),
            ReplyParse::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            ReplyParse::Incomplete => {}
        }
        if stream.read_buf(&mut received).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
