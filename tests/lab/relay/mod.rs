//! `gatepost run` between a client and a real Postfix.

pub(crate) mod access;
pub(crate) mod client_name;
pub(crate) mod delivery;
pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod listeners;
pub(crate) mod load;
pub(crate) mod mta_checks;
pub(crate) mod open_relay;
pub(crate) mod passthrough;
pub(crate) mod paths;
pub(crate) mod postscreen;
pub(crate) mod proxied;
pub(crate) mod recovery;
pub(crate) mod smuggling;
pub(crate) mod starttls;
pub(crate) mod submission;
pub(crate) mod tls;
pub(crate) mod tls_after_failures;
pub(crate) mod tls_hostile;
pub(crate) mod tls_renewal;
pub(crate) mod upstream;
pub(crate) mod upstream_lost;
pub(crate) mod upstream_names;
pub(crate) mod upstream_tls;
