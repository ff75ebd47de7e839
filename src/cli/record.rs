//! What `gatepost record` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ipnet::IpNet;

use super::value::{family, network};
use crate::addr::Family;

#[derive(Debug, Args)]
pub struct Record {
    /// The running gateway's configuration file, for its control socket.
    #[arg(long, short, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
    /// The running gateway's control socket [default: /run/gatepost/control.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The pcapng file to write; `-` is standard output.
    #[arg(long, short, value_name = "FILE.pcapng")]
    pub write: PathBuf,
    /// Overwrite the file if it is there.
    #[arg(long)]
    pub force: bool,
    /// Replace addresses (equal prefixes stay equal) and local parts, overwrite secrets, drop content; lengths and times
    /// stay.
    #[arg(long, conflicts_with = "content")]
    pub redact: bool,
    /// A file with 64 hexadecimal digits: recordings with equal keys replace equally; who has it can undo it. Without it
    /// every recording has a random key of its own.
    #[arg(long, value_name = "FILE", requires = "redact")]
    pub redact_key: Option<PathBuf>,
    /// Also the octets that the gateway passes on unseen, TLS and long BDAT chunks; it copies them then.
    #[arg(long)]
    pub content: bool,
    /// End after so many sessions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after that time, such as 90s or 1h.
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Only sessions of clients of this family, ipv4 or ipv6.
    #[arg(long, value_parser = family)]
    pub family: Option<Family>,
    /// Only sessions of clients in this network, such as 2001:db8::/32.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub client: Option<IpNet>,
}
