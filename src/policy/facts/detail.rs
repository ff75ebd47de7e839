//! The evidence for a fact, for people.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::DomainName;

/// Formatted only when shown: most facts are used once for a verdict and then dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    Name(DomainName),
    Address(IpAddr),
    /// A host and its deciding address.
    Host(DomainName, IpAddr),
    /// Text from the source of the answer.
    Text(String),
}

impl Detail {
    pub(super) fn host(name: &DomainName, address: IpAddr) -> Self {
        Self::Host(name.clone(), address)
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Host(name, address) => write!(f, "{name} {address}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Serialize for Detail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
