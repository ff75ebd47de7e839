//! The HTTP server that nginx mail asks for the upstream of each session (its `auth_http`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::net::Lab;

/// On the gateway's host, where nginx runs.
pub(crate) const AUTH_ADDRESS: &str = "127.0.0.1:2540";

/// A running server; it stops when dropped.
pub(crate) struct AuthServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl AuthServer {
    /// Answers that every session goes to the sink.
    pub(crate) fn start(lab: &Arc<Lab>) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (report, ready) = mpsc::channel();
        let thread = thread::Builder::new().name("auth".to_owned()).spawn({
            let lab = Arc::clone(lab);
            move || serve(&lab, stopped, &report)
        })?;
        let server = Self { stop: Some(stop), thread: Some(thread) };
        ready.recv().context("the thread of nginx's auth_http ended")??;
        Ok(server)
    }
}

impl Drop for AuthServer {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            let _gone = stop.send(());
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("bench: the thread of nginx's auth_http panicked");
        }
    }
}

fn serve(lab: &Lab, stopped: oneshot::Receiver<()>, report: &mpsc::Sender<Result<()>>) {
    let sink = lab.sink_address();
    let prepared = lab
        .gateway
        .enter()
        .and_then(|()| Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?));
    let runtime = match prepared {
        Ok(runtime) => runtime,
        Err(error) => {
            let _gone = report.send(Err(error));
            return;
        }
    };
    runtime.block_on(async {
        let listener = match TcpListener::bind(AUTH_ADDRESS).await.context(AUTH_ADDRESS) {
            Ok(listener) => listener,
            Err(error) => {
                let _gone = report.send(Err(error));
                return;
            }
        };
        let _gone = report.send(Ok(()));
        let accept = async {
            while let Ok((stream, _peer)) = listener.accept().await {
                // nginx reports what fails here.
                tokio::spawn(async move { answer(stream, sink).await.ok() });
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
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
