//! Worker threads: each has its own runtime, listeners and sessions, so a session never changes its thread.
//!
//! Sessions are plain tasks, not local ones: waking a task of a `LocalSet` costs a system call even from its own thread.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::{
    Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel,
};
use tokio::task::JoinHandle as Task;

use super::session;
use super::state::RelayState;
use super::upstream::describe;

/// Shorter than any timer of a session: tokio wakes its own thread, by a system call, for each timer that becomes the first
/// to fire.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Delay after an accept that failed for lack of descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

enum WorkerCommand {
    Listen(SocketAddr, StdListener),
    StopListening(SocketAddr),
    /// Accept no more sessions; the thread ends with its last one.
    Finish,
}

/// The handle to a worker thread.
pub(super) struct Worker {
    commands: UnboundedSender<WorkerCommand>,
    thread: JoinHandle<()>,
    heartbeats: Arc<AtomicU64>,
}

impl Worker {
    pub(super) fn start(number: usize, state: Arc<RelayState>) -> io::Result<Self> {
        let (commands, inbox) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let heartbeats = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&heartbeats);
        let thread = Builder::new()
            .name(format!("gatepost-{number}"))
            .spawn(move || runtime.block_on(run(inbox, state, count)))?;
        Ok(Self { commands, thread, heartbeats })
    }

    pub(super) fn listen(&self, address: SocketAddr, listener: StdListener) {
        self.send(WorkerCommand::Listen(address, listener));
    }

    pub(super) fn stop_listening(&self, address: SocketAddr) {
        self.send(WorkerCommand::StopListening(address));
    }

    pub(super) fn finish(&self) {
        self.send(WorkerCommand::Finish);
    }

    /// Fails only if the thread is gone; then there is nothing to do for it.
    fn send(&self, command: WorkerCommand) {
        let _thread_is_gone = self.commands.send(command);
    }

    pub(super) fn heartbeats(&self) -> u64 {
        self.heartbeats.load(Ordering::Relaxed)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

async fn run(
    mut inbox: UnboundedReceiver<WorkerCommand>,
    state: Arc<RelayState>,
    heartbeats: Arc<AtomicU64>,
) {
    let mut accepting: HashMap<SocketAddr, Task<()>> = HashMap::new();
    // Every session holds a sender until its end; nothing is ever sent.
    let (in_progress, mut all_ended): (Sender<()>, Receiver<()>) = channel(1);
    let heartbeat = tokio::spawn(async move {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            heartbeats.fetch_add(1, Ordering::Relaxed);
        }
    });
    while let Some(command) = inbox.recv().await {
        match command {
            WorkerCommand::Listen(address, listener) => {
                // Registration fails only if the process has no descriptor left for epoll itself.
                let Ok(listener) = TcpListener::from_std(listener) else {
                    continue;
                };
                let task = accept(listener, Arc::clone(&state), in_progress.clone());
                let task = tokio::spawn(task);
                accepting.insert(address, task);
            }
            WorkerCommand::StopListening(address) => {
                if let Some(task) = accepting.remove(&address) {
                    task.abort();
                }
            }
            WorkerCommand::Finish => break,
        }
    }
    for task in accepting.into_values() {
        task.abort();
    }
    drop(in_progress);
    all_ended.recv().await;
    heartbeat.abort();
}

async fn accept(listener: TcpListener, state: Arc<RelayState>, in_progress: Sender<()>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(session::run(stream, peer, Arc::clone(&state), in_progress.clone()));
            }
            // The client gave up between its SYN and our accept.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(out_of_resources) => {
                state.observer.accept_error(&describe(&out_of_resources));
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
