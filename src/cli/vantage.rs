//! Arguments of `gatepost vantage`.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Args;

use super::network::NetworkArgs;
use super::value::{control, domain, mailbox};
use crate::policy::facts::DomainName;
use crate::readiness::Control;

const TIMEOUT: &str = "Time limit of one probe, 1s to 1m; keep it shorter than vantage.timeout in the gateway's configuration";

#[derive(Debug, Args)]
#[command(mut_arg("timeout", |arg| arg.required(false).default_value("8s").help(TIMEOUT)))]
pub struct VantageArgs {
    // As `help`, because rustdoc takes the brackets in a doc comment for a link.
    #[arg(
        help = "Address for the gateway's requests, such as [::]:9626",
        long,
        value_name = "ADDR:PORT"
    )]
    pub listen: SocketAddr,
    /// File with the shared key: 64 hexadecimal digits (openssl rand -hex 32), the same as the gateway's.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Domain whose mail servers may be probed; repeatable. No others are.
    #[arg(long = "domain", value_name = "DOMAIN", required = true, value_parser = domain)]
    pub domains: Vec<DomainName>,
    /// EHLO name of the probes [default: the host's name].
    #[arg(long, value_name = "NAME", value_parser = hostname)]
    pub hostname: Option<String>,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Requests accepted per minute.
    #[arg(long, value_name = "N", default_value = "60")]
    pub requests_per_minute: NonZeroU32,
    #[arg(
        help = "Address for Prometheus, such as [::1]:9627: /probe?target=DOMAIN checks one of the domains as `gatepost check` does",
        long,
        value_name = "ADDR:PORT"
    )]
    pub probe_listen: Option<SocketAddr>,
    /// Host known to answer on port 25, for the checks of --probe-listen as with `gatepost check`; repeatable.
    #[arg(long = "control", value_name = "HOST", value_parser = control, requires = "probe_listen")]
    pub controls: Vec<Control>,
    /// Sender of canaries, a mailbox of your own; with it the gateway may have pairs sent to mailboxes of the domains.
    #[arg(long, value_name = "ADDRESS", value_parser = mailbox)]
    pub canary_from: Option<String>,
    /// Directory with the reports of `gatepost canary receive --reports`, which the gateway may read: of a mailbox that it sends
    /// outbound canaries to.
    #[arg(long, value_name = "DIR")]
    pub canary_reports: Option<PathBuf>,
    /// Pairs of canaries sent in 24 hours at most.
    #[arg(long, value_name = "N", default_value = "100", requires = "canary_from")]
    pub canaries_per_day: NonZeroU32,
}

fn hostname(text: &str) -> Result<String, String> {
    DomainName::parse(text)
        .map(|name| name.to_string())
        .ok_or_else(|| "write a name such as vantage.example.net".to_owned())
}
