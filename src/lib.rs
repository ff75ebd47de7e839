//! gatepost: a transparent SMTP gateway for dual-stack mail.
//!
//! The library exists for the program, its tests and its benchmarks; it is not published, and nothing in it is a stable
//! interface. Modules that only the program needs are hidden from its documentation (`--document-hidden-items` shows them).
//!
//! Modules by layer. Imports go downward only, and modules of layer 4 do not import each other, but for its base; a test
//! (`source_rules`) checks both against this table. ARCHITECTURE.md explains the layers.
//!
//! | layer | modules |
//! |---|---|
//! | 5 | `cli`, `config`, `app` |
//! | 4 | `relay`, `tls`, `control`, `source`, `reenact`, `lookup`, `intercept`, `postfix`, `privilege`, `metrics`, `report` |
//! | 4, base | `unix_listener`, `smtp_connection`, `canary_reports`, `certificate_details` |
//! | 3 | `engine`, `analyzer` |
//! | 2 | `policy`, `traffic`, `outbound`, `redact`, `readiness`, `canary` |
//! | 1 | `smtp`, `dkim`, `stream`, `wire`, `recording` |
//! | 0 | `addr`, `time`, `humanize`, `label`, `hmac_key` |

pub mod addr;
pub mod analyzer;
pub mod app;
#[doc(hidden)]
pub mod canary;
#[doc(hidden)]
pub mod canary_reports;
pub mod certificate_details;
pub mod cli;
pub mod config;
#[doc(hidden)]
pub mod control;
#[doc(hidden)]
pub mod dkim;
pub mod engine;
#[doc(hidden)]
pub mod hmac_key;
#[doc(hidden)]
pub mod humanize;
pub mod intercept;
mod label;
pub mod lookup;
#[doc(hidden)]
pub mod metrics;
pub mod outbound;
pub mod policy;
#[doc(hidden)]
pub mod postfix;
#[doc(hidden)]
pub mod privilege;
#[doc(hidden)]
pub mod readiness;
pub mod recording;
#[doc(hidden)]
pub mod redact;
#[doc(hidden)]
pub mod reenact;
pub mod relay;
pub mod report;
pub mod smtp;
#[doc(hidden)]
pub mod smtp_connection;
pub mod source;
pub mod stream;
pub mod time;
pub mod tls;
#[doc(hidden)]
pub mod traffic;
#[doc(hidden)]
pub mod unix_listener;
pub mod wire;
