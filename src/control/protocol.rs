//! Settings, requests and responses.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::addr::Family;
use crate::canary::CanaryReport;
use crate::policy::door::OperatorMode;
use crate::recording::RecordingFilter;

/// Default path of the socket.
pub const DEFAULT_SOCKET: &str = "/run/gatepost/control.sock";

/// `[control]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSettings {
    pub socket: PathBuf,
    /// Whether the configuration names the socket: then the gateway does not start without it.
    pub required: bool,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self { socket: Path::new(DEFAULT_SOCKET).to_owned(), required: false }
    }
}

/// As JSON: `{"record":{"family":"ipv6"}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ControlRequest {
    /// Requests the frames of sessions that begin from now on (see [`crate::recording`]), until the client disconnects.
    Record(RecordingFilter),
    /// Applies the change, if there is one. Requests the state of the doors: one line of JSON, a list of
    /// [`crate::policy::door::DoorReport`].
    Door { change: Option<DoorChange> },
    /// Requests what is known of a host, of the hosts of a recipient domain, or of all: one line of JSON, an
    /// [`crate::outbound::OutboundReport`].
    Outbound { name: Option<String> },
    /// Requests the queue ids of messages that should be returned to their senders: one line of JSON, a list.
    MessagesToReturn,
    /// Reports a canary that a mailbox received.
    Canary(CanaryReport),
    /// Requests cached answers, one line of JSON each; or the number of purged ones.
    Cache(CacheRequest),
}

/// An operator's change of a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorChange {
    pub family: Family,
    pub mode: OperatorMode,
}

/// Selects the lookups whose kind or subject contains `pattern`; null selects all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheRequest {
    Show { pattern: Option<String> },
    Purge { pattern: Option<String> },
}

/// As JSON: `"ok"` or `{"error":"…"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlResponse {
    Ok,
    Error(String),
}
