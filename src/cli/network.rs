//! Arguments of the commands that query the DNS and connect to mail servers.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use super::value::call_timeout;
use crate::lookup::parse_server;

/// Each command sets the default and the help of `timeout`.
#[derive(Clone, Debug, Args)]
pub struct NetworkArgs {
    // As `help`, because rustdoc takes the brackets in a doc comment for a link.
    #[arg(
        help = "DNS server, such as 192.0.2.53 or [2001:db8::53]:5353 [default: the system's]",
        long,
        value_name = "ADDR[:PORT]",
        value_parser = parse_server
    )]
    pub dns: Option<SocketAddr>,
    #[arg(long, value_name = "DURATION", value_parser = call_timeout)]
    pub timeout: Duration,
}
