//! The expressions of `dashboards/`, evaluated by a real Prometheus against a gateway under real traffic.

#[path = "../../core/dashboards/board.rs"]
pub(crate) mod board;
pub(crate) mod live;
pub(crate) mod prometheus;
pub(crate) mod promtool;
mod recorded;
#[path = "../../core/dashboards/rules.rs"]
mod rules;
mod scenario;
#[path = "../../core/dashboards/selectors.rs"]
mod selectors;
