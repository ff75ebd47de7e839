//! Errors of both ends.

use std::io;
use std::path::PathBuf;

use crate::unix_listener::UnixListenerError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    #[error("cannot create the directory {}: {why}; create it, or set `[control] socket` to another path", path.display())]
    Directory { path: PathBuf, why: io::Error },
    #[error("cannot listen on {}: {why}; make its directory writable, or set `[control] socket` to another path", path.display())]
    Listen { path: PathBuf, why: io::Error },
    #[error("{} is the control socket of another running gateway; give this one its own path with `[control] socket`", path.display())]
    InUse { path: PathBuf },
    #[error("{} exists and is not a socket; remove it, or set `[control] socket` to another path", path.display())]
    NotASocket { path: PathBuf },
    #[error("cannot connect to a gateway at {}: {why}; {}", path.display(), connect_hint(why))]
    Connect { path: PathBuf, why: io::Error },
    #[error("the gateway closed the connection: {0}; see its log")]
    Lost(io::Error),
    #[error("cannot parse the gateway's response ({0}): is it of this version?")]
    Response(serde_json::Error),
    #[error("the gateway refuses the request: {0}")]
    Refused(String),
}

impl From<UnixListenerError> for ControlError {
    fn from(error: UnixListenerError) -> Self {
        match error {
            UnixListenerError::Directory { path, why } => Self::Directory { path, why },
            UnixListenerError::NotASocket { path } => Self::NotASocket { path },
            UnixListenerError::InUse { path } => Self::InUse { path },
            UnixListenerError::Listen { path, why } => Self::Listen { path, why },
        }
    }
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
