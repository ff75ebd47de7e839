//! The HTTPS request for the policy file of MTA-STS at one address of the policy host.

use std::time::Duration;

use super::survey::{ConnectResult, TlsAttempt};

/// RFC 8461 §3.3: senders limit the size; its example is 64 KiB.
pub const MAX_POLICY: usize = 64 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFetch {
    pub reached: ConnectResult,
    /// Any certificate is accepted; the trust in it is a part of the result.
    pub tls: TlsAttempt,
    pub response: PolicyResponse,
}

impl PolicyFetch {
    /// A request that ended with the connection attempt.
    pub const fn only(reached: ConnectResult) -> Self {
        Self { reached, tls: TlsAttempt::NotReached, response: PolicyResponse::NotRequested }
    }
}

/// The result of waiting for the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyResponse {
    NotRequested,
    Received(HttpResponse),
    /// A body of more than [`MAX_POLICY`] octets.
    TooLarge,
    /// No complete response within this time.
    TimedOut(Duration),
    /// No complete response when the time for the whole check ran out.
    OutOfTime,
    /// The server closed the connection before the end of the response.
    Closed,
    /// Not an HTTP/1.1 response.
    NotHttp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    pub status: u16,
    pub content_type: Option<String>,
    /// The target of a redirect.
    pub location: Option<String>,
    /// Empty unless the status is 200.
    pub body: Vec<u8>,
}
