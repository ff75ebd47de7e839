//! Arguments of `gatepost canary`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::OutputFormat;
use super::network::NetworkArgs;
use super::value::{domain, mailbox};
use crate::canary::MarkPattern;
use crate::policy::facts::DomainName;

pub(super) const SEND_EXIT: &str = "Exit status: 0 if both messages were treated alike, 1 if one was treated worse, 2 if the \
    command cannot run, 4 if the outcome of one is unknown.";
pub(super) const RECEIVE_EXIT: &str = "As a pipe transport or the command of an alias it reads one message from standard input, \
    all of it. Exit status: 0 if its canary is reported, 67 (no such user) if it is no canary, so that its sender gets it \
    back, 75 (temporary failure) if a report cannot be stored now, so that the mail server tries again.";

#[derive(Debug, Subcommand)]
pub enum CanaryCommand {
    /// Send a pair of identical messages, one over each family, and compare what becomes of them.
    #[command(after_long_help = SEND_EXIT)]
    Send(Box<CanarySendArgs>),
    /// Report the canaries of a mailbox, and the marks of spam filters in them.
    #[command(after_long_help = RECEIVE_EXIT)]
    Receive(CanaryReceiveArgs),
}

const TIMEOUT: &str = "Time limit of each connection, each reply and each DNS query, 1s to 1m";

#[derive(Debug, Args)]
#[command(mut_arg("timeout", |arg| arg.required(false).default_value("30s").help(TIMEOUT)))]
pub struct CanarySendArgs {
    /// Mailbox to send to: one of your own that runs `gatepost canary receive`.
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    pub to: String,
    /// Sender, in envelope and header.
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    pub from: String,
    /// File with the key of the canaries: 64 hexadecimal digits (openssl rand -hex 32).
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    #[arg(
        help = "Server to send to, such as [2001:db8::25]:25; one for each family [default: the mail exchanges of the domain]",
        long = "server",
        value_name = "ADDR:PORT"
    )]
    pub servers: Vec<SocketAddr>,
    /// Direction, as seen from the site of the gateway.
    #[arg(long, value_enum, default_value_t, value_name = "DIRECTION")]
    pub direction: SendDirection,
    /// Directory with reports of `gatepost canary receive --reports` to wait for.
    #[arg(long, value_name = "DIR")]
    pub reports: Option<PathBuf>,
    /// Time to wait for the reports; then an accepted message counts as lost.
    #[arg(long, value_name = "DURATION", default_value = "5m", requires = "reports", value_parser = wait)]
    pub wait: Duration,
    /// EHLO name, also of the Message-ID [default: the host's name].
    #[arg(long, value_name = "NAME", value_parser = domain)]
    pub hostname: Option<DomainName>,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Output format: text, or one JSON object.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SendDirection {
    /// To the site of the gateway.
    #[default]
    Inbound,
    /// From it.
    Outbound,
}

#[derive(Debug, Args)]
pub struct CanaryReceiveArgs {
    /// File with the key of the canaries.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// The mailbox, as the canaries are addressed; a Message-ID that was copied to another address does not count.
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    pub to: String,
    /// Directory to write the reports to, in place of a running gateway.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "socket"])]
    pub reports: Option<PathBuf>,
    /// Configuration file of the running gateway; names its control socket.
    #[arg(long, short, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
    /// Control socket of the running gateway [default: /run/gatepost/control.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Maildir to watch until SIGINT or SIGTERM; repeatable. Its messages stay [default: one message on standard input].
    #[arg(long = "maildir", value_name = "DIR")]
    pub maildirs: Vec<PathBuf>,
    /// Maildir of junk to watch as well; repeatable. A canary in it counts as marked.
    #[arg(long = "junk", value_name = "DIR", requires = "maildirs")]
    pub junk: Vec<PathBuf>,
    /// Header field that marks spam beyond the built-in table, such as "X-Filter-Verdict: *junk*"; repeatable.
    #[arg(long = "mark", value_name = "HEADER: VALUE", value_parser = MarkPattern::parse)]
    pub marks: Vec<MarkPattern>,
}

fn wait(text: &str) -> Result<Duration, String> {
    let allowed = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    let parsed = humantime::parse_duration(text).ok().filter(|given| allowed.contains(given));
    parsed.ok_or_else(|| "write a duration from 1s to 1d, such as 5m".to_owned())
}
