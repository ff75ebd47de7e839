//! A server of the benchmark's own: a thread with its runtime, in the namespace of one host of the lab.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::net::Lab;

/// It stops when dropped.
pub(crate) struct Server {
    name: &'static str,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Goes to a host by `enter`, listens by `listen`, which runs inside the runtime, and serves by `accept`. Connections are
    /// accepted when this returns.
    pub(crate) fn start(
        name: &'static str,
        lab: &Arc<Lab>,
        enter: fn(&Lab) -> Result<()>,
        listen: impl FnOnce(&Lab) -> Result<TcpListener> + Send + 'static,
        accept: impl AsyncFnOnce(TcpListener) + Send + 'static,
    ) -> Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (report, ready) = mpsc::channel();
        let lab = Arc::clone(lab);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let prepared = enter(&lab).and_then(|()| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let listener = runtime.block_on(async { listen(&lab) })?;
                Ok((runtime, listener))
            });
            let (runtime, listener) = match prepared {
                Ok(prepared) => prepared,
                Err(error) => {
                    let _gone = report.send(Err(error));
                    return;
                }
            };
            let _gone = report.send(Ok(()));
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener) => {}
                    _ = stopped => {}
                }
            });
        })?;
        let server = Self { name, stop: Some(stop), thread: Some(thread) };
        ready.recv().with_context(|| format!("the thread of {name} ended"))??;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended already.
            let _gone = stop.send(());
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("bench: the thread of {} panicked", self.name);
        }
    }
}
