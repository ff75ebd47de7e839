//! The HTTP server that nginx mail asks for the upstream of each session (its `auth_http`).

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::net::Lab;
use crate::server::Server;

/// On the gateway's host, where nginx runs.
pub(crate) const AUTH_ADDRESS: &str = "127.0.0.1:2540";

/// Starts it; it answers that every session goes to the sink.
pub(crate) fn start(lab: &Arc<Lab>) -> Result<Server> {
    let sink = lab.sink_address();
    Server::start(
        "nginx's auth_http",
        lab,
        |lab| lab.gateway.enter(),
        |_| {
            let listener = StdListener::bind(AUTH_ADDRESS).context(AUTH_ADDRESS)?;
            listener.set_nonblocking(true)?;
            Ok(TcpListener::from_std(listener)?)
        },
        async move |listener| {
            while let Ok((stream, _peer)) = listener.accept().await {
                // nginx reports what fails here.
                tokio::spawn(async move { answer(stream, sink).await.ok() });
            }
        },
    )
}

async fn answer(mut stream: TcpStream, sink: SocketAddr) -> Result<()> {
    let mut request = Vec::with_capacity(1024);
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (server, port) = (sink.ip(), sink.port());
    let answer = format!(
        "HTTP/1.0 200 OK\r\nAuth-Status: OK\r\nAuth-Server: {server}\r\nAuth-Port: {port}\r\n\r\n"
    );
    Ok(stream.write_all(answer.as_bytes()).await?)
}
