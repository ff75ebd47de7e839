//! The reply of one of a zone's name servers, asked directly.

/// To a query for the SOA record of a zone (RFC 1034 §4.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameServerReply {
    /// It has authority for the zone.
    Answers,
    /// It responds, but not as a server of the zone does; how.
    Lame(String),
    /// Neither over UDP nor over TCP.
    NoResponse,
    /// This host has no route to it.
    NoRoute,
    /// The time for the whole check ran out.
    OutOfTime,
}
