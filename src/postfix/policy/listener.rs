//! The socket that Postfix connects to.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use super::settings::PolicyAddress;

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
    Unix { listener: UnixListener, _file: SocketFile },
    Inet(TcpListener),
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Postfix's folder `private` is closed to an account other than root and postfix.
        let _already_removed = fs::remove_file(&self.0);
    }
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
            PolicyAddress::Unix(path) => {
                prepare(path)?;
                let listener = UnixListener::bind(path).map_err(|why| match why.kind() {
                    io::ErrorKind::PermissionDenied => {
                        PolicyListenerError::Permission { path: path.clone() }
                    }
                    _ => failed(why),
                })?;
                let file = SocketFile(path.clone());
                // As Postfix's own sockets: the directory decides who may connect, and smtpd(8) is the user postfix.
                fs::set_permissions(path, Permissions::from_mode(0o666)).map_err(failed)?;
                ListeningSocket::Unix { listener, _file: file }
            }
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
            ListeningSocket::Unix { .. } => self.address.clone(),
        }
    }

    /// # Errors
    /// The process lacks descriptors or memory; the connection waits in the kernel.
    pub(super) async fn accept(&self) -> io::Result<Box<dyn PolicyStream>> {
        match &self.socket {
            ListeningSocket::Unix { listener, .. } => Ok(Box::new(listener.accept().await?.0)),
            ListeningSocket::Inet(listener) => {
                let (stream, _): (_, SocketAddr) = listener.accept().await?;
                // Replies are small and awaited.
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// Removes the socket of a gateway that was killed.
fn prepare(path: &Path) -> Result<(), PolicyListenerError> {
    let own = || path.to_owned();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(PolicyListenerError::NotASocket { path: own() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(PolicyListenerError::Permission { path: own() });
        }
        Err(_) => {
            let directory = path.parent().unwrap_or(Path::new("/"));
            return match directory.is_dir() {
                true => Ok(()),
                false => Err(PolicyListenerError::NoDirectory { path: directory.to_owned() }),
            };
        }
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(PolicyListenerError::InUse { path: own() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|why| match why.kind() {
                io::ErrorKind::PermissionDenied => PolicyListenerError::Permission { path: own() },
                _ => PolicyListenerError::Listen { address: PolicyAddress::Unix(own()), why },
            }),
        // A full backlog: something listens.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(PolicyListenerError::InUse { path: own() })
        }
        Err(why) => Err(PolicyListenerError::Listen { address: PolicyAddress::Unix(own()), why }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let name = format!("gatepost-policy-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[tokio::test]
    async fn only_a_stale_socket_is_replaced() {
        let folder = folder("stale");
        let path = folder.join("policy");
        let address = PolicyAddress::Unix(path.clone());
        let first = PolicyListener::bind(&address).await.unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        let error = PolicyListener::bind(&address).await.unwrap_err();
        assert!(matches!(error, PolicyListenerError::InUse { .. }), "{error}");
        drop(first);
        assert!(!path.exists());
        // As after a kill: the file stays without a listener.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        drop(PolicyListener::bind(&address).await.unwrap());

        fs::write(&path, "no socket").unwrap();
        let error = PolicyListener::bind(&address).await.unwrap_err();
        assert!(matches!(error, PolicyListenerError::NotASocket { .. }), "{error}");
        fs::remove_dir_all(&folder).unwrap();
        let error = PolicyListener::bind(&address).await.unwrap_err().to_string();
        assert!(error.starts_with("[postfix] policy: there is no directory /"), "{error}");
    }
}
