//! Postfix asks the gateway's policy: SMTP access policy delegation (SMTPD_POLICY_README), of Postfix 2.1 to 3.11.
//!
//! [`request`](PolicyRequest) is the protocol, [`PolicyListener`] the socket, [`PolicyService`] answers. The decisions are
//! the engine's; lookups come in through [`PolicyLookups`]. Whatever fails here, the reply is `DUNNO` or the connection ends,
//! and Postfix does what its `default_action` says.

mod action;
mod instances;
mod listener;
mod lookups;
mod question;
mod request;
mod service;
mod sessions;
mod settings;

pub use self::listener::{PolicyListener, PolicyListenerError};
pub use self::lookups::{PolicyLookupFuture, PolicyLookups};
pub use self::request::{MAX_REQUEST, ParsedRequest, PolicyRequest};
pub use self::service::{PolicyRecords, PolicyService, PolicyServiceParts};
pub use self::sessions::SessionTimes;
pub use self::settings::{PolicyAddress, PolicySettings};
