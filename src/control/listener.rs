//! The gateway's end.

use std::fs::{self, DirBuilder, File, Permissions};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

use super::{ControlError, ControlRequest, ControlResponse, ControlSettings};

/// Octets of a request.
const MAX_REQUEST: u64 = 64 * 1024;
/// How long a client may take to send it; it sends it at once.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);
/// After an accept that failed for want of descriptors.
const BREATHER: Duration = Duration::from_millis(100);
const BACKLOG: i32 = 16;

/// The socket of a running gateway; dropped, it is removed.
#[derive(Debug)]
pub struct ControlListener {
    listener: UnixListener,
    _file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.0);
    }
}

impl ControlListener {
    /// Makes the socket, and its directory if there is none. A socket that a killed gateway left is replaced.
    ///
    /// # Errors
    /// The path cannot be used, or a running gateway uses it.
    pub fn bind(settings: &ControlSettings) -> Result<Self, ControlError> {
        let path = &settings.socket;
        let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
        if let Some(directory) = directory.filter(|directory| !directory.exists()) {
            let made = DirBuilder::new().mode(0o755).create(directory);
            made.map_err(|why| ControlError::Directory { path: directory.to_owned(), why })?;
        }
        remove_stale(path)?;
        let failed = |why| ControlError::Listen { path: path.clone(), why };
        let listener = listen(path).map_err(failed)?;
        let file = SocketFile(path.clone());
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self { listener, _file: file })
    }

    /// Takes requests until it is dropped; `perform` answers them by [`ControlConnection`].
    pub async fn serve<F: Future<Output = ()> + Send + 'static>(
        self,
        perform: impl Fn(ControlRequest, ControlConnection) -> F,
    ) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let mut connection = ControlConnection { stream: BufReader::new(stream) };
                    // One after the other until the request is there: it comes at once, and from one user.
                    match timeout(REQUEST_PATIENCE, connection.request()).await {
                        Ok(Ok(request)) => drop(tokio::spawn(perform(request, connection))),
                        Ok(Err(problem)) => {
                            let _gone_already =
                                connection.respond(&ControlResponse::Error(problem)).await;
                        }
                        Err(_too_slow) => {}
                    }
                }
                Err(_out_of_resources) => sleep(BREATHER).await,
            }
        }
    }
}

/// A client that asked something.
#[derive(Debug)]
pub struct ControlConnection {
    stream: BufReader<UnixStream>,
}

impl ControlConnection {
    async fn request(&mut self) -> Result<ControlRequest, String> {
        let mut line = String::new();
        let reading = (&mut self.stream).take(MAX_REQUEST).read_line(&mut line).await;
        reading.map_err(|error| format!("the request cannot be read: {error}"))?;
        serde_json::from_str(&line)
            .map_err(|error| format!("the request is not understood: {error}"))
    }

    /// # Errors
    /// The client is gone.
    pub async fn respond(&mut self, response: &ControlResponse) -> io::Result<()> {
        let mut line = serde_json::to_vec(response)?;
        line.push(b'\n');
        self.send(&line).await
    }

    /// What follows the answer.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(octets).await
    }

    /// Waits until the client hangs up.
    pub async fn closed(&mut self) {
        let mut unexpected = [0; 64];
        while let Ok(1..) = self.stream.read(&mut unexpected).await {}
    }
}

fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(()); // If it is there and cannot be looked at, `bind` will say so.
    };
    if !found.file_type().is_socket() {
        return Err(ControlError::NoSocket { path: path.to_owned() });
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

/// Linux gives the socket file the mode that the socket has when it is bound: nobody else gets in, not even for a moment.
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
    use super::super::request;
    use super::*;
    use crate::recording::RecordingFilter;

    fn settings(name: &str) -> ControlSettings {
        // A folder of each test's own: it is the listener that makes it.
        let folder = format!("gatepost-control-{}-{name}", std::process::id());
        ControlSettings {
            socket: std::env::temp_dir().join(folder).join("control.sock"),
            required: true,
        }
    }

    fn done(settings: &ControlSettings) {
        fs::remove_dir(settings.socket.parent().unwrap()).unwrap();
    }

    #[tokio::test]
    async fn asks_and_is_answered() {
        let settings = settings("asks");
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
        done(&settings);
    }

    #[tokio::test]
    async fn what_is_not_understood_is_refused_in_words() {
        let settings = settings("refused");
        let listener = ControlListener::bind(&settings).unwrap();
        let serving = tokio::spawn(listener.serve(async |_, _| {}));
        let mut stream = UnixStream::connect(&settings.socket).await.unwrap();
        stream.write_all(b"{\"window\":{}}\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("{\"error\":\"the request is not understood: "), "{answer}");
        serving.abort();
        let _cancelled = serving.await;
        done(&settings);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let settings = settings("stale");
        let first = ControlListener::bind(&settings).unwrap();
        let error = ControlListener::bind(&settings).unwrap_err();
        assert!(matches!(error, ControlError::InUse { .. }), "{error}");
        // Killed: the socket stays without a listener.
        let ControlListener { listener, _file } = first;
        std::mem::forget(_file);
        drop(listener);
        assert!(settings.socket.exists());
        drop(ControlListener::bind(&settings).unwrap());

        fs::write(&settings.socket, "no socket").unwrap();
        let error = ControlListener::bind(&settings).unwrap_err();
        assert!(matches!(error, ControlError::NoSocket { .. }), "{error}");
        fs::remove_file(&settings.socket).unwrap();
        done(&settings);
    }
}
