//! What Postfix says and asks: its mail log, socketmap lookups and policy delegation. Layer 4.

mod dsn_filter;
pub mod mail_log;
pub mod socketmap;

pub use self::dsn_filter::dsn_filter;
pub mod policy;
