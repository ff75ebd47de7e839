//! One thing for each side of a flow.

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

    /// That of `side`, then that of its peer.
    pub(super) const fn split(&mut self, side: Side) -> (&mut T, &mut T) {
        match side {
            Side::Client => (&mut self.client, &mut self.server),
            Side::Server => (&mut self.server, &mut self.client),
        }
    }

    /// Client and server were taken for each other.
    pub(super) const fn swap(&mut self) {
        std::mem::swap(&mut self.client, &mut self.server);
    }
}
