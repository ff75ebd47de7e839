//! A vantage: a prober on another network, as reachability from the world cannot be observed from here.
//!
//! One HTTP/1.1 POST of a request to `/probe`, answered by a response. Both are JSON, and the header `gatepost-signature` of
//! each carries an HMAC-SHA256 (RFC 2104) over its role and its bytes, with a key that only the two hosts have. A request has
//! a time and a nonce: the vantage refuses one that is more than [`MAX_CLOCK_SKEW`] from its clock, or a repeated one. The
//! response repeats the nonce, so it belongs to this request only. Neither is secret, so they are not encrypted.
//!
//! A POST to `/canary` has it send a pair of canaries to a mailbox of one of its domains; the response has the pair with the
//! replies of the mail servers.
//!
//! The vantage resolves names itself, as any sender there would.

mod canary;
mod client;
mod protocol;
mod request_log;
mod server;
mod signature;

pub use self::canary::VantageCanaries;
pub use self::client::{Vantage, VantageError};
pub use self::protocol::{
    DEFAULT_TIMEOUT, MAX_CLOCK_SKEW, ProbedAddress, VantageResult, VantageSettings,
};
pub use self::request_log::{RequestEvent, RequestLog};
pub use self::server::{VantageServer, VantageServerSettings, serve};
pub use self::signature::{SharedKey, SharedKeyError};

#[cfg(test)]
mod tests;
