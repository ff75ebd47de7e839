//! The state of the source.

use std::fmt;
use std::sync::Arc;

use super::super::MailLogCounts;

/// Whether the log is being read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MailLogState {
    /// Nothing has been read yet.
    #[default]
    Starting,
    Reading,
    /// The file does not exist yet; it is read once it does.
    Waiting,
    /// It cannot be read, for this reason, which names a remedy. Attempts to read it continue.
    Failed(Arc<str>),
    /// Standard input has ended.
    Ended,
}

impl MailLogState {
    /// One word, for a label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Reading => "reading",
            Self::Waiting => "waiting",
            Self::Failed(_) => "failed",
            Self::Ended => "ended",
        }
    }
}

impl fmt::Display for MailLogState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(reason) => f.write_str(reason),
            Self::Waiting => f.write_str("waiting for the file"),
            other => f.write_str(other.as_str()),
        }
    }
}

/// State and counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailLogStatus {
    pub state: MailLogState,
    pub counts: MailLogCounts,
    /// Bytes that were read.
    pub bytes: u64,
    /// How often a file was replaced or truncated, or journalctl(1) was started again.
    pub restarts: u64,
}
