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
    page: Router,
) -> HttpEndpoint {
    let (stop, stopped) = oneshot::channel::<()>();
    let router = http::routes(metrics, health).merge(page);
    tokio::spawn(http::serve(listener, router, async { drop(stopped.await) }));
    stop
}

/// The endpoint of a command that is ready at once, with an index of its paths at `/`.
pub(super) fn serve_with_index(listener: TcpListener, metrics: Arc<Metrics>) -> HttpEndpoint {
    let health = HealthState::new();
    health.set(ReadyState::Ready);
    serve(listener, metrics, health, http::index())
}
