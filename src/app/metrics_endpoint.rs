//! The HTTP endpoint of the metrics, and of a page at `/`.

use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use crate::metrics::http::{self, HealthState, ReadyState};

/// Ends the endpoint when dropped.
pub(super) type HttpEndpoint = oneshot::Sender<()>;

pub(super) fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    health: HealthState,
    (page, paths): (Router, &'static str),
) -> HttpEndpoint {
    serve_router(listener, (http::routes(metrics, health).merge(page), paths))
}

/// Routes with their paths, as an error message lists them.
pub(super) fn serve_router(listener: TcpListener, routes: (Router, &'static str)) -> HttpEndpoint {
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(http::serve(listener, routes, async { drop(stopped.await) }));
    stop
}

/// The endpoint of a command that is ready at once, with an index of its paths at `/`.
pub(super) fn serve_with_index(listener: TcpListener, metrics: Arc<Metrics>) -> HttpEndpoint {
    let health = HealthState::new();
    health.set(ReadyState::Ready);
    serve(listener, metrics, health, (http::index(), http::PATHS))
}
