//! Re-enacts captured sessions over real sockets: the recorded client against a live server and, on request, the recorded
//! server behind it.
//!
//! Layer 4. The client sends when the recorded client sent: after the replies it had waited for, not by the clock, unless
//! recorded pauses are requested. Where the live reply rules out the next step (content after a rejected DATA), the client
//! skips it. A message that was rejected in the capture is never completed. What was recorded decrypted behind STARTTLS is
//! sent inside TLS.

mod client;
mod scenario;
mod server;
#[cfg(test)]
mod tests;

pub use self::client::{Pace, RecordedClient, ReplyDifference, RunReport};
pub use self::scenario::{NotReplayable, Scenario};
pub use self::server::{RecordedServer, RecordedServerError};
