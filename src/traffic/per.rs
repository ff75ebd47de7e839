//! One value for each family, and for each direction.

use serde::Serialize;

use super::direction::MailDirection;
use crate::addr::Family;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PerFamily<T> {
    pub ipv4: T,
    pub ipv6: T,
}

impl<T> PerFamily<T> {
    pub fn each(make: impl Fn(Family) -> T) -> Self {
        Self { ipv4: make(Family::Ipv4), ipv6: make(Family::Ipv6) }
    }

    pub const fn of(&self, family: Family) -> &T {
        match family {
            Family::Ipv4 => &self.ipv4,
            Family::Ipv6 => &self.ipv6,
        }
    }

    pub const fn of_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::Ipv4 => &mut self.ipv4,
            Family::Ipv6 => &mut self.ipv6,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerDirection<T> {
    pub inbound: T,
    pub outbound: T,
}

impl<T> PerDirection<T> {
    pub fn each(make: impl Fn(MailDirection) -> T) -> Self {
        Self { inbound: make(MailDirection::Inbound), outbound: make(MailDirection::Outbound) }
    }

    pub const fn of(&self, direction: MailDirection) -> &T {
        match direction {
            MailDirection::Inbound => &self.inbound,
            MailDirection::Outbound => &self.outbound,
        }
    }

    pub(super) const fn of_mut(&mut self, direction: MailDirection) -> &mut T {
        match direction {
            MailDirection::Inbound => &mut self.inbound,
            MailDirection::Outbound => &mut self.outbound,
        }
    }
}
