//! One value for each side of a flow.

use crate::addr::Side;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PerSide<T> {
    pub(super) client: T,
    pub(super) server: T,
}

impl<T> PerSide<T> {
    pub(super) const fn of(&self, side: Side) -> &T {
        match side {
            Side::Client => &self.client,
            Side::Server => &self.server,
        }
    }

    pub(super) const fn of_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// The value of `side`, then the value of its peer.
    pub(super) const fn split(&mut self, side: Side) -> (&mut T, &mut T) {
        match side {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        }
    }

    /// Exchanges client and server, after the roles turned out to be reversed.
    pub(super) const fn swap_sides(&mut self) {
        std::mem::swap(&mut self.client, &mut self.server);
    }
}
