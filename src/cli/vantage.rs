//! What `gatepost vantage` takes.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::value::{call_timeout, domain};
use crate::lookup::parse_server;
use crate::policy::facts::DomainName;

#[derive(Debug, Args)]
pub struct Vantage {
    // No link, as rustdoc would have it.
    #[arg(help = "Where the gateway asks, such as [::]:9626", long, value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
    /// A file with 64 hexadecimal digits (openssl rand -hex 32), the same as the gateway's.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Call the mail servers of this domain; repeatable, and no others are called.
    #[arg(long = "domain", value_name = "DOMAIN", required = true, value_parser = domain)]
    pub domains: Vec<DomainName>,
    #[arg(
        help = "Ask this DNS server, such as 192.0.2.53 or [2001:db8::53]:5353 [default: the system's]",
        long,
        value_name = "ADDR[:PORT]",
        value_parser = parse_server
    )]
    pub dns: Option<SocketAddr>,
    /// What to say in EHLO [default: the host's name].
    #[arg(long, value_name = "NAME", value_parser = hostname)]
    pub hostname: Option<String>,
    /// How long a call of one server may take; less than the gateway waits (`timeout` of its `[vantage]`), 1s to 1m.
    #[arg(long, value_name = "D", default_value = "8s", value_parser = call_timeout)]
    pub timeout: Duration,
    /// Refuse more.
    #[arg(long, value_name = "N", default_value = "60")]
    pub questions_per_minute: NonZeroU32,
}

fn hostname(text: &str) -> Result<String, String> {
    DomainName::parse(text)
        .map(|name| name.to_string())
        .ok_or_else(|| "write a name such as vantage.example.net".to_owned())
}
