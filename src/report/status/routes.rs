//! What is answered: the page, and what it is drawn and kept alive with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::page::page;
use super::{GatewayInfo, LiveState, Status};

/// A page serves all who ask within that time.
const FRESH: Duration = Duration::from_millis(900);

/// Nothing from elsewhere, nothing inline, nobody around it, nowhere to send anything.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Whoever knows how things are.
pub type LiveStateProvider = Box<dyn Fn() -> BoxFuture<'static, LiveState> + Send + Sync>;

struct Served {
    fresh: Duration,
    status: Arc<Status>,
    gateway: GatewayInfo,
    gather: LiveStateProvider,
    /// Held while one is made, so that it is made once.
    latest: Mutex<Option<(Instant, Bytes)>>,
}

/// `/`, and what belongs to it.
pub fn routes(status: Arc<Status>, gateway: GatewayInfo, gather: LiveStateProvider) -> Router {
    routes_within(FRESH, status, gateway, gather)
}

pub(super) fn routes_within(
    fresh: Duration,
    status: Arc<Status>,
    gateway: GatewayInfo,
    gather: LiveStateProvider,
) -> Router {
    let served = Served { fresh, status, gateway, gather, latest: Mutex::default() };
    Router::new()
        .route("/", get(show).with_state(Arc::new(served)))
        .route("/status.css", get(async || answer("text/css; charset=utf-8", STYLE)))
        .route("/status.js", get(async || answer("text/javascript; charset=utf-8", SCRIPT)))
        .route("/status.svg", get(async || answer("image/svg+xml", ICON)))
}

const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = include_str!("status.js");
const ICON: &str = include_str!("status.svg");

async fn show(State(served): State<Arc<Served>>) -> Response {
    let mut latest = served.latest.lock().await;
    let fresh = latest.as_ref().filter(|(made, _)| made.elapsed() < served.fresh);
    let html = match fresh {
        Some((_, html)) => html.clone(),
        None => {
            let now = (served.gather)().await;
            let seen = served.status.snapshot(now.at);
            let html = Bytes::from(page(&served.gateway, &now, &seen).into_string());
            *latest = Some((Instant::now(), html.clone()));
            html
        }
    };
    drop(latest);
    answer("text/html; charset=utf-8", html)
}

fn answer(kind: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
