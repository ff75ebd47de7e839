//! Requests of a command to a running gateway.

use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::control;

/// Context of errors in parsing a gateway's response.
pub(super) const UNREADABLE: &str =
    "cannot parse the gateway's response; use the gatepost command of the gateway's version";

/// The control socket of `--socket`, of the configuration file, or the default one.
pub(super) fn socket(socket: Option<PathBuf>, config: Option<&Path>) -> anyhow::Result<PathBuf> {
    match (socket, config) {
        (Some(socket), _) => Ok(socket),
        (None, Some(config)) => Ok(Config::load(config)?.control.socket),
        (None, None) => Ok(PathBuf::from(control::DEFAULT_SOCKET)),
    }
}
