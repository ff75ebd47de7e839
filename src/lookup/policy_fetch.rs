//! The policy file of MTA-STS from one address of the policy host, over HTTPS (RFC 8461 §3.3), for the domain check.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, Request, Response, header};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::probe::{ConnectError, SurveySettings, connect, tls_facts};
use crate::policy::facts::DomainName;
use crate::readiness::{
    ConnectResult, HttpResponse, MAX_POLICY, PolicyFetch, PolicyResponse, TlsAttempt,
};
use crate::smtp_connection::ConnectionTls;

const HTTPS: u16 = 443;
const PATH: &str = "/.well-known/mta-sts.txt";
const USER_AGENT: &str = concat!("gatepost/", env!("CARGO_PKG_VERSION"));
/// Octets between TLS and HTTP.
const BUFFER: usize = 16 * 1024;

/// Requests the policy of `host` at `address`, until the deadline at most. Follows no redirect.
pub async fn fetch_policy(
    address: IpAddr,
    host: &DomainName,
    settings: &SurveySettings,
) -> PolicyFetch {
    let step = Step::new(settings);
    let mut socket = match connect(SocketAddr::new(address, HTTPS), None, step.limit).await {
        Ok(socket) => socket,
        Err(error) => {
            return PolicyFetch::only(match error {
                ConnectError::Refused => ConnectResult::Refused,
                ConnectError::NoResponse if step.is_cut_short => ConnectResult::OutOfTime,
                ConnectError::NoResponse => ConnectResult::NoResponse(step.began.elapsed()),
                ConnectError::NoRoute | ConnectError::Exhausted => ConnectResult::NoRoute,
            });
        }
    };
    let mut fetch = PolicyFetch::only(ConnectResult::Connected(step.began.elapsed()));

    let name = host.to_string();
    let Ok(server) = ServerName::try_from(name.clone()) else {
        fetch.tls = TlsAttempt::Failed(format!("{name} is no name of a server"));
        return fetch;
    };
    let step = Step::new(settings);
    let config = Arc::clone(&settings.tls.config);
    let start = ConnectionTls::start(&mut socket, config, server.clone());
    let tls = match timeout(step.limit, start).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            fetch.tls = match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => TlsAttempt::Closed,
                _ => TlsAttempt::Failed(error.to_string()),
            };
            return fetch;
        }
        Err(_elapsed) => {
            fetch.tls = match step.is_cut_short {
                true => TlsAttempt::OutOfTime,
                false => TlsAttempt::TimedOut(step.limit),
            };
            return fetch;
        }
    };
    fetch.tls = match tls_facts(&tls, &server, &settings.tls, step.began.elapsed()) {
        Ok(facts) => TlsAttempt::Established(facts),
        Err(why) => {
            fetch.tls = TlsAttempt::Failed(why);
            return fetch;
        }
    };

    let step = Step::new(settings);
    let response = timeout(step.limit, request(socket, tls, &name)).await;
    fetch.response = match response {
        Ok(response) => response,
        Err(_elapsed) if step.is_cut_short => PolicyResponse::OutOfTime,
        Err(_elapsed) => PolicyResponse::TimedOut(step.limit),
    };
    fetch
}

/// The time for a part of the request.
struct Step {
    began: Instant,
    limit: Duration,
    /// The end of the whole check comes earlier.
    is_cut_short: bool,
}

impl Step {
    fn new(settings: &SurveySettings) -> Self {
        let began = Instant::now();
        let left = settings.deadline.saturating_duration_since(began);
        let is_cut_short = left < settings.timeout;
        Self { began, limit: settings.timeout.min(left), is_cut_short }
    }
}

async fn request(socket: TcpStream, tls: ConnectionTls, host: &str) -> PolicyResponse {
    let request = Request::get(PATH)
        .header(header::HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "text/plain")
        .header(header::CONNECTION, "close")
        .body(Body::empty());
    let Ok(request) = request else { return PolicyResponse::NotRequested };
    let (near, far) = duplex(BUFFER);
    // Aborted when this function ends.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // Then the other end reads the end of the stream.
        let _ = carry(socket, tls, far).await;
    });
    let (mut sender, connection) = match http1::handshake(TokioIo::new(near)).await {
        Ok(parts) => parts,
        Err(error) => return failure(&error),
    };
    tasks.spawn(async move {
        // The sender has the error, too.
        let _ = connection.await;
    });
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => return failure(&error),
    };
    read(response).await
}

fn failure(error: &hyper::Error) -> PolicyResponse {
    if error.is_parse() { PolicyResponse::NotHttp } else { PolicyResponse::Closed }
}

async fn read(response: Response<Incoming>) -> PolicyResponse {
    let status = response.status().as_u16();
    let text = |name: HeaderName| {
        let value = response.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let (content_type, location) = (text(header::CONTENT_TYPE), text(header::LOCATION));
    let body = match status {
        200 => match read_body(response.into_body()).await {
            Ok(body) => body,
            Err(failure) => return failure,
        },
        _ => Vec::new(),
    };
    PolicyResponse::Received(HttpResponse { status, content_type, location, body })
}

async fn read_body(mut incoming: Incoming) -> Result<Vec<u8>, PolicyResponse> {
    let mut body = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut incoming).poll_frame(context)).await {
        let frame = frame.map_err(|error| failure(&error))?;
        body.extend(frame.into_data().unwrap_or_default());
        if body.len() > MAX_POLICY {
            return Err(PolicyResponse::TooLarge);
        }
    }
    Ok(body)
}

/// Carries one request and its response between HTTP and TLS.
async fn carry(
    mut socket: TcpStream,
    mut tls: ConnectionTls,
    mut plain: DuplexStream,
) -> io::Result<()> {
    // The request has no body.
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if plain.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    tls.send(&mut socket, &request).await?;
    let mut received = Vec::new();
    while tls.receive(&mut socket, &mut received).await? > 0 {
        plain.write_all(&received).await?;
        received.clear();
    }
    Ok(())
}
