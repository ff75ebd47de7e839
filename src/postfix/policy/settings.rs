//! Settings of the policy service: plain data, checked by `config/`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// The keys of `[postfix]` that begin with `policy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicySettings {
    pub address: PolicyAddress,
    /// Of Postfix's smtpd processes: each has one for each line with `check_policy_service`.
    pub connections: usize,
    /// Answers to lookups that are missing then count as unknown.
    pub deadline: Duration,
}

impl PolicySettings {
    pub const CONNECTIONS: usize = 2000;
    /// Shorter than the `timeout=2s` of the line in the documentation.
    pub const DEADLINE: Duration = Duration::from_millis(1500);
}

/// As Postfix writes it, with the path in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyAddress {
    Unix(PathBuf),
    Inet(SocketAddr),
}

impl fmt::Display for PolicyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Inet(address) => write!(f, "inet:{address}"),
        }
    }
}
