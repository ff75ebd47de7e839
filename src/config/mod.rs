//! The checked configuration: what the rest of the program reads, with every value valid and every default filled in.
//!
//! Layer 5, and plain data. Each part is a type of the module it concerns; this one only says which file they came from.
//! `raw` reads TOML and tells every mistake in a file at once; nothing else makes a [`Config`] from text.

mod raw;

use std::net::SocketAddr;

pub use raw::{ConfigErrors, Mistake};

use crate::intercept;
use crate::relay;
use crate::report;

/// Everything that one file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub relay: relay::Settings,
    /// Present exactly with `listen.mode = "tproxy"`.
    pub intercept: Option<intercept::Settings>,
    pub log: report::LogSettings,
    /// `[metrics] address`; absent without the section.
    pub metrics: Option<SocketAddr>,
}
