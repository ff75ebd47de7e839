//! `/probe?target=DOMAIN`: the check of a domain as metrics, for a Prometheus that scrapes domains as it does with
//! blackbox_exporter.
//!
//! The check itself belongs to `app`. Only listed domains are checked: others could have this host connect anywhere.

mod checks;
mod endpoint;
mod families;
mod series;

pub use self::checks::{CheckFuture, CheckRunner, DomainCheckSettings, DomainChecks};
pub use self::endpoint::probe;
pub(super) use self::families::DomainFamilies;
pub use self::series::CheckedDomain;
