//! The HTTP endpoint: `/metrics`, `/healthz`, `/readyz`, and at `/` whatever `app` puts there.
//!
//! Layer 4, on axum. One request a connection, and everything about a connection is bounded: how many there are, how
//! long a request's head may take and be, and how long the whole connection lives. So a client that is slow or says
//! nothing holds a few kilobytes for a few seconds; while all places are taken, others wait in the kernel's queue.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{ExpositionFormat, Metrics};

const PATHS: &str = "the paths are /, /metrics, /healthz and /readyz";

/// Whether the gateway takes sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ReadyState {
    /// Not every listener is open yet.
    Starting,
    Ready,
    /// Every upstream failed when it was last tried.
    NoUpstream,
    /// Told to stop.
    Draining,
}

impl ReadyState {
    const fn from_u8(state: u8) -> Self {
        match state {
            1 => Self::Ready,
            2 => Self::NoUpstream,
            3 => Self::Draining,
            _ => Self::Starting,
        }
    }

    /// What `/readyz` says.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Starting => "not ready: the gateway is starting, not every listener is open yet",
            Self::Ready => "ready",
            Self::NoUpstream => {
                "not ready: no upstream is healthy, each one failed when it was last tried"
            }
            Self::Draining => "not ready: the gateway is draining, it takes no new sessions",
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

    /// `Draining` is the last state: whatever is set after it is ignored, so that an upstream that comes back
    /// while the gateway stops does not make it ready again.
    pub fn set(&self, state: ReadyState) {
        let draining = ReadyState::Draining as u8;
        // An error means that it is draining already.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            (now != draining).then_some(state as u8)
        });
    }

    pub fn get(&self) -> ReadyState {
        ReadyState::from_u8(self.0.load(Ordering::Relaxed))
    }
}

/// What one endpoint grants its clients.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    connections: usize,
    /// From the connection to the end of the request's head.
    head: Duration,
    /// From the connection to its end.
    connection: Duration,
    /// What requests in progress get at shutdown.
    shutdown: Duration,
    /// Octets of a request's head; hyper takes no less than 8192.
    buffer: usize,
}

const BOUNDS: Bounds = Bounds {
    connections: 64,
    head: Duration::from_secs(5),
    connection: Duration::from_secs(15),
    shutdown: Duration::from_secs(1),
    buffer: 8192,
};

/// Serves `router`, which is to have no fallback of its own, on `listener` until `shutdown` is ready; then gives requests in
/// progress a second to end.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    serve_within(BOUNDS, listener, router, shutdown).await;
}

async fn serve_within(
    bounds: Bounds,
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) {
    let router = router
        .fallback(async || (StatusCode::NOT_FOUND, format!("not found; {PATHS}\n")))
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, "method not allowed; ask with GET\n")
        });
    let mut connections = JoinSet::new();
    tokio::select! {
        () = shutdown => {}
        never = accept(bounds, &listener, &router, &mut connections) => match never {},
    }
    drop(listener);
    // What is not done by then is aborted with the set.
    let _ =
        timeout(bounds.shutdown, async { while connections.join_next().await.is_some() {} }).await;
}

async fn accept(
    bounds: Bounds,
    listener: &TcpListener,
    router: &Router,
    connections: &mut JoinSet<()>,
) -> Infallible {
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= bounds.connections {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(bounds, stream, router.clone()));
            }
            // Out of descriptors, or the peer has gone: either passes, and the relay tells of the first.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(bounds: Bounds, stream: TcpStream, router: Router) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(bounds.head)
        .max_buf_size(bounds.buffer)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // What went wrong with one scrape is the scraper's to tell.
    let _ = timeout(bounds.connection, serving).await;
}

/// `/metrics`, `/healthz` and `/readyz`.
pub fn routes(metrics: Arc<Metrics>, readiness: HealthState) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics).with_state((metrics, readiness.clone())))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(show_readiness).with_state(readiness))
}

/// `/` for what has no status page: the paths that there are.
pub fn index() -> Router {
    Router::new().route("/", get(async || format!("gatepost: {PATHS}\n")))
}

async fn show_metrics(
    State((metrics, readiness)): State<(Arc<Metrics>, HealthState)>,
    headers: HeaderMap,
) -> Response {
    metrics.set_ready(readiness.get() == ReadyState::Ready);
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let format = ExpositionFormat::preferred(&accept.collect::<Vec<_>>().join(","));
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

    struct Endpoint {
        address: SocketAddr,
        readiness: HealthState,
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    async fn start(bounds: Bounds) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = HealthState::new();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let router = routes(metrics, readiness.clone()).merge(index());
        let task = tokio::spawn(serve_within(bounds, listener, router, shutdown));
        Endpoint { address, readiness, stop, task }
    }

    impl Endpoint {
        /// Status code, head and body.
        async fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            let request = format!("{method} {path} HTTP/1.1\r\nHost: gatepost\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            // No measurement, only an end to a test that would hang.
            timeout(Duration::from_secs(60), stream.read_to_string(&mut answer))
                .await
                .expect("the endpoint never answered")
                .unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            (status, head.to_ascii_lowercase(), body.to_owned())
        }
    }

    #[tokio::test]
    async fn metrics_and_health() {
        let endpoint = start(BOUNDS).await;
        let (status, head, body) = endpoint.ask("GET", "/metrics").await;
        assert_eq!(status, 200);
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        assert!(body.contains("\ngatepost_sessions_open{family=\"ipv6\"} 0\n"), "{body}");
        let (status, _, body) = endpoint.ask("GET", "/healthz").await;
        assert_eq!((status, body.as_str()), (200, "ok\n"));
    }

    #[tokio::test]
    async fn readiness_tells_the_reason_and_draining_is_final() {
        let endpoint = start(BOUNDS).await;
        let mut said = String::new();
        for state in [
            ReadyState::Starting,
            ReadyState::Ready,
            ReadyState::NoUpstream,
            ReadyState::Draining,
            ReadyState::Ready,
        ] {
            endpoint.readiness.set(state);
            let (status, _, body) = endpoint.ask("GET", "/readyz").await;
            said.push_str(&format!("set {state:?}: {status} {body}"));
        }
        insta::assert_snapshot!(said);
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_told_what_to_ask() {
        let endpoint = start(BOUNDS).await;
        let (status, _, body) = endpoint.ask("GET", "/metric").await;
        assert_eq!(status, 404);
        assert_eq!(body, "not found; the paths are /, /metrics, /healthz and /readyz\n");
        for path in ["/", "/metrics", "/healthz", "/readyz"] {
            assert_ne!(endpoint.ask("GET", path).await.0, 404, "{path}");
        }
        let (status, head, body) = endpoint.ask("POST", "/metrics").await;
        assert_eq!(status, 405);
        assert!(head.contains("allow: get"), "{head}");
        assert_eq!(body, "method not allowed; ask with GET\n");
    }

    #[tokio::test]
    async fn silent_and_slow_clients_lose_their_place() {
        let endpoint =
            start(Bounds { connections: 2, head: Duration::from_millis(50), ..BOUNDS }).await;
        let mut silent = TcpStream::connect(endpoint.address).await.unwrap();
        let mut slow = TcpStream::connect(endpoint.address).await.unwrap();
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost:").await.unwrap();
        // Both places are taken: this one is served because the two are cut.
        assert_eq!(endpoint.ask("GET", "/healthz").await.0, 200);
        let mut rest = Vec::new();
        silent.read_to_end(&mut rest).await.unwrap();
        slow.read_to_end(&mut rest).await.unwrap();
        let rest = String::from_utf8(rest).unwrap();
        assert!(!rest.contains(" 200 "), "{rest}");
    }

    #[tokio::test]
    async fn no_connection_outlives_its_time() {
        let endpoint = start(Bounds {
            connections: 1,
            head: Duration::from_secs(3600),
            connection: Duration::from_millis(50),
            ..BOUNDS
        })
        .await;
        let mut silent = TcpStream::connect(endpoint.address).await.unwrap();
        // The one place is taken, and the head's time is not what frees it.
        assert_eq!(endpoint.ask("GET", "/healthz").await.0, 200);
        let mut rest = Vec::new();
        let _ = silent.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
    }

    #[tokio::test]
    async fn an_endless_head_is_refused() {
        let endpoint = start(BOUNDS).await;
        let mut stream = TcpStream::connect(endpoint.address).await.unwrap();
        let endless = vec![b'a'; 64 * 1024];
        stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        // The endpoint may close before it has read all of it.
        let _ = stream.write_all(&endless).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"), "{answer:?}");
    }

    #[tokio::test]
    async fn shutdown_does_not_wait_for_a_silent_client() {
        let endpoint = start(Bounds { shutdown: Duration::from_millis(10), ..BOUNDS }).await;
        let mut silent = TcpStream::connect(endpoint.address).await.unwrap();
        assert_eq!(endpoint.ask("GET", "/healthz").await.0, 200);
        endpoint.stop.send(()).unwrap();
        endpoint.task.await.unwrap();
        let mut rest = Vec::new();
        let _ = silent.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        assert!(TcpStream::connect(endpoint.address).await.is_err());
    }
}
