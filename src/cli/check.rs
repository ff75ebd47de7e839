//! What `gatepost check` takes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value::{call_timeout, domain};
use crate::lookup::parse_server;
use crate::policy::facts::DomainName;

pub(super) const CHECK_EXIT: &str = "Exit status, by the worst that was found: 0 if all of it passes, 3 if there are warnings, 4 if \
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
