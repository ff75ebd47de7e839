//! Where the log is.

use std::fmt;
use std::path::PathBuf;

use super::super::LogZone;

/// `[outbound] mail_log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailLogSource {
    /// A file. It may be rotated by renaming or by truncation, and need not exist yet.
    File(PathBuf),
    /// The journal of systemd, by journalctl(1): of this host, or in `directory`.
    Journal { directory: Option<PathBuf> },
    /// Lines from standard input, once.
    Stdin,
}

impl MailLogSource {
    /// `journal`, `-`, or the path of a file.
    pub fn parse(text: &str) -> Self {
        match text {
            "journal" => Self::Journal { directory: None },
            "-" => Self::Stdin,
            path => Self::File(path.into()),
        }
    }
}

impl fmt::Display for MailLogSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Journal { directory: None } => f.write_str("the journal"),
            Self::Journal { directory: Some(path) } => {
                write!(f, "the journal in {}", path.display())
            }
            Self::Stdin => f.write_str("standard input"),
        }
    }
}

/// What to follow.
#[derive(Clone, Debug)]
pub struct MailLogSettings {
    pub source: MailLogSource,
    /// Bytes at the end of a log that are read first, so that there is evidence again after a restart. For the journal it is
    /// converted to entries. Standard input has no history.
    pub history: u64,
    /// The zone of stamps without one.
    pub zone: LogZone,
}

impl MailLogSettings {
    /// 16 MiB: about 100,000 lines, which take 0.1 s.
    pub const HISTORY: u64 = 16 << 20;

    /// With [`Self::HISTORY`] and the zone of this host.
    pub fn new(source: MailLogSource) -> Self {
        Self { source, history: Self::HISTORY, zone: LogZone::system() }
    }
}
