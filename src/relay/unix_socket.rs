//! Upstreams that listen on a Unix socket of this host.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use tokio::net::UnixStream;
use tokio::time::timeout;

use super::health::HealthTable;
use super::settings::UpstreamSettings;
use super::target::UpstreamSocket;
use crate::addr::Family;
use crate::engine::{AttemptOutcome, Event, UpstreamFailure};

/// Stands for a Unix socket where an address is needed: it is on this host.
pub(super) const ADDRESS_OF_SOCKETS: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 25));

/// Connects for a client of `family`; `report` receives the outcome.
///
/// # Errors
/// The socket does not accept the connection, with the reason and the remedy.
pub(super) async fn connect(
    socket: &UpstreamSocket,
    settings: &UpstreamSettings,
    health: &HealthTable,
    family: Family,
    mut report: impl FnMut(Event),
) -> Result<UnixStream, UpstreamFailure> {
    let connecting = timeout(settings.connect_timeout, UnixStream::connect(&socket.path));
    let (outcome, detail) = match connecting.await {
        Ok(Ok(stream)) => {
            health.record_success(socket);
            report(Event::Attempt { family, outcome: AttemptOutcome::Connected });
            return Ok(stream);
        }
        Ok(Err(error)) => (outcome_of(&error), describe_socket_failure(&socket.path, &error)),
        Err(_elapsed) => (AttemptOutcome::Timeout, "no response".to_owned()),
    };
    report(Event::Attempt { family, outcome });
    let is_local = outcome == AttemptOutcome::Resources;
    if !is_local {
        health.record_failure(socket, outcome, settings.retry_after);
    }
    Err(UpstreamFailure { detail: format!("{socket}: {detail}"), is_local })
}

/// The outcome of a connection to a Unix socket that failed with `error`.
pub(super) fn outcome_of(error: &io::Error) -> AttemptOutcome {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => AttemptOutcome::Refused,
        io::ErrorKind::NotFound => AttemptOutcome::Unreachable,
        // The listener's backlog is full (unix(7)).
        io::ErrorKind::WouldBlock => AttemptOutcome::Timeout,
        _ if super::upstream::is_lack_of_resources(error) => AttemptOutcome::Resources,
        _ => AttemptOutcome::Error,
    }
}

/// Why a connection to the Unix socket at `path` failed with `error`, and the remedy.
pub fn describe_socket_failure(path: &Path, error: &io::Error) -> String {
    let is_socket = std::fs::metadata(path).is_ok_and(|file| file.file_type().is_socket());
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket; start the MTA, or correct the path".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; let the gateway's account into each directory of the path and write to the socket (Postfix: a \
             service with private = n, in public/, and the group postdrop)"
                .to_owned()
        }
        io::ErrorKind::ConnectionRefused if !is_socket => {
            "this file is not a socket; write the path of the socket on which the MTA listens".to_owned()
        }
        io::ErrorKind::ConnectionRefused => {
            "connection refused, no program listens on the socket; start the MTA".to_owned()
        }
        io::ErrorKind::WouldBlock => "the MTA does not accept connections, and its queue is full".to_owned(),
        _ => super::upstream::describe(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn each_failure_has_its_sentence() {
        let folder = std::env::temp_dir().join(format!("gatepost-sockets-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (none, file, left) = (folder.join("none"), folder.join("file"), folder.join("left"));
        std::fs::write(&file, "").unwrap();
        drop(UnixListener::bind(&left).unwrap());
        for (path, outcome, sentence) in [
            (&none, AttemptOutcome::Unreachable, "there is no such socket; "),
            (&file, AttemptOutcome::Refused, "this file is not a socket; "),
            (&left, AttemptOutcome::Refused, "connection refused, no program listens"),
        ] {
            let error = UnixStream::connect(path).unwrap_err();
            assert_eq!(outcome_of(&error), outcome, "{path:?}");
            let detail = describe_socket_failure(path, &error);
            assert!(detail.starts_with(sentence), "{path:?}: {detail}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(describe_socket_failure(&none, &denied).starts_with("permission denied; let the"));
    }
}
