//! Errors of both ends.

use std::io;
use std::path::PathBuf;

use crate::unix_listener::UnixListenerError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    #[error(transparent)]
    Socket(#[from] UnixListenerError),
    #[error("cannot connect to a gateway at {}: {why}; {}", path.display(), connect_hint(why))]
    Connect { path: PathBuf, why: io::Error },
    #[error("the gateway closed the connection: {0}; see its log")]
    Lost(io::Error),
    #[error("cannot parse the gateway's response ({0}): is it of this version?")]
    Response(serde_json::Error),
    #[error("the gateway refuses the request: {0}")]
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
