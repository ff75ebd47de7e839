//! Answers to lookups: for a replay from the DNS traffic of a capture, a zone file or a live resolver ([`Sources`]); for a
//! running gateway from observed traffic, caches, the DNS, probes of other servers and our own upstream ([`LookupService`]).
//!
//! Layer 4. A source without an answer leaves the lookup to the next source. A source that observed a DNS failure does not:
//! at that time the answer *was* unknown, and a replay must decide as the gateway did.

mod cache_entry;
mod cache_view;
mod call_ahead;
mod clock;
mod cname;
mod disk_cache;
mod dns;
mod dns_alias;
mod dns_data;
mod dns_exchange;
mod exchanges;
mod host_names;
mod limits;
mod memory_cache;
mod name_server;
mod passive_dns;
mod policy_fetch;
mod probe;
mod redis_store;
mod service;
mod settings;
mod single_flight;
mod sources;
mod traffic_hints;
mod validated;
pub mod vantage;
mod zone_file;

pub use self::cache_entry::CacheEntry;
pub use self::cache_view::{CacheRow, matches_pattern, subject};
pub use self::disk_cache::{DiskCacheError, purge_disk_cache, read_disk_cache};
pub use self::dns::{Dns, DnsError, parse_server};
pub use self::exchanges::exchange_addresses;
pub use self::host_names::{HostLookup, HostNames};
pub use self::passive_dns::{MAX_BYTES, PassiveDns, ServerNames};
pub use self::policy_fetch::fetch_policy;
pub use self::probe::{SurveySettings, SurveyTls, answers, survey};
pub use self::redis_store::check_redis_url;
pub use self::service::{LookupError, LookupService};
pub use self::settings::{CacheLimits, LargeHello, LookupSettings, ProbeSettings, Ttls};
pub use self::sources::Sources;
pub use self::zone_file::{ZoneFile, ZoneFileError};

#[cfg(test)]
mod tests;
