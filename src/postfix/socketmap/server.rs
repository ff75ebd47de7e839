//! The daemon's side: a Unix socket for the helpers.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::MAX_EXCHANGED;
use super::netstring::Netstring;
use super::protocol::{MapAnswer, MapRequest};
use super::record::FilteredRecord;

/// Connections at once, one for each smtp(8) process: far more than Postfix starts (`default_process_limit = 100`).
const MAX_CONNECTIONS: usize = 1024;
const BACKLOG: i32 = 128;
/// The helper runs as an account of the operator's choice. The socket gives it nothing but decisions on public host names.
const MODE: u32 = 0o666;
/// Delay after an accept that failed for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
const READ_SIZE: usize = 1024;

/// Why the socket cannot be opened.
#[derive(Debug, Error)]
pub enum MapError {
    #[error("cannot create the directory {}: {why}", path.display())]
    Directory { path: PathBuf, why: io::Error },
    #[error("{} exists and is not a socket: remove it, or change `[outbound] map`", path.display())]
    NotASocket { path: PathBuf },
    #[error("another process listens at {}: stop it, or change `[outbound] map`", path.display())]
    InUse { path: PathBuf },
    #[error("cannot listen at {}: {why}; change `[outbound] map`", path.display())]
    Listen { path: PathBuf, why: io::Error },
}

/// The socket, removed on drop.
#[derive(Debug)]
pub struct MapListener {
    listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _already_removed = fs::remove_file(&self.0);
    }
}

impl MapListener {
    /// Creates the socket, and its directory if it is missing. Replaces the socket of a process that was killed.
    ///
    /// # Errors
    /// The path cannot be used, or another process listens there.
    pub fn bind(path: &Path) -> Result<Self, MapError> {
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        if let Some(directory) = directory.filter(|directory| !directory.exists()) {
            let created = DirBuilder::new().mode(0o755).create(directory);
            created.map_err(|why| MapError::Directory { path: directory.to_owned(), why })?;
        }
        let failed = |why| MapError::Listen { path: path.to_owned(), why };
        remove_stale(path)?;
        let listener = listen(path).map_err(failed)?;
        let file = SocketFile(path.to_owned());
        Ok(Self { listener: UnixListener::from_std(listener).map_err(failed)?, file })
    }

    /// Answers questions about address records, without end; all others get `NOTFOUND`. A connection is closed by its client
    /// only: Postfix does not connect again at once after a connection that it finds closed.
    pub async fn serve<F: Future<Output = MapAnswer> + Send>(
        self,
        answer: impl Fn(FilteredRecord) -> F + Clone + Send + 'static,
    ) {
        let Self { listener, file: _file } = self;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Without a place the connection is closed, and its helper answers by itself.
                    let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                    let answer = answer.clone();
                    tokio::spawn(async move {
                        let _client_is_gone = converse(stream, answer).await;
                        drop(place);
                    });
                }
                Err(_out_of_resources) => sleep(ACCEPT_BACKOFF).await,
            }
        }
    }
}

async fn converse<F: Future<Output = MapAnswer> + Send>(
    mut stream: UnixStream,
    answer: impl Fn(FilteredRecord) -> F,
) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let (record, length) = match Netstring::parse(&received, MAX_EXCHANGED) {
            Netstring::Incomplete => {
                received.reserve(READ_SIZE);
                if stream.read_buf(&mut received).await? == 0 {
                    return Ok(());
                }
                continue;
            }
            Netstring::Malformed => return Err(ErrorKind::InvalidData.into()),
            Netstring::Complete { content, length } => {
                let request = MapRequest::parse(content);
                (request.and_then(|request| FilteredRecord::parse(request.key)), length)
            }
        };
        received.drain(..length);
        let answer = match record {
            Some(record) => answer(record).await,
            None => MapAnswer::NotFound,
        };
        stream.write_all(&answer.encode()).await?;
    }
}

fn remove_stale(path: &Path) -> Result<(), MapError> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(()); // If it exists but cannot be read, `bind` fails.
    };
    if !found.file_type().is_socket() {
        return Err(MapError::NotASocket { path: path.to_owned() });
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(MapError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            let removed = fs::remove_file(path);
            removed.map_err(|why| MapError::Listen { path: path.to_owned(), why })
        }
        Err(why) => Err(MapError::Listen { path: path.to_owned(), why }),
    }
}

/// Nobody can connect before `listen`, so the mode is in force from the first connection on.
fn listen(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(OwnedFd::from(socket).into())
}
