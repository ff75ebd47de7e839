//! The HTTP endpoint: `/metrics`, `/healthz`, `/readyz`, and the page that `app` mounts at `/`.
//!
//! Layer 4, on axum. One request per connection. The number of connections, the size and time of a request head and the
//! lifetime of a connection are bounded: a slow or silent client holds a few kilobytes for a few seconds. Above the limit,
//! clients wait in the listener's backlog. Only a request for a check that takes longer has more time.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{ExpositionFormat, Metrics};
use crate::addr::OriginalDst;

/// Of an endpoint without `/probe`.
pub const PATHS: &str = "/, /metrics, /healthz, /readyz";
pub const PATHS_WITH_PROBE: &str = "/, /metrics, /probe, /healthz, /readyz";

/// Whether the gateway accepts sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReadyState {
    /// Not every listener is open yet.
    Starting,
    Ready,
    /// The last connection attempt to every upstream failed.
    NoUpstream,
    /// Mail goes past the gateway, to the servers.
    NotIntercepting,
    /// The certificate that most senders get has expired.
    NoCertificate,
    /// Shutting down.
    Draining,
}

impl ReadyState {
    const fn from_u8(state: u8) -> Self {
        match state {
            1 => Self::Ready,
            2 => Self::NoUpstream,
            3 => Self::NotIntercepting,
            4 => Self::NoCertificate,
            5 => Self::Draining,
            _ => Self::Starting,
        }
    }

    /// The text of `/readyz`.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Starting => "not ready: starting, not every listener is open",
            Self::Ready => "ready",
            Self::NoUpstream => {
                "not ready: no healthy upstream, the last attempt to each one failed"
            }
            Self::NotIntercepting => {
                "not ready: mail is not intercepted and goes to the servers directly, see the log"
            }
            Self::NoCertificate => "not ready: the TLS certificate has expired, see the log",
            Self::Draining => "not ready: draining, no new sessions are accepted",
        }
    }
}

/// The state behind `/readyz`; clones share it.
#[derive(Clone, Debug, Default)]
pub struct HealthState(Arc<AtomicU8>);

impl HealthState {
    /// [`ReadyState::Starting`].
    pub fn new() -> Self {
        Self::default()
    }

    /// `Draining` is final: later calls are ignored, so that a recovered upstream does not make a stopping gateway ready
    /// again.
    pub fn set(&self, state: ReadyState) {
        let draining = ReadyState::Draining as u8;
        // An error means that the state is already `Draining`.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now != draining).then_some(state as u8)
        });
    }

    pub fn get(&self) -> ReadyState {
        ReadyState::from_u8(self.0.load(Ordering::Relaxed))
    }
}

/// Limits of one endpoint.
#[derive(Clone, Copy, Debug)]
struct HttpLimits {
    connections: usize,
    /// From accept to the end of the request head.
    head: Duration,
    /// From accept to close.
    connection: Duration,
    /// For requests in progress at shutdown.
    shutdown: Duration,
    /// Bytes of a request head; hyper's minimum is 8192.
    buffer: usize,
}

const LIMITS: HttpLimits = HttpLimits {
    connections: 64,
    head: Duration::from_secs(5),
    connection: Duration::from_secs(15),
    shutdown: Duration::from_secs(1),
    buffer: 8192,
};

/// Serves `router`, which has the `paths` and no fallback of its own, on `listener` until `shutdown` completes, then waits up
/// to a second for requests in progress.
pub async fn serve(
    listener: TcpListener,
    (router, paths): (Router, &'static str),
    shutdown: impl Future<Output = ()>,
) {
    serve_within(LIMITS, listener, (router, paths), shutdown).await;
}

async fn serve_within(
    limits: HttpLimits,
    listener: TcpListener,
    (router, paths): (Router, &'static str),
    shutdown: impl Future<Output = ()>,
) {
    let router = router
        .fallback(async move || (StatusCode::NOT_FOUND, format!("not found; paths: {paths}\n")))
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, "method not allowed; use GET\n")
        });
    let mut connections = JoinSet::new();
    tokio::select! {
        () = shutdown => {}
        never = accept(limits, &listener, &router, &mut connections) => match never {},
    }
    drop(listener);
    // Dropping the set aborts the rest.
    let _ =
        timeout(limits.shutdown, async { while connections.join_next().await.is_some() {} }).await;
}

async fn accept(
    limits: HttpLimits,
    listener: &TcpListener,
    router: &Router,
    connections: &mut JoinSet<()>,
) -> Infallible {
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= limits.connections {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(limits, stream, router.clone()));
            }
            // Out of file descriptors, which the relay reports, or the peer is gone: both are temporary.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Handlers find the address that the connection was made to among the extensions of the request.
async fn connection(limits: HttpLimits, stream: TcpStream, router: Router) {
    let end = ConnectionEnd::new(Instant::now() + limits.connection);
    let router = router.layer(Extension(end.clone()));
    let router = match stream.local_addr() {
        Ok(local) => router.layer(Extension(OriginalDst::new(local))),
        Err(_) => router,
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(limits.head)
        .max_buf_size(limits.buffer)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A failed scrape shows up in Prometheus.
    tokio::select! {
        _ = serving => {}
        () = end.reached() => {}
    }
}

/// When a connection is closed at the latest; clones share it.
#[derive(Clone, Debug)]
pub(super) struct ConnectionEnd(Arc<Mutex<Instant>>);

impl ConnectionEnd {
    pub(super) fn new(at: Instant) -> Self {
        Self(Arc::new(Mutex::new(at)))
    }

    /// Never to an earlier time.
    pub(super) fn extend_to(&self, at: Instant) {
        let mut end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *end = at.max(*end);
    }

    async fn reached(&self) {
        loop {
            let end = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if end <= Instant::now() {
                return;
            }
            sleep_until(end).await;
        }
    }
}

/// `/metrics`, `/healthz` and `/readyz`.
pub fn routes(metrics: Arc<Metrics>, readiness: HealthState) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics).with_state((metrics, readiness.clone())))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(show_readiness).with_state(readiness))
}

/// `/` without a status page: a list of the paths.
pub fn index() -> Router {
    Router::new().route("/", get(async || format!("gatepost: paths: {PATHS}\n")))
}

async fn show_metrics(
    State((metrics, readiness)): State<(Arc<Metrics>, HealthState)>,
    headers: HeaderMap,
) -> Response {
    metrics.set_ready(readiness.get() == ReadyState::Ready);
    let format = ExpositionFormat::of_request(&headers);
    let headers = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
    (headers, metrics.encode(format)).into_response()
}

async fn show_readiness(State(readiness): State<HealthState>) -> Response {
    let state = readiness.get();
    let status = match state {
        ReadyState::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{}\n", state.sentence())).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::metrics::domain_check::{CheckFuture, DomainCheckSettings, DomainChecks, probe};
    use crate::policy::facts::DomainName;
    use crate::readiness::CheckReport;

    struct Endpoint {
        address: SocketAddr,
        readiness: HealthState,
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    async fn start(limits: HttpLimits) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = HealthState::new();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let router = routes(metrics, readiness.clone()).merge(index());
        let task = tokio::spawn(serve_within(limits, listener, (router, PATHS), shutdown));
        Endpoint { address, readiness, stop, task }
    }

    impl Endpoint {
        /// Status code, head and body.
        async fn request(&self, method: &str, path: &str) -> (u16, String, String) {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("{method} {path} HTTP/1.1\r\nHost: gatepost\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // Only to end a test that would hang.
            timeout(Duration::from_secs(60), stream.read_to_string(&mut answer))
                .await
                .expect("no response")
                .unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            (status, head.to_ascii_lowercase(), body.to_owned())
        }
    }

    #[tokio::test]
    async fn metrics_and_health() {
        let endpoint = start(LIMITS).await;
        let (status, head, body) = endpoint.request("GET", "/metrics").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        assert!(body.contains("\ngatepost_sessions_open{family=\"ipv6\"} 0\n"), "{body}");
        let (status, _, body) = endpoint.request("GET", "/healthz").await;
        assert_eq!((status, body.as_str()), (200, "ok\n"));
    }

    #[tokio::test]
    async fn readyz_reports_the_reason_and_draining_is_final() {
        let endpoint = start(LIMITS).await;
        let mut responses = String::new();
        for state in [
            ReadyState::Starting,
            ReadyState::Ready,
            ReadyState::NoUpstream,
            ReadyState::NotIntercepting,
            ReadyState::NoCertificate,
            ReadyState::Draining,
            ReadyState::Ready,
        ] {
            endpoint.readiness.set(state);
            let (status, _, body) = endpoint.request("GET", "/readyz").await;
            responses.push_str(&format!("set {state:?}: {status} {body}"));
        }
        insta::assert_snapshot!(responses);
    }

    #[tokio::test]
    async fn errors_list_the_valid_paths_and_method() {
        let endpoint = start(LIMITS).await;
        let (status, _, body) = endpoint.request("GET", "/metric").await;
        assert_eq!(status, 404);
        assert_eq!(body, "not found; paths: /, /metrics, /healthz, /readyz\n");
        for path in ["/", "/metrics", "/healthz", "/readyz"] {
            assert_ne!(endpoint.request("GET", path).await.0, 404, "{path}");
        }
        let (status, head, body) = endpoint.request("POST", "/metrics").await;
        assert_eq!(status, 405);
        assert!(head.contains("allow: get"), "{head}");
        assert_eq!(body, "method not allowed; use GET\n");
    }

    #[tokio::test]
    async fn silent_and_slow_clients_are_disconnected() {
        let endpoint =
            start(HttpLimits { connections: 2, head: Duration::from_millis(50), ..LIMITS }).await;
        let mut silent = TcpStream::connect(endpoint.address).await.unwrap();
        let mut slow = TcpStream::connect(endpoint.address).await.unwrap();
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
        // Both connections are in use: this request is served once they are closed.
        assert_eq!(endpoint.request("GET", "/healthz").await.0, 200);
        let mut rest = Vec::new();
        silent.read_to_end(&mut rest).await.unwrap();
        slow.read_to_end(&mut rest).await.unwrap();
        let rest = String::from_utf8(rest).unwrap();
        assert!(!rest.contains(" 200 "), "{rest}");
    }

    #[tokio::test]
    async fn connections_have_a_maximum_lifetime() {
        let endpoint = start(HttpLimits {
            connections: 1,
            head: Duration::from_secs(3600),
            connection: Duration::from_millis(50),
            ..LIMITS
        })
        .await;
        let mut silent = TcpStream::connect(endpoint.address).await.unwrap();
        // The only connection is in use, and the head timeout is too long to free it.
        assert_eq!(endpoint.request("GET", "/healthz").await.0, 200);
        let mut rest = Vec::new();
        let _ = silent.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn a_check_extends_the_life_of_its_connection() {
        let domain = DomainName::parse("a.example").unwrap();
        let settings =
            DomainCheckSettings { domains: [domain].into(), ..DomainCheckSettings::default() };
        let run = Box::new(|_, _| {
            Box::pin(async {
                sleep(Duration::from_millis(300)).await;
                Ok(CheckReport::default())
            }) as CheckFuture
        });
        let router = probe(Arc::new(DomainChecks::new(settings, "here", run)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = HttpLimits { connection: Duration::from_millis(100), ..LIMITS };
        let shutdown = std::future::pending();
        tokio::spawn(serve_within(limits, listener, (router, "/probe"), shutdown));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /probe?target=a.example HTTP/1.1\r\nHost: gatepost\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[tokio::test]
    async fn an_endless_head_is_rejected() {
        let endpoint = start(LIMITS).await;
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        let endless = vec![b'a'; 64 * 1024];
        stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        // The endpoint may close the connection first.
        let _ = stream.write_all(&endless).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
    }

    #[tokio::test]
    async fn shutdown_does_not_wait_for_a_silent_client() {
        let endpoint = start(HttpLimits { shutdown: Duration::from_millis(10), ..LIMITS }).await;
        let mut silent = TcpStream::connect(endpoint.address).await.unwrap();
        assert_eq!(endpoint.request("GET", "/healthz").await.0, 200);
        endpoint.stop.send(()).unwrap();
        endpoint.task.await.unwrap();
        let mut rest = Vec::new();
        let _ = silent.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        assert!(TcpStream::connect(endpoint.address).await.is_err());
    }
}
