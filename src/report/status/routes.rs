//! The routes: the page, its style sheet, script and icon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::host_check::{self, AllowedHosts};
use super::page::page;
use super::{GatewayInfo, LiveState, StatusCollector};

/// How long one rendered page is served to all clients.
const MAX_AGE: Duration = Duration::from_millis(900);

/// No external resources, nothing inline, no framing, no forms.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Collects the live state for one page.
pub type LiveStateProvider = Box<dyn Fn() -> BoxFuture<'static, LiveState> + Send + Sync>;

struct PageState {
    max_age: Duration,
    status: Arc<StatusCollector>,
    gateway: GatewayInfo,
    provider: LiveStateProvider,
    /// Locked while a page is rendered, so that it is rendered once.
    latest: Mutex<Option<(Instant, Bytes)>>,
}

/// `/` and its resources, for requests whose `Host` is the gateway's address or name, or one of `hosts`.
pub fn routes(
    status: Arc<StatusCollector>,
    gateway: GatewayInfo,
    hosts: &[String],
    provider: LiveStateProvider,
) -> Router {
    let names = hosts.iter().chain([&gateway.host]).map(String::as_str);
    let allowed = Arc::new(AllowedHosts::new(names));
    routes_with_max_age(MAX_AGE, status, gateway, provider)
        .route_layer(middleware::from_fn_with_state(allowed, host_check::check))
}

pub(super) fn routes_with_max_age(
    max_age: Duration,
    status: Arc<StatusCollector>,
    gateway: GatewayInfo,
    provider: LiveStateProvider,
) -> Router {
    let state = PageState { max_age, status, gateway, provider, latest: Mutex::default() };
    Router::new()
        .route("/", get(show).with_state(Arc::new(state)))
        .route("/status.css", get(async || response("text/css; charset=utf-8", STYLE)))
        .route("/status.js", get(async || response("text/javascript; charset=utf-8", SCRIPT)))
        .route("/status.svg", get(async || response("image/svg+xml", ICON)))
}

const STYLE: &str = include_str!("status.css");
const SCRIPT: &str = include_str!("status.js");
const ICON: &str = include_str!("status.svg");

async fn show(State(state): State<Arc<PageState>>) -> Response {
    let mut latest = state.latest.lock().await;
    let current = latest.as_ref().filter(|(rendered, _)| rendered.elapsed() < state.max_age);
    let html = match current {
        Some((_, html)) => html.clone(),
        None => {
            let live = (state.provider)().await;
            let snapshot = state.status.snapshot(live.at);
            let html = Bytes::from(page(&state.gateway, &live, &snapshot).into_string());
            *latest = Some((Instant::now(), html.clone()));
            html
        }
    };
    drop(latest);
    response("text/html; charset=utf-8", html)
}

fn response(content_type: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
