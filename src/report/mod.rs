//! What people and log collectors read: session lines, notices. Layer 4.

use std::path::PathBuf;

/// `[log]`, checked by `config/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    pub format: LogFormat,
    /// Standard output when absent.
    pub file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}
