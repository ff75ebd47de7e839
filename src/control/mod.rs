//! The control socket: how other `gatepost` commands on this host talk to a running gateway.
//!
//! Layer 4. A Unix socket that only its owner may use (mode 0600). A client sends one [`ControlRequest`] as a line of JSON and
//! reads one [`ControlResponse`] as a line of JSON; what follows an `ok` depends on the request. Knows nothing of what is asked:
//! `app` hands [`ControlListener::serve`] who does it.

mod client;
mod listener;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::addr::Family;
use crate::policy::door::OperatorMode;
use crate::recording::RecordingFilter;

pub use self::client::request;
pub use self::listener::{ControlConnection, ControlListener};

/// Where the socket is if nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/gatepost/control.sock";

/// `[control]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    pub socket: PathBuf,
    /// The file names it: then the gateway does not start without it.
    pub required: bool,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self { socket: Path::new(DEFAULT_SOCKET).to_owned(), required: false }
    }
}

/// What a gateway is asked: `{"record":{"family":"ipv6"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ControlRequest {
    /// Frames of sessions that begin from now on (see [`crate::recording`]), until the client hangs up.
    Record(RecordingFilter),
    /// How the doors are, as one line of JSON, a list of [`crate::policy::door::DoorReport`]; after doing what is asked.
    Door { change: Option<DoorChange> },
    /// What it has learnt, a line of JSON each; or how many of them it forgot.
    Cache(CacheRequest),
}

/// What an operator wants of a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorChange {
    pub family: Family,
    pub mode: OperatorMode,
}

/// Whether the kind or the subject of a lookup contains `pattern` is all that it says; null is all lookups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheRequest {
    Show { pattern: Option<String> },
    Purge { pattern: Option<String> },
}

/// What it answers: `"ok"` or `{"error":"…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlResponse {
    Ok,
    Error(String),
}

/// Why there is no talking to a gateway.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    #[error("cannot make the directory {}: {why}; make it, or set `[control] socket` to another path", path.display())]
    Directory { path: PathBuf, why: io::Error },
    #[error("cannot listen on {}: {why}; make its directory writable, or set `[control] socket` to another path", path.display())]
    Listen { path: PathBuf, why: io::Error },
    #[error("{} is the control socket of another running gateway; give this one a path of its own with `[control] socket`", path.display())]
    InUse { path: PathBuf },
    #[error("{} is there and is no socket; remove it, or set `[control] socket` to another path", path.display())]
    NoSocket { path: PathBuf },
    #[error("cannot reach a gateway at {}: {why}; {}", path.display(), connect_hint(why))]
    Connect { path: PathBuf, why: io::Error },
    #[error("the gateway hung up: {0}; its log may say why")]
    Lost(io::Error),
    #[error("the gateway's answer cannot be read ({0}): is it of this version?")]
    Answer(serde_json::Error),
    #[error("the gateway refuses: {0}")]
    Refused(String),
}

fn connect_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run as the gateway's user",
        io::ErrorKind::NotFound => {
            "is `gatepost run` running? Name its socket with --socket, or its file with --config"
        }
        _ => "is `gatepost run` running?",
    }
}
