//! The socket that Postfix connects to.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

use super::settings::PolicyAddress;
use crate::unix_listener::{OwnedUnixListener, UnixListenerError, UnixListenerOptions};

/// As Postfix's own sockets: the directory decides who may connect, and smtpd(8) is the user postfix. The directory is
/// Postfix's as well.
const SOCKET: UnixListenerOptions = UnixListenerOptions {
    mode: 0o666,
    backlog: 1024,
    setting: "[postfix] policy",
    creates_directory: false,
};

/// Why there is no socket for Postfix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyListenerError {
    #[error("[postfix] policy: there is no directory {}; create it, or correct the path (Postfix's queue_directory: `postconf queue_directory`)", path.display())]
    NoDirectory { path: PathBuf },
    #[error("[postfix] policy: {} is not a socket; remove the file, or write another path", path.display())]
    NotASocket { path: PathBuf },
    #[error("[postfix] policy: another program listens on {}, perhaps a second gateway: `ss -xlp` shows which; stop it, or write another path", path.display())]
    InUse { path: PathBuf },
    #[error("[postfix] policy: cannot create {}: permission denied; start the gateway as root (`[process] user` gives root up afterwards), or write a path in a directory of the gateway's account", path.display())]
    Permission { path: PathBuf },
    #[error("[postfix] policy: cannot listen on {address}: {why}; change `[postfix] policy`")]
    Listen { address: PolicyAddress, why: io::Error },
}

/// A Unix socket is removed on drop, where the gateway may; otherwise the next start replaces it.
#[derive(Debug)]
pub struct PolicyListener {
    socket: ListeningSocket,
    address: PolicyAddress,
}

#[derive(Debug)]
enum ListeningSocket {
    Unix(OwnedUnixListener),
    Inet(TcpListener),
}

/// A connection of either kind.
pub(super) trait PolicyStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> PolicyStream for T {}

impl PolicyListener {
    /// Creates the socket. That of a gateway that was killed is replaced.
    ///
    /// # Errors
    /// The address cannot be used, or another program uses it.
    pub async fn bind(address: &PolicyAddress) -> Result<Self, PolicyListenerError> {
        let failed = |why| PolicyListenerError::Listen { address: address.clone(), why };
        let socket = match address {
            PolicyAddress::Inet(inet) => {
                ListeningSocket::Inet(TcpListener::bind(inet).await.map_err(failed)?)
            }
            PolicyAddress::Unix(path) => ListeningSocket::Unix(
                OwnedUnixListener::bind(path, SOCKET).map_err(|error| explain(error, address))?,
            ),
        };
        Ok(Self { socket, address: address.clone() })
    }

    /// With the port that the kernel chose, if the configuration has port 0.
    pub fn address(&self) -> PolicyAddress {
        let bound = |listener: &TcpListener| listener.local_addr().ok();
        match &self.socket {
            ListeningSocket::Inet(listener) => {
                bound(listener).map_or_else(|| self.address.clone(), PolicyAddress::Inet)
            }
            ListeningSocket::Unix(_) => self.address.clone(),
        }
    }

    /// # Errors
    /// The process lacks descriptors or memory; the connection waits in the kernel.
    pub(super) async fn accept(&self) -> io::Result<Box<dyn PolicyStream>> {
        match &self.socket {
            ListeningSocket::Unix(listener) => Ok(Box::new(listener.accept().await?)),
            ListeningSocket::Inet(listener) => {
                let (stream, _): (_, SocketAddr) = listener.accept().await?;
                // Replies are small and awaited.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

fn explain(error: UnixListenerError, address: &PolicyAddress) -> PolicyListenerError {
    match error {
        UnixListenerError::NotASocket { path, .. } => PolicyListenerError::NotASocket { path },
        UnixListenerError::InUse { path, .. } => PolicyListenerError::InUse { path },
        UnixListenerError::Listen { path, why, .. }
            if why.kind() == ErrorKind::PermissionDenied =>
        {
            PolicyListenerError::Permission { path }
        }
        UnixListenerError::Listen { path, why, .. }
        | UnixListenerError::Directory { path, why, .. } => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            match directory.is_dir() {
                true => PolicyListenerError::Listen { address: address.clone(), why },
                false => PolicyListenerError::NoDirectory { path: directory.to_owned() },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let name = format!("gatepost-policy-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[tokio::test]
    async fn each_failure_of_the_socket_has_its_sentence() {
        let folder = folder("failures");
        let path = folder.join("policy");
        let address = PolicyAddress::Unix(path.clone());
        let first = PolicyListener::bind(&address).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        let error = PolicyListener::bind(&address).await.unwrap_err();
        assert!(matches!(error, PolicyListenerError::InUse { .. }), "{error}");
        drop(first);
        fs::write(&path, "no socket").unwrap();
        let error = PolicyListener::bind(&address).await.unwrap_err();
        assert!(matches!(error, PolicyListenerError::NotASocket { .. }), "{error}");
        fs::remove_dir_all(&folder).unwrap();
        let error = PolicyListener::bind(&address).await.unwrap_err().to_string();
        assert!(error.starts_with("[postfix] policy: there is no directory /"), "{error}");
    }
}
