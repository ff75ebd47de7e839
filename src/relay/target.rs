//! The entries of `[upstream] addresses`: an address, or a host name whose addresses may change.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTarget {
    Address(SocketAddr),
    /// All addresses that the name has.
    Host(UpstreamHost),
}

/// `postfix:25`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamHost {
    /// With a final dot it is complete: the search list of resolv.conf(5) does not apply to it.
    pub name: Arc<str>,
    pub port: u16,
}

impl UpstreamTarget {
    /// `None` for a host name.
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Host(_) => None,
        }
    }

    pub const fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Host(host) => host.port,
        }
    }

    pub const fn host(&self) -> Option<&UpstreamHost> {
        match self {
            Self::Address(_) => None,
            Self::Host(host) => Some(host),
        }
    }
}

impl From<SocketAddr> for UpstreamTarget {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<UpstreamHost> for UpstreamTarget {
    fn from(host: UpstreamHost) -> Self {
        Self::Host(host)
    }
}

/// As in the file.
impl fmt::Display for UpstreamTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host(host) => host.fmt(f),
        }
    }
}

impl fmt::Display for UpstreamHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}
