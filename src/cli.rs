//! The command line. Layer 5: what was typed, nothing of what it means.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::addr::Family;

/// A transparent SMTP gateway for dual-stack mail.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, about, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Relay mail as a configuration file says, until SIGTERM; SIGHUP reads the file again.
    Run {
        /// The configuration file (TOML).
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Look at configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at or remove what transparent mode installed in the kernel.
    #[command(subcommand)]
    Intercept(InterceptCommand),
    /// Write sessions that pass a running gateway as pcapng, until SIGINT or SIGTERM.
    Record(Record),
    /// Show what gatepost does: an MTA, a DNS zone, the gateway and a handful of senders, all on loopback.
    Demo {
        /// Exit after the table: 0 if everything went as it claims.
        #[arg(long)]
        once: bool,
    },
}

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

fn family(text: &str) -> Result<Family, String> {
    let known = Family::ALL.into_iter().find(|family| family.as_str() == text);
    known.ok_or_else(|| "write ipv4 or ipv6".to_owned())
}

/// An address stands for itself alone.
fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    let network = text.parse().or_else(|_| address());
    network.map_err(|_no_address_either| {
        "write an address or a network such as 192.0.2.0/24 or 2001:db8::/32".to_owned()
    })
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Tell every mistake in a file, or that there is none.
    Check {
        /// The configuration file (TOML).
        file: PathBuf,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum InterceptCommand {
    /// Print gatepost's nftables table, routing rules and routes.
    Show,
    /// Remove all of them.
    Clean,
}
