//! Arguments of `gatepost outbound`.

use std::path::PathBuf;

use clap::Args;

use super::OutputFormat;
use super::value::domain;
use crate::policy::facts::DomainName;

#[derive(Debug, Args)]
pub struct OutboundArgs {
    /// Host or recipient domain, with all below it; shows each address and the latest replies [default: all hosts].
    #[arg(value_parser = domain, value_name = "HOST|DOMAIN")]
    pub name: Option<DomainName>,
    /// Configuration file of the running gateway; names its control socket.
    #[arg(long, short, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
    /// Control socket of the running gateway [default: /run/gatepost/control.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Mail log to evaluate without a gateway, or - for standard input. Its latest attempt is taken as the present.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "socket"])]
    pub mail_log: Option<PathBuf>,
    /// Output format: text, or one JSON object.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
}
