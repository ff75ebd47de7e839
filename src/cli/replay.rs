//! What `gatepost replay` takes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::value::network;

pub(super) const REPLAY_EXIT: &str =
    "Exit status: 0 if every file was read to its end and no answer differed, 1 otherwise.";

#[derive(Debug, Args)]
pub struct Replay {
    /// pcap or pcapng, also as .gz; - is standard input. Each file is read by itself.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub format: ReplayFormat,
    /// Print the whole dialogue of this session, by its number in the table.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["against", "format"])]
    pub session: Option<u64>,
    /// Look for SMTP on this port too, besides 25, 587 and 2525 and wherever a server greets; repeatable.
    #[arg(long = "port", value_name = "PORT")]
    pub ports: Vec<u16>,
    /// This address or network is ours, such as 192.0.2.0/24: tell also what the traffic proves of the ways to us and from
    /// us; repeatable.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    pub local: Vec<IpNet>,
    /// Write what a gateway's /metrics would show after this traffic, as Prometheus text.
    #[arg(long, value_name = "FILE")]
    pub metrics_out: Option<PathBuf>,
    #[command(flatten)]
    pub judge: Judge,
    #[command(flatten)]
    pub act: Act,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ReplayFormat {
    /// A summary by family, a table of sessions, and what is odd.
    #[default]
    Text,
    /// One object a line, one line a session.
    Json,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "What the policy would say")]
pub struct Judge {
    /// Apply the policy of this configuration file, in shadow.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the capture holds no DNS answer, take it from this master file.
    #[arg(long, value_name = "FILE", requires = "config")]
    pub zone: Option<PathBuf>,
    /// Where neither does, ask this DNS server now; without an address the system's.
    #[arg(long, value_name = "ADDR[:PORT]", num_args = 0..=1, requires = "config")]
    pub dns: Option<Option<String>>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Saying it again")]
pub struct Act {
    /// Say each captured session again to this server; once for each family, or a name that has both.
    #[arg(long, value_name = "HOST:PORT")]
    pub against: Vec<String>,
    /// Play the recorded server here, for a gateway whose upstream this address is.
    #[arg(long, value_name = "ADDR:PORT", requires = "against")]
    pub act_upstream: Option<SocketAddr>,
    /// Which family to connect over.
    #[arg(long, value_enum, default_value_t, requires = "against", value_name = "FAMILY")]
    pub family: ActFamily,
    /// When to speak.
    #[arg(long, value_enum, default_value_t, requires = "against", value_name = "PACE")]
    pub pace: ActPace,
    /// Begin with a PROXY header that names the recorded client; the gateway must trust this host for it.
    #[arg(long, requires = "against")]
    pub as_client: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ActFamily {
    /// The recorded one.
    #[default]
    Keep,
    Ipv4,
    Ipv6,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ActPace {
    /// As soon as the replies are there that the recorded client had waited for.
    #[default]
    Reply,
    /// With the recorded pauses too.
    Recorded,
}
