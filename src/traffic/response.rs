//! The response to a connection, as evidence of the path to the server.

use serde::Serialize;

use crate::label::labels;

labels! {
    pub enum ConnectionResponse {
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
    pub const fn of(&self, response: ConnectionResponse) -> &T {
        match response {
            ConnectionResponse::Answered => &self.answered,
            ConnectionResponse::Refused => &self.refused,
            ConnectionResponse::NoResponse => &self.no_response,
            ConnectionResponse::Unreachable => &self.unreachable,
            ConnectionResponse::BlackHole => &self.black_hole,
        }
    }

    pub const fn of_mut(&mut self, response: ConnectionResponse) -> &mut T {
        match response {
            ConnectionResponse::Answered => &mut self.answered,
            ConnectionResponse::Refused => &mut self.refused,
            ConnectionResponse::NoResponse => &mut self.no_response,
            ConnectionResponse::Unreachable => &mut self.unreachable,
            ConnectionResponse::BlackHole => &mut self.black_hole,
        }
    }
}
