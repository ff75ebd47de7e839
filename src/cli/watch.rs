//! Arguments of `gatepost watch`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use ipnet::IpNet;

use super::OutputFormat;
use super::value::network;
use crate::config::{WATCH_BUFFER, parse_size};

pub(super) const WATCH_PRIVILEGES: &str = "Requires root or these capabilities: CAP_BPF and CAP_NET_ADMIN for eBPF, CAP_NET_RAW for libpcap.";

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WatchArgs {
    #[command(subcommand)]
    pub command: Option<WatchCommand>,
    /// Interface to capture on; repeatable [default: every interface that is up and has a global address].
    #[arg(long = "interface", short, value_name = "IFACE")]
    pub interfaces: Vec<String>,
    /// Capture method.
    #[arg(long, value_enum, default_value_t, value_name = "SOURCE")]
    pub source: WatchSource,
    /// Additional SMTP port besides 25, 587 and 2525; repeatable.
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// Network on this side, besides this host's own addresses: connections from it count as outbound; repeatable.
    #[arg(long = "local", value_name = "NETWORK", value_parser = network)]
    pub local: Vec<IpNet>,
    /// Output format: a live view on a terminal, otherwise one line per session and a summary; or JSON with one session per
    /// line, as in `replay`.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
    /// Also write the packets to this pcapng file; with eBPF, without message content.
    #[arg(long, short, value_name = "FILE.pcapng")]
    pub write: Option<PathBuf>,
    /// Overwrite an existing file.
    #[arg(long, requires = "write")]
    pub force: bool,
    // As `help`, because rustdoc takes the brackets in a doc comment for a link.
    #[arg(
        help = "Address to serve /metrics, /healthz and /readyz on, such as [::1]:9625",
        long,
        value_name = "ADDR:PORT"
    )]
    pub metrics: Option<SocketAddr>,
    /// Size of the capture buffer of all interfaces together, 64K to 4G; a larger one loses fewer packets under load.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub buffer: usize,
    /// Stop after this many sessions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Stop after this time, such as 90s or 1h.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub enum WatchCommand {
    /// Remove the filters and memory that a killed gatepost left in the kernel, as is possible before Linux 6.6.
    Clean,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WatchSource {
    /// eBPF if kernel and privileges allow it, otherwise libpcap; reports which and why.
    #[default]
    Auto,
    /// eBPF; message content and TLS records stay in the kernel.
    Ebpf,
    /// libpcap; copies every packet whole.
    Pcap,
}

fn size(text: &str) -> Result<usize, String> {
    let bytes = parse_size(text).filter(|bytes| WATCH_BUFFER.contains(bytes));
    bytes.ok_or_else(|| "write a size in bytes from 64K to 4G, such as 256M".to_owned())
}
