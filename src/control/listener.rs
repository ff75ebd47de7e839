//! The gateway's side.

use std::fs::{self, DirBuilder, File, Permissions};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::error::ControlError;
use super::protocol::{ControlRequest, ControlResponse, ControlSettings};

/// In bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// A client sends its request at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay after an accept that failed for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
const BACKLOG: i32 = 16;

/// The socket of a running gateway, removed on drop.
#[derive(Debug)]
pub struct ControlListener {
    listener: UnixListener,
    _file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _already_removed = fs::remove_file(&self.0);
    }
}

impl ControlListener {
    /// Creates the socket, and its directory if it is missing. Replaces the socket of a gateway that was killed.
    ///
    /// # Errors
    /// The path cannot be used, or a running gateway uses it.
    pub fn bind(settings: &ControlSettings) -> Result<Self, ControlError> {
        let path = &settings.socket;
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        if let Some(directory) = directory.filter(|directory| !directory.exists()) {
            let created = DirBuilder::new().mode(0o755).create(directory);
            created.map_err(|why| ControlError::Directory { path: directory.to_owned(), why })?;
        }
        remove_stale(path)?;
        let failed = |why| ControlError::Listen { path: path.clone(), why };
        let listener = listen(path).map_err(failed)?;
        let file = SocketFile(path.clone());
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self { listener, _file: file })
    }

    /// Accepts requests until the future is dropped; `handle` responds to them.
    pub async fn serve<F: Future<Output = ()> + Send + 'static>(
        self,
        handle: impl Fn(ControlRequest, ControlConnection) -> F,
    ) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let mut connection = ControlConnection { stream: BufReader::new(stream) };
                    // Requests are read one after the other: they arrive at once, and from one user.
                    match timeout(REQUEST_TIMEOUT, connection.read_request()).await {
                        Ok(Ok(request)) => drop(tokio::spawn(handle(request, connection))),
                        Ok(Err(problem)) => {
                            let _client_is_gone =
                                connection.respond(&ControlResponse::Error(problem)).await;
                        }
                        Err(_too_slow) => {}
                    }
                }
                Err(_out_of_resources) => sleep(ACCEPT_BACKOFF).await,
            }
        }
    }
}

/// A client whose request was read.
#[derive(Debug)]
pub struct ControlConnection {
    stream: BufReader<UnixStream>,
}

impl ControlConnection {
    async fn read_request(&mut self) -> Result<ControlRequest, String> {
        let mut line = String::new();
        let read = (&mut self.stream).take(MAX_REQUEST).read_line(&mut line).await;
        read.map_err(|error| format!("cannot read the request: {error}"))?;
        serde_json::from_str(&line).map_err(|error| format!("cannot parse the request: {error}"))
    }

    /// # Errors
    /// The client is gone.
    pub async fn respond(&mut self, response: &ControlResponse) -> io::Result<()> {
        let mut line = serde_json::to_vec(response)?;
        line.push(b'\n');
        self.send(&line).await
    }

    /// Sends data after the response.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes).await
    }

    /// Responds with one line of JSON, or with an error.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn answer<T: Serialize>(&mut self, answer: Result<T, String>) -> io::Result<()> {
        let line =
            answer.and_then(|value| serde_json::to_vec(&value).map_err(|error| error.to_string()));
        match line {
            Ok(mut line) => {
                line.push(b'\n');
                self.respond(&ControlResponse::Ok).await?;
                self.send(&line).await
            }
            Err(error) => self.respond(&ControlResponse::Error(error)).await,
        }
    }

    /// Waits until the client closes the connection.
    pub async fn closed(&mut self) {
        let mut unexpected = [0; 64];
        while let Ok(1..) = self.stream.read(&mut unexpected).await {}
    }
}

fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(()); // If it exists but cannot be read, `bind` fails.
    };
    if !found.file_type().is_socket() {
        return Err(ControlError::NotASocket { path: path.to_owned() });
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(ControlError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let removed = fs::remove_file(path);
            removed.map_err(|why| ControlError::Listen { path: path.to_owned(), why })
        }
        Err(why) => Err(ControlError::Listen { path: path.to_owned(), why }),
    }
}

/// Linux gives the socket file the mode of the socket at bind time, so other users have no access at any time.
fn listen(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let file = File::from(OwnedFd::from(socket));
    file.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(file));
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(OwnedFd::from(socket).into())
}

#[cfg(test)]
mod tests {
    use super::super::client::request;
    use super::*;
    use crate::recording::RecordingFilter;

    fn settings(name: &str) -> ControlSettings {
        // Each test has its own directory, created by the listener.
        let folder = format!("gatepost-control-{}-{name}", std::process::id());
        ControlSettings {
            socket: std::env::temp_dir().join(folder).join("control.sock"),
            required: true,
        }
    }

    fn remove_directory(settings: &ControlSettings) {
        fs::remove_dir(settings.socket.parent().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn a_request_gets_its_response() {
        let settings = settings("request");
        let listener = ControlListener::bind(&settings).unwrap();
        let mode = fs::metadata(&settings.socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let serving =
            tokio::spawn(listener.serve(async |request, mut connection: ControlConnection| {
                assert_eq!(request, ControlRequest::Record(RecordingFilter::default()));
                connection.respond(&ControlResponse::Ok).await.unwrap();
                connection.send(b"more").await.unwrap();
            }));
        let mut stream =
            request(&settings.socket, &ControlRequest::Record(RecordingFilter::default()))
                .await
                .unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "more");
        serving.abort();
        assert!(serving.await.unwrap_err().is_cancelled());
        assert!(!settings.socket.exists());
        remove_directory(&settings);
    }

    #[tokio::test]
    async fn an_unknown_request_gets_an_error() {
        let settings = settings("refused");
        let listener = ControlListener::bind(&settings).unwrap();
        let serving = tokio::spawn(listener.serve(async |_, _| {}));
        let mut stream = UnixStream::connect(&settings.socket).await.unwrap();
        stream.write_all(b"{\"window\":{}}\n").await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("{\"error\":\"cannot parse the request: "), "{response}");
        serving.abort();
        let _cancelled = serving.await;
        remove_directory(&settings);
    }

    #[tokio::test]
    async fn only_a_stale_socket_is_replaced() {
        let settings = settings("stale");
        let first = ControlListener::bind(&settings).unwrap();
        let error = ControlListener::bind(&settings).unwrap_err();
        assert!(matches!(error, ControlError::InUse { .. }), "{error}");
        // As after a kill: the file stays without a listener.
        let ControlListener { listener, _file } = first;
        std::mem::forget(_file);
        drop(listener);
        assert!(settings.socket.exists());
        drop(ControlListener::bind(&settings).unwrap());

        fs::write(&settings.socket, "no socket").unwrap();
        let error = ControlListener::bind(&settings).unwrap_err();
        assert!(matches!(error, ControlError::NotASocket { .. }), "{error}");
        fs::remove_file(&settings.socket).unwrap();
        remove_directory(&settings);
    }
}
