//! The side of other commands.

use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

use super::error::ControlError;
use super::protocol::{ControlRequest, ControlResponse};

/// Sends a request to the gateway at `path`. Returns the stream after its `ok`.
///
/// # Errors
/// There is no gateway, or it refuses the request.
pub async fn request(
    path: &Path,
    request: &ControlRequest,
) -> Result<BufReader<UnixStream>, ControlError> {
    let stream = UnixStream::connect(path).await;
    let stream = stream.map_err(|why| ControlError::Connect { path: path.to_owned(), why })?;
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(request).map_err(ControlError::Response)?;
    line.push(b'\n');
    stream.get_mut().write_all(&line).await.map_err(ControlError::Lost)?;
    let mut response = String::new();
    stream.read_line(&mut response).await.map_err(ControlError::Lost)?;
    match serde_json::from_str(&response).map_err(ControlError::Response)? {
        ControlResponse::Ok => Ok(stream),
        ControlResponse::Error(why) => Err(ControlError::Refused(why)),
    }
}
