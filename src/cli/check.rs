//! Arguments of `gatepost check`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::Args;

use super::OutputFormat;
use super::network::NetworkArgs;
use super::value::{control, domain};
use crate::policy::facts::DomainName;
use crate::readiness::{CheckName, CheckStatus, Control};

pub(super) const CHECK_EXIT: &str = "Exit status, by the worst finding: 0 if every check passes, 3 for warnings, 4 if a check \
    cannot be completed, 1 if a check fails. 2 if the command cannot run.";

const TIMEOUT: &str = "Time limit of each connection and each DNS query, 1s to 1m; greetings have twice as long, the whole check three times";

fn check_name(text: &str) -> Result<CheckName, String> {
    CheckName::ALL.into_iter().find(|check| check.as_str() == text).ok_or_else(|| {
        let names: Vec<&str> = CheckName::ALL.iter().map(|check| check.as_str()).collect();
        let near = names.iter().max_by(|one, other| {
            strsim::jaro_winkler(one, text).total_cmp(&strsim::jaro_winkler(other, text))
        });
        format!("no check has this name; did you mean {}?", near.copied().unwrap_or_default())
    })
}

fn level(text: &str) -> Result<CheckStatus, String> {
    let levels = [CheckStatus::Warn, CheckStatus::Unknown, CheckStatus::Fail];
    let found = levels.into_iter().find(|level| level.as_str() == text);
    found.ok_or_else(|| "write warn, unknown or fail".to_owned())
}

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
    /// DNS zone of a blocklist on which the sending addresses are looked up, such as zen.spamhaus.org; repeatable.
    #[arg(long = "dnsbl", value_name = "ZONE", value_parser = domain)]
    pub dnsbls: Vec<DomainName>,
    /// Also check this host's Postfix with postconf(1) and print the commands that fix it; changes nothing.
    #[arg(long)]
    pub postfix: bool,
    /// Directory of main.cf [default: postconf(1)'s own].
    #[arg(long, value_name = "DIR", requires = "postfix")]
    pub postfix_config: Option<PathBuf>,
    /// Configuration file of this host's gateway, whose closed doors are named; with --postfix also whether Postfix asks the policy
    /// service of its `[postfix]` section.
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Host known to answer on port 25, by which the check tells a filter of this host's network from one at the domain, for each
    /// family of its addresses; repeatable. It sees a connection that leaves after its greeting.
    #[arg(long = "control", value_name = "HOST", value_parser = control)]
    pub controls: Vec<Control>,
    // As `help`, because rustdoc takes the brackets in a doc comment for a link.
    #[arg(
        help = "Address of a gatepost vantage elsewhere, such as [2001:db8::9]:9626, that looks from outside",
        long,
        value_name = "ADDR:PORT",
        requires = "vantage_key"
    )]
    pub vantage: Option<SocketAddr>,
    /// File with the key of the vantage.
    #[arg(long, value_name = "FILE", requires = "vantage")]
    pub vantage_key: Option<PathBuf>,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Also print what passes.
    #[arg(long)]
    pub all: bool,
    /// Check whose findings count for nothing, by its name in the JSON form, such as mx_ipv4; repeatable.
    #[arg(long, value_name = "CHECK", value_parser = check_name)]
    pub ignore: Vec<CheckName>,
    /// Exit with 0 unless a finding is at least as bad: warn, unknown or fail.
    #[arg(long, value_name = "OUTCOME", default_value = "warn", value_parser = level)]
    pub fail_on: CheckStatus,
    /// Output format: text grouped by area with the worst finding first, or one JSON object.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
}
