//! Arguments of `gatepost replay`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::OutputFormat;
use super::value::network;

pub(super) const REPLAY_EXIT: &str =
    "Exit status: 0 if every file was read to its end and no reply differed, 1 otherwise.";

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// pcap or pcapng files, optionally gzipped (.gz), each analyzed on its own; - for standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Output format: a summary by family, a table of sessions and the findings; or JSON with one session per line.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
    /// Print the full dialogue of one session, by its number in the table.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["target", "format"])]
    pub session: Option<u64>,
    /// Additional SMTP port besides 25, 587, 2525 and any port where a server greets; repeatable.
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<u16>,
    /// Own address or network, such as 192.0.2.0/24: also report what the traffic proves about the receive path and
    /// outbound mail; repeatable.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub local: Vec<IpNet>,
    /// Write the metrics of a gateway after this traffic to a file, in the Prometheus text format.
    #[arg(long, value_name = "FILE")]
    pub metrics_out: Option<PathBuf>,
    #[command(flatten)]
    pub policy: PolicyArgs,
    #[command(flatten)]
    pub reenact: ReenactArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Policy evaluation")]
pub struct PolicyArgs {
    /// Evaluate the policy of this configuration file, in shadow mode.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Zone file (RFC 1035) for DNS answers that the capture lacks.
    #[arg(long, value_name = "FILE", requires = "config")]
    pub zone: Option<PathBuf>,
    /// DNS server to query for answers that capture and zone file lack [default address: the system's].
    #[arg(long, value_name = "ADDR[:PORT]", num_args = 0..=1, requires = "config")]
    pub dns: Option<Option<String>>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Re-sending")]
pub struct ReenactArgs {
    /// Re-send each session to this server; give one for each family, or a name that has addresses of both.
    #[arg(long, value_name = "HOST:PORT")]
    pub target: Vec<String>,
    /// Serve the recorded upstream's replies on this address, for a gateway between client and upstream.
    #[arg(long, value_name = "ADDR:PORT", requires = "target")]
    pub serve_upstream: Option<SocketAddr>,
    /// Address family of the connection.
    #[arg(long, value_enum, default_value_t, requires = "target", value_name = "FAMILY")]
    pub family: ReenactFamily,
    /// Timing of each command.
    #[arg(long, value_enum, default_value_t, requires = "target", value_name = "PACE")]
    pub pace: ReenactPace,
    /// Start with a PROXY header that names the recorded client; the target must trust this host.
    #[arg(long, requires = "target")]
    pub proxy_header: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReenactFamily {
    /// The recorded family.
    #[default]
    Keep,
    Ipv4,
    Ipv6,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReenactPace {
    /// As soon as the replies arrive that the recorded client waited for.
    #[default]
    Reply,
    /// The same, with the recorded pauses.
    Recorded,
}
