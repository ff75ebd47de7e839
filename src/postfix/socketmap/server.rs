//! The daemon's side: a Unix socket for the helpers.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::MAX_EXCHANGED;
use super::netstring::Netstring;
use super::protocol::{MapAnswer, MapRequest};
use super::record::FilteredRecord;
use crate::unix_listener::{OwnedUnixListener, UnixListenerError, UnixListenerOptions};

/// Connections at once, one for each smtp(8) process: far more than Postfix starts (`default_process_limit = 100`).
const MAX_CONNECTIONS: usize = 1024;
/// The helper runs as an account of the operator's choice. The socket gives it nothing but decisions on public host names.
const SOCKET: UnixListenerOptions = UnixListenerOptions {
    mode: 0o666,
    backlog: 128,
    setting: "[outbound] map",
    creates_directory: true,
};
/// Delay after an accept that failed for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
const READ_SIZE: usize = 1024;

/// The socket, removed on drop.
#[derive(Debug)]
pub struct MapListener(OwnedUnixListener);

impl MapListener {
    /// Creates the socket, and its directory if it is missing. Replaces the socket of a process that was killed.
    ///
    /// # Errors
    /// The path cannot be used, or another process listens there.
    pub fn bind(path: &Path) -> Result<Self, UnixListenerError> {
        OwnedUnixListener::bind(path, SOCKET).map(Self)
    }

    /// Answers questions about address records, without end; all others get `NOTFOUND`. A connection is closed by its client
    /// only: Postfix does not connect again at once after a connection that it finds closed.
    pub async fn serve<F: Future<Output = MapAnswer> + Send>(
        self,
        answer: impl Fn(FilteredRecord) -> F + Clone + Send + 'static,
    ) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            match self.0.accept().await {
                Ok(stream) => {
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
