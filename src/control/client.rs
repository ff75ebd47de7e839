//! The other commands' end.

use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::{ControlError, ControlRequest, ControlResponse};

/// Asks the gateway whose socket is at `path`; returns what follows its `ok`.
///
/// # Errors
/// There is no gateway, or it refuses.
pub async fn request(
    path: &Path,
    request: &ControlRequest,
) -> Result<BufReader<UnixStream>, ControlError> {
    let connecting = UnixStream::connect(path).await;
    let stream = connecting.map_err(|why| ControlError::Connect { path: path.to_owned(), why })?;
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(request).map_err(ControlError::Answer)?;
    line.push(b'\n');
    stream.get_mut().write_all(&line).await.map_err(ControlError::Lost)?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await.map_err(ControlError::Lost)?;
    match serde_json::from_str(&answer).map_err(ControlError::Answer)? {
        ControlResponse::Ok => Ok(stream),
        ControlResponse::Error(why) => Err(ControlError::Refused(why)),
    }
}
