//! Active checks of the configured upstreams: connect, wait for the greeting, QUIT. Without mail nothing else would show
//! that an upstream is down, or that it accepts connections and never greets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::identity;
use super::settings::{UpstreamCheck, UpstreamIdentity, UpstreamSettings};
use super::state::RelayState;
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

/// Checks all upstreams, each at its configured interval, without end; spawn it.
pub(super) async fn run(state: Arc<RelayState>) {
    // When the next check of each is due.
    let mut due: Vec<(UpstreamSettings, Instant)> = Vec::new();
    loop {
        let active = state.active.load_full();
        let now = Instant::now();
        let checked = active.settings.upstreams().into_iter();
        let checked = checked.filter(|upstream| upstream.check == UpstreamCheck::Smtp);
        let mut next = Vec::new();
        let mut start = Vec::new();
        for upstream in checked {
            let known = due.iter().find(|(known, _)| known == upstream).map(|&(_, at)| at);
            let at = match known {
                Some(at) if at > now => at,
                _ => {
                    start.push(upstream);
                    now + upstream.check_interval
                }
            };
            next.push((upstream.clone(), at));
        }
        due = next;
        join_all(start.into_iter().flat_map(|upstream| {
            let addresses = upstream.addresses.iter();
            let (state, mark) = (&state, active.settings.mark);
            addresses.map(move |&address| check(state, upstream, address, mark))
        }))
        .await;
        sleep(TICK).await;
    }
}

async fn check(
    state: &RelayState,
    upstream: &UpstreamSettings,
    address: SocketAddr,
    mark: Option<u32>,
) {
    let result = match timeout(TIMEOUT, greeting(upstream, address, mark)).await {
        Ok(result) => result,
        Err(_elapsed) => Err(AttemptOutcome::Timeout),
    };
    // A lack of resources here says nothing about the upstream.
    if result != Err(AttemptOutcome::Resources) {
        let valid = upstream.check_interval + TIMEOUT + QUIT_TIMEOUT;
        state.health.record_check(address, result, valid);
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
    let code = read_greeting(&mut stream, upstream.identity, address).await;
    if code.is_ok_and(|code| (200..300).contains(&code)) {
        Ok(())
    } else {
        Err(AttemptOutcome::Greeting)
    }
}

async fn read_greeting(
    stream: &mut TcpStream,
    identity: UpstreamIdentity,
    address: SocketAddr,
) -> io::Result<u16> {
    let own = stream.local_addr()?;
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
async fn read_reply(stream: &mut TcpStream) -> io::Result<u16> {
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
