//! A server's response to a connection.

use serde::Serialize;

use crate::label::labels;

labels! {
    pub enum ServerResponse {
        /// It sent data.
        Answered = "answered",
        /// RST in answer to the SYN.
        Refused = "refused",
        /// No answer to the SYN, or no data after the handshake.
        NoResponse = "no_response",
        /// An ICMP error in answer to the SYN.
        Unreachable = "unreachable",
        /// It sent data, large segments were lost repeatedly, and nothing was accepted.
        BlackHole = "black_hole",
    }
}

/// One value for each response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PerResponse<T> {
    pub answered: T,
    pub refused: T,
    pub no_response: T,
    pub unreachable: T,
    pub black_hole: T,
}

impl<T> PerResponse<T> {
    pub const fn of(&self, response: ServerResponse) -> &T {
        match response {
            ServerResponse::Answered => &self.answered,
            ServerResponse::Refused => &self.refused,
            ServerResponse::NoResponse => &self.no_response,
            ServerResponse::Unreachable => &self.unreachable,
            ServerResponse::BlackHole => &self.black_hole,
        }
    }

    pub const fn of_mut(&mut self, response: ServerResponse) -> &mut T {
        match response {
            ServerResponse::Answered => &mut self.answered,
            ServerResponse::Refused => &mut self.refused,
            ServerResponse::NoResponse => &mut self.no_response,
            ServerResponse::Unreachable => &mut self.unreachable,
            ServerResponse::BlackHole => &mut self.black_hole,
        }
    }
}
