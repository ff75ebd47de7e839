//! Arguments of `gatepost postfix`.

use std::path::PathBuf;

use clap::Subcommand;

use crate::config::OutboundConfig;

#[derive(Debug, Subcommand)]
pub enum PostfixCommand {
    /// Print a table for Postfix's smtp_delivery_status_filter, by which refusals for reasons of IPv6 policy are retried.
    DsnFilter,
    /// Answer one connection of Postfix's smtp_dns_reply_filter on standard input and output; spawn(8) starts it.
    Map {
        /// Socket of the running gateway, as `map` in `[outbound]`.
        #[arg(long, value_name = "PATH", default_value = OutboundConfig::MAP)]
        socket: PathBuf,
    },
}
