//! Arguments of `gatepost check`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::OutputFormat;
use super::network::NetworkArgs;
use super::value::domain;
use crate::policy::facts::DomainName;

pub(super) const CHECK_EXIT: &str = "Exit status, by the worst finding: 0 if every check passes, 3 for warnings, 4 if a check \
    cannot be completed, 1 if a check fails or the command cannot run.";

const TIMEOUT: &str = "Time limit of each connection and each DNS query, 1s to 1m; the whole check takes at most three times as long";

#[derive(Debug, Args)]
#[command(mut_arg("timeout", |arg| arg.required(false).default_value("10s").help(TIMEOUT)))]
pub struct CheckArgs {
    /// Mail domain, the part after the @.
    #[arg(value_parser = domain)]
    pub domain: DomainName,
    /// Source address of the domain's outbound mail; repeatable [default: this host's global addresses].
    #[arg(long, value_name = "ADDR")]
    pub from: Vec<IpAddr>,
    /// HELO name of the domain's senders, also used by this check [default: from --postfix, otherwise not checked].
    #[arg(long, value_name = "NAME", value_parser = domain)]
    pub helo: Option<DomainName>,
    /// DKIM selector to check; repeatable.
    #[arg(long = "selector", value_name = "NAME")]
    pub selectors: Vec<String>,
    /// Also check this host's Postfix with postconf(1) and print the commands that fix it; changes nothing.
    #[arg(long)]
    pub postfix: bool,
    /// Directory of main.cf [default: postconf(1)'s own].
    #[arg(long, value_name = "DIR", requires = "postfix")]
    pub postfix_config: Option<PathBuf>,
    /// Configuration file of the gateway: Postfix must ask the policy service of its `[postfix]` section.
    #[arg(long, short, value_name = "FILE", requires = "postfix")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Output format: text grouped by area with the worst finding first, or one JSON object.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
}
