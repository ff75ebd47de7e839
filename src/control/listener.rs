//! The gateway's side.

use std::future::Future;
use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use super::error::ControlError;
use super::protocol::{ControlRequest, ControlResponse, ControlSettings};
use crate::unix_listener::{OwnedUnixListener, UnixListenerOptions};

/// In bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// A client sends its request at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay after an accept that failed for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Only for the gateway's own user and root.
const SOCKET: UnixListenerOptions = UnixListenerOptions {
    mode: 0o600,
    backlog: 16,
    setting: "[control] socket",
    creates_directory: true,
};

/// The socket of a running gateway, removed on drop.
#[derive(Debug)]
pub struct ControlListener(OwnedUnixListener);

impl ControlListener {
    /// Creates the socket, and its directory if it is missing. Replaces the socket of a gateway that was killed.
    ///
    /// # Errors
    /// The path cannot be used, or a running gateway uses it.
    pub fn bind(settings: &ControlSettings) -> Result<Self, ControlError> {
        Ok(Self(OwnedUnixListener::bind(&settings.socket, SOCKET)?))
    }

    /// Accepts requests until the future is dropped; `handle` responds to them.
    pub async fn serve<F: Future<Output = ()> + Send + 'static>(
        self,
        handle: impl Fn(ControlRequest, ControlConnection) -> F,
    ) {
        loop {
            match self.0.accept().await {
                Ok(stream) => {
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

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
}
