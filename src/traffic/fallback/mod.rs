//! Fallbacks: an IPv6 attempt that failed, and the IPv4 attempt that the same client made instead.
//!
//! The two attempts have different addresses at both ends. Each end must be shown to be the same host; in doubt nothing is
//! reported:
//!
//! - *The same server*: both addresses belong to one name ([`ServerMatch::Names`]); or one of them has no known name, and
//!   the IPv4 attempt followed soon after ([`ServerMatch::Window`]). If both names are known and differ, or the ports
//!   differ, it is another server.
//! - *The same client*: both addresses belong to one name; or both attempts used the same HELO, which must be a host name
//!   with a domain; or one of them had no HELO (an unanswered SYN carries none) and there is no other candidate: no other
//!   IPv4 client tried that server in the window, and no other IPv6 client was failing.
//! - Without names, all IPv4 attempts of the client in the window must go to one server: a busy sender tries many.
//!
//! The window begins when the client gave up. That is the attempt's last packet, unless the client was waiting for an
//! answer: each wait is twice the one before (RFC 6298 §5.5), so the silence after the last SYN is no longer than the time
//! before it plus a second. Postfix gives up after 30 s (`smtp_connect_timeout`), the kernel after 127 s; both are covered.
//!
//! A successful IPv6 attempt is not left. One that ended before a HELO, while an IPv4 attempt begun within 300 ms
//! succeeded, lost a race (RFC 8305 §5: 250 ms between attempts). An unanswered SYN is a failure also in a race: a late
//! answer would be in the capture.

mod attempt;
mod detector;
#[cfg(test)]
mod tests;

pub use self::attempt::{Attempt, DeliveryOutcome, Fallback, FallbackReason, ServerMatch};
pub use self::detector::{FallbackDetector, SharesName};
