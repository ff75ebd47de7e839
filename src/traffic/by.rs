//! One of a thing for each family, and for each direction.

use serde::Serialize;

use super::Bound;
use crate::addr::Family;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ByFamily<T> {
    pub ipv4: T,
    pub ipv6: T,
}

impl<T> ByFamily<T> {
    /// What `make` makes for each.
    pub fn each(make: impl Fn(Family) -> T) -> Self {
        Self { ipv4: make(Family::Ipv4), ipv6: make(Family::Ipv6) }
    }

    pub const fn of(&self, family: Family) -> &T {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    pub(super) const fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByBound<T> {
    pub inbound: T,
    pub outbound: T,
}

impl<T> ByBound<T> {
    /// What `make` makes for each.
    pub fn each(make: impl Fn(Bound) -> T) -> Self {
        Self { inbound: make(Bound::In), outbound: make(Bound::Out) }
    }

    pub const fn of(&self, bound: Bound) -> &T {
        match bound {
            Bound::In => &self.inbound,
            Bound::Out => &self.outbound,
        }
    }

    pub(super) const fn of_mut(&mut self, bound: Bound) -> &mut T {
        match bound {
            Bound::In => &mut self.inbound,
            Bound::Out => &mut self.outbound,
        }
    }
}
