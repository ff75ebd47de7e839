//! Tests with real peers (Postfix, Knot, Prometheus, Chromium, tshark), most of them in network namespaces.
//!
//! `make test` runs them as root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "clippy excuses test functions, not the functions that they call"
)]

mod capture_files;
mod captures;
mod dashboards;
mod docs;
mod domain_check;
mod door;
mod door_mail;
mod intercept;
mod live_source;
mod metrics;
mod packaging;
mod reachable;
mod record;
mod reenactment;
mod relay;
mod shared_captures;
mod status;
mod support;
mod watch;
mod wire_tshark;
