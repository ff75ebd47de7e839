//! What a fact rests on, for people.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::DomainName;

/// Made into text by who shows it: most facts are looked at once for a verdict and then forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    Name(DomainName),
    Address(IpAddr),
    /// A host and that address of it which decides.
    Host(DomainName, IpAddr),
    /// In the words of whoever answered.
    Said(String),
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
            Self::Said(words) => f.write_str(words),
        }
    }
}

impl Serialize for Detail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
