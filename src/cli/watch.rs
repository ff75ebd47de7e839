//! What `gatepost watch` takes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use ipnet::IpNet;

use super::value::network;
use crate::config::{WATCH_BUFFER, octets};

pub(super) const WATCH_RIGHTS: &str = "It needs root, or these capabilities: CAP_BPF and CAP_NET_ADMIN for eBPF, CAP_NET_RAW for libpcap.";

#[derive(Debug, Args)]
pub struct Watch {
    /// Watch this interface; repeatable [default: every one that is up and has a global address].
    #[arg(long = "interface", short, value_name = "IFACE")]
    pub interfaces: Vec<String>,
    /// Who captures.
    #[arg(long, value_enum, default_value_t, value_name = "SOURCE")]
    pub source: WatchSource,
    /// Look for SMTP on this port too, besides 25, 587 and 2525; repeatable.
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub ports: Vec<u16>,
    /// Hosts of this network are on this side too, besides this host's own addresses: what they open goes out;
    /// repeatable.
    #[arg(long = "local", value_name = "NETWORK", value_parser = network)]
    pub local: Vec<IpNet>,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub format: WatchFormat,
    /// Also write the packets to this pcapng file; of eBPF, without the content of messages.
    #[arg(long, short, value_name = "FILE.pcapng")]
    pub write: Option<PathBuf>,
    /// Overwrite the file if it is there.
    #[arg(long, requires = "write")]
    pub force: bool,
    // No link, as rustdoc would have it.
    #[arg(
        help = "Serve /metrics, /healthz and /readyz there, such as [::1]:9625",
        long,
        value_name = "ADDR:PORT"
    )]
    pub metrics: Option<SocketAddr>,
    /// Octets that may wait in the kernel, such as 256M; more of them lose less under load.
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = size)]
    pub buffer: usize,
    /// End after so many sessions.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// End after that time, such as 90s or 1h.
    #[arg(long, value_name = "D", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WatchSource {
    /// eBPF where the kernel and the rights allow it, else libpcap; it says which and why.
    #[default]
    Auto,
    /// eBPF: what is content of messages or under TLS stays in the kernel.
    Ebpf,
    /// libpcap: every packet is copied whole.
    Pcap,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WatchFormat {
    /// On a terminal a live view, else a line a session and a summary at the end.
    #[default]
    Text,
    /// One object a line, one line a session, as `replay` has it.
    Json,
}

fn size(text: &str) -> Result<usize, String> {
    let octets = octets(text).filter(|octets| WATCH_BUFFER.contains(octets));
    octets.ok_or_else(|| "write octets from 64K to 4G, such as 256M".to_owned())
}
