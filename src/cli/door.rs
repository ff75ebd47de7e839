//! What `gatepost door` takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::value::family;
use crate::addr::Family;

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
