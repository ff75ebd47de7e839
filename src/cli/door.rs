//! Arguments of `gatepost door`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::OutputFormat;
use super::value::family;
use crate::addr::Family;

#[derive(Debug, Args)]
pub struct DoorArgs {
    /// Address family, ipv6 or ipv4 [default: show both].
    #[arg(value_parser = family, requires = "mode", value_name = "FAMILY")]
    pub family: Option<Family>,
    /// State to set.
    #[arg(value_enum, value_name = "STATE")]
    pub mode: Option<DoorMode>,
    /// Configuration file of the running gateway; names its control socket.
    #[arg(long, short, value_name = "FILE", conflicts_with = "socket")]
    pub config: Option<PathBuf>,
    /// Control socket of the running gateway [default: /run/gatepost/control.sock].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Output format: text, or a JSON list with one object per family.
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub format: OutputFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DoorMode {
    /// Keep the door open.
    Open,
    /// Keep the door closed.
    Close,
    /// Let probes and mail decide.
    Auto,
}
