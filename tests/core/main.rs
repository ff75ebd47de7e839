//! Tests that need nothing but this repository: no root, no network namespace, no program besides gatepost.
//!
//! `make check` runs them, with the unit tests of `src/`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy excuses test functions, not the functions that they call"
)]
#![allow(
    clippy::duplicate_mod,
    reason = "fuzz targets and the lab compile some of these files on their own"
)]

mod canary;
mod captures;
mod config;
mod dashboards;
mod demo;
mod docs;
mod engine;
mod fuzz_seeds;
mod gateway_host;
mod lookup_cache;
mod mail_log;
mod metrics;
mod mutated_captures;
mod packaging;
mod refusals;
mod relay_policy;
mod replay;
mod source_rules;
mod spf_suite;
mod watch;
