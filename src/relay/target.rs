//! The entries of `[upstream] addresses`: an address, a host name whose addresses may change, or a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTarget {
    Address(SocketAddr),
    /// All addresses that the name has.
    Host(UpstreamHost),
    /// Never beside other targets.
    Socket(UpstreamSocket),
}

/// `unix:/var/spool/postfix/public/smtpd`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamSocket {
    pub path: Arc<Path>,
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
            Self::Host(_) | Self::Socket(_) => None,
        }
    }

    /// `None` for a Unix socket.
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::Address(address) => Some(address.port()),
            Self::Host(host) => Some(host.port),
            Self::Socket(_) => None,
        }
    }

    pub const fn socket(&self) -> Option<&UpstreamSocket> {
        match self {
            Self::Socket(socket) => Some(socket),
            Self::Address(_) | Self::Host(_) => None,
        }
    }

    pub const fn host(&self) -> Option<&UpstreamHost> {
        match self {
            Self::Host(host) => Some(host),
            Self::Address(_) | Self::Socket(_) => None,
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
            Self::Socket(socket) => socket.fmt(f),
        }
    }
}

impl fmt::Display for UpstreamSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.path.display())
    }
}

impl fmt::Display for UpstreamHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}
