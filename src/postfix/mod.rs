//! What Postfix says and asks: its mail log, socketmap lookups and policy delegation. Layer 4.

pub mod socketmap;
