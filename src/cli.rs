//! The command line. Layer 5: what was typed, nothing of what it means.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::addr::Family;
use crate::config::{WATCH_BUFFER, octets};
use crate::policy::facts::DomainName;
use crate::reach::parse_server;

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
    /// Show the SMTP that passes this host's interfaces, without touching it, until SIGINT or SIGTERM.
    #[command(after_long_help = WATCH_RIGHTS)]
    Watch(Box<Watch>),
    /// Write sessions that pass a running gateway as pcapng, until SIGINT or SIGTERM.
    Record(Record),
    /// Read captures and tell what happened on each SMTP session, what a policy would say of it, or say it again.
    #[command(after_long_help = REPLAY_EXIT)]
    Replay(Box<Replay>),
    /// Tell whether a domain's mail is ready for IPv6, seen from this host, and what to do where it is not.
    #[command(after_long_help = CHECK_EXIT)]
    Check(Box<Check>),
    /// Look at configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at or remove what transparent mode installed in the kernel.
    #[command(subcommand)]
    Intercept(InterceptCommand),
    /// Tell of each family whether new sessions of it are let in and why, or open or close its door.
    Door(Door),
    /// Look at or forget what a gateway has learnt of others.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Call mail servers for a gateway on another network that asks whether it can be reached, until SIGINT or SIGTERM.
    Vantage(Vantage),
    /// Print what a shell completes gatepost's commands by.
    Completions {
        /// bash, zsh or fish, for instance.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command, to a directory.
    Man {
        /// It must be there.
        directory: PathBuf,
    },
    /// Look at what is counted.
    #[command(subcommand)]
    Metrics(MetricsCommand),
    /// Show what gatepost does: an MTA, a DNS zone, the gateway and a handful of senders, all on loopback.
    Demo {
        /// Exit after the table: 0 if everything went as it claims.
        #[arg(long)]
        once: bool,
    },
}

const WATCH_RIGHTS: &str = "It needs root, or these capabilities: CAP_BPF and CAP_NET_ADMIN for eBPF, CAP_NET_RAW for libpcap.";

#[derive(Debug, Subcommand)]
pub enum MetricsCommand {
    /// Print the name, type, labels and meaning of every metric.
    List {
        /// Only those with this in their name, such as door.
        #[arg(value_name = "PART")]
        part: Option<String>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        format: ListFormat,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For reading in a terminal.
    #[default]
    Text,
    /// One array of objects.
    Json,
    /// The table of docs/metrics.md.
    Markdown,
}

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

#[derive(Debug, Args)]
pub struct Door {
    /// ipv6 or ipv4; without it both are told.
    #[arg(value_parser = family, requires = "mode", value_name = "FAMILY")]
    pub family: Option<Family>,
    /// What to do with it; auto: as the signs say.
    #[arg(value_enum, value_name = "WHAT")]
    pub mode: Option<DoorMode>,
    /// The running gateway's configuration file, for its control socket.
    #[arg(long, short, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
    /// The running gateway's control socket [default: /run/gatepost/control.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub format: DoorFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DoorMode {
    Open,
    Close,
    Auto,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum DoorFormat {
    #[default]
    Text,
    /// A list with an object for each family.
    Json,
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

#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Print it, the last to expire first.
    Show {
        #[command(flatten)]
        args: CacheArgs,
        /// How to tell it.
        #[arg(long, value_enum, default_value_t, value_name = "FORM")]
        format: CacheFormat,
    },
    /// Forget it, also in the file and where gateways share it.
    Purge {
        #[command(flatten)]
        args: CacheArgs,
    },
}

#[derive(Debug, Args)]
pub struct CacheArgs {
    /// Only what has this in the columns KIND and ABOUT, such as `greet`, `example.org` or 2001:db8:: [default: all].
    pub pattern: Option<String>,
    /// The gateway's configuration file, for its control socket and, while it does not run, its file of answers.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The running gateway's control socket [default: /run/gatepost/control.sock].
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CacheFormat {
    /// A table.
    #[default]
    Text,
    /// One object a line.
    Json,
}

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

fn call_timeout(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(60);
    let parsed = humantime::parse_duration(text).ok().filter(|given| allowed.contains(given));
    parsed.ok_or_else(|| "write a time from 1s to 1m such as 8s".to_owned())
}

fn domain(text: &str) -> Result<DomainName, String> {
    DomainName::parse(text).ok_or_else(|| "write a domain such as example.org".to_owned())
}

fn hostname(text: &str) -> Result<String, String> {
    DomainName::parse(text)
        .map(|name| name.to_string())
        .ok_or_else(|| "write a name such as vantage.example.net".to_owned())
}

const CHECK_EXIT: &str = "Exit status, by the worst that was found: 0 if all of it passes, 3 if there are warnings, 4 if \
    something cannot be learnt, 1 if something fails or the check cannot be made.";

#[derive(Debug, Args)]
pub struct Check {
    /// The domain after the @ of its mail addresses.
    #[arg(value_parser = domain)]
    pub domain: DomainName,
    /// Mail of the domain is sent from this address; repeatable [default: this host's global addresses].
    #[arg(long, value_name = "ADDR")]
    pub from: Vec<IpAddr>,
    /// What its senders say in EHLO; this check says it too [default: as --postfix has it, else not judged].
    #[arg(long, value_name = "NAME", value_parser = domain)]
    pub helo: Option<DomainName>,
    /// Look at the DKIM key of this selector; repeatable.
    #[arg(long = "selector", value_name = "NAME")]
    pub selectors: Vec<String>,
    /// Look at this host's Postfix too, by postconf(1), and print the lines that set it right; nothing is changed.
    #[arg(long)]
    pub postfix: bool,
    /// Where its main.cf is, if not where postconf(1) looks by itself.
    #[arg(long, value_name = "DIR", requires = "postfix")]
    pub postfix_config: Option<PathBuf>,
    #[arg(
        help = "Ask this DNS server, such as 192.0.2.53 or [2001:db8::53]:5353 [default: the system's]",
        long,
        value_name = "ADDR[:PORT]",
        value_parser = parse_server
    )]
    pub dns: Option<SocketAddr>,
    /// How long a connection, or the answer to a question, may take, 1s to 1m; all of it takes three times that at most.
    #[arg(long, value_name = "D", default_value = "10s", value_parser = call_timeout)]
    pub timeout: Duration,
    /// How to tell it.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub format: CheckFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// By portions of the way, the worst of each first.
    #[default]
    Text,
    /// One object.
    Json,
}

const REPLAY_EXIT: &str =
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
