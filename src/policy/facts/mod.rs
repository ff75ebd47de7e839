//! Facts about a client, a sender and our own receive path, as pure functions of lookup results.
//!
//! Layer 2. Each function takes [`Answers`], the results available so far, and returns an [`Evaluation`]: the [`Fact`], or
//! the lookups it needs. A driver (`lookup::Sources`) performs these and calls the function again. So nothing here awaits,
//! the order of the answers does not matter, and a capture, a master file and a live resolver serve the same code.
//!
//! NXDOMAIN and NODATA are answers. SERVFAIL, a timeout, and a lookup without a resolver leave a fact unknown, unless
//! another answer decides it (rule 6 of ARCHITECTURE.md).

mod address_search;
mod answer;
mod authenticated;
mod client_certificate;
mod detail;
mod dkim;
pub mod dmarc;
mod fact;
mod helo;
mod look_ahead;
mod lookup_stats;
mod message;
mod name;
mod probe;
mod provenance;
mod reason;
mod return_path;
mod return_path_options;
mod reverse;
mod single_lookup;
mod site_mx;
pub mod spf;
#[cfg(test)]
mod tests;

pub use self::answer::{Answer, Answers, DnsRecord, Lookup, LookupResult};
pub use self::authenticated::authenticated;
pub use self::client_certificate::{ClientCertificate, PresentedCertificate};
pub use self::detail::Detail;
pub use self::dkim::dkim;
pub use self::fact::{Evaluation, Fact, FactState, Facts};
pub use self::helo::helo_resolves;
pub use self::look_ahead::{MessageNeeds, message_lookups};
pub use self::lookup_stats::{AnswerKind, LookupKind, LookupObserver, Resolution};
pub use self::message::ReceivedMessage;
pub use self::name::{DomainName, DomainOrLiteral};
pub use self::probe::MAX_PROBED;
use self::provenance::Provenance;
pub use self::reason::{Reason, Source};
pub use self::return_path::{MAX_EXCHANGES, ReturnPathCheck, return_path};
pub use self::return_path_options::{FamilyRequirement, ReturnPathLevel};
pub use self::reverse::{MAX_NAMES, fcrdns, reverse_name};
pub use self::single_lookup::{receive_path, recipient};
pub use self::site_mx::site_mx_has_address;
