//! Which way a connection goes, seen from our side.

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use crate::addr::Networks;

/// The direction of a connection: who opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bound {
    /// To us, or past us; also where it is not known which side is ours.
    In,
    /// From one of ours to somebody else.
    Out,
}

impl Bound {
    pub const ALL: [Self; 2] = [Self::In, Self::Out];

    /// `Out` if `client` is ours and `server` is not, else `In`: between two of ours, mail comes to us.
    pub fn of(client: IpAddr, server: IpAddr, ours: &Networks) -> Self {
        if ours.contains(client) && !ours.contains(server) { Self::Out } else { Self::In }
    }

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The label `direction` in metrics and the word in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
