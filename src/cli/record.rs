//! Arguments of `gatepost record`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::value::{family, network};
use crate::addr::Family;

#[derive(Debug, Args)]
pub struct RecordArgs {
    /// Configuration file of the running gateway; names its control socket.
    #[arg(long, short, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
    /// Control socket of the running gateway [default: /run/gatepost/control.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// pcapng file to write; `-` for standard output.
    #[arg(long, short, value_name = "FILE.pcapng")]
    pub write: PathBuf,
    /// Overwrite an existing file.
    #[arg(long)]
    pub force: bool,
    /// Pseudonymize addresses (shared prefixes stay shared) and local parts, mask secrets and omit message content; keep
    /// lengths and times.
    #[arg(long, conflicts_with = "content")]
    pub redact: bool,
    /// File with a key of 64 hexadecimal digits; the same key gives the same pseudonyms in every recording, and can
    /// reverse them [default: a random key for each recording].
    #[arg(long, value_name = "FILE", requires = "redact")]
    pub redact_key: Option<PathBuf>,
    /// Include bytes that the gateway passes through unparsed (TLS, long BDAT chunks), at the cost of copying them.
    #[arg(long)]
    pub content: bool,
    /// Stop after this many sessions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Stop after this time, such as 90s or 1h.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Record only clients of this family, ipv4 or ipv6.
    #[arg(long, value_parser = family)]
    pub family: Option<Family>,
    /// Record only clients in this network, such as 2001:db8::/32.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub client: Option<IpNet>,
}
