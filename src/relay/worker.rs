//! Worker threads: each with a runtime, listeners and sessions of its own, so that a session never changes its thread.
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

use super::{Shared, session};

/// A timer that is earlier than any of a session's: tokio wakes its own thread, by a system call, for each timer that becomes
/// the first to fire.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// After an accept that failed for want of descriptors or memory, for others to be freed.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

enum WorkerCommand {
    Listen(SocketAddr, StdListener),
    Leave(SocketAddr),
    /// No more sessions; the thread ends with its last one.
    Finish,
}

/// The handle to a worker thread.
pub(super) struct Worker {
    orders: UnboundedSender<WorkerCommand>,
    thread: JoinHandle<()>,
    beats: Arc<AtomicU64>,
}

impl Worker {
    pub(super) fn start(number: usize, shared: Arc<Shared>) -> io::Result<Self> {
        let (orders, inbox) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let beats = Arc::new(AtomicU64::new(0));
        let heart = Arc::clone(&beats);
        let thread = Builder::new()
            .name(format!("gatepost-{number}"))
            .spawn(move || runtime.block_on(work(inbox, shared, heart)))?;
        Ok(Self { orders, thread, beats })
    }

    pub(super) fn listen(&self, address: SocketAddr, listener: StdListener) {
        self.order(WorkerCommand::Listen(address, listener));
    }

    pub(super) fn leave(&self, address: SocketAddr) {
        self.order(WorkerCommand::Leave(address));
    }

    pub(super) fn finish(&self) {
        self.order(WorkerCommand::Finish);
    }

    /// Fails only when the thread is gone, and then there is nothing to do for it.
    fn order(&self, order: WorkerCommand) {
        let _thread_is_gone = self.orders.send(order);
    }

    pub(super) fn heartbeats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

async fn work(
    mut inbox: UnboundedReceiver<WorkerCommand>,
    shared: Arc<Shared>,
    beats: Arc<AtomicU64>,
) {
    let mut accepting: HashMap<SocketAddr, Task<()>> = HashMap::new();
    // Every session holds a sender until its end; nothing is ever sent.
    let (in_progress, mut ended): (Sender<()>, Receiver<()>) = channel(1);
    let heartbeat = tokio::spawn(async move {
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            beats.fetch_add(1, Ordering::Relaxed);
        }
    });
    while let Some(order) = inbox.recv().await {
        match order {
            WorkerCommand::Listen(address, listener) => {
                // Registering fails only when the process is out of descriptors for epoll itself.
                let Ok(listener) = TcpListener::from_std(listener) else {
                    continue;
                };
                let task = accept(listener, Arc::clone(&shared), in_progress.clone());
                let task = tokio::spawn(task);
                accepting.insert(address, task);
            }
            WorkerCommand::Leave(address) => {
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
    ended.recv().await;
    heartbeat.abort();
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, in_progress: Sender<()>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                tokio::spawn(session::run(stream, peer, Arc::clone(&shared), in_progress.clone()));
            }
            // The client gave up between its SYN and our accept.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(_out_of_resources) => tokio::time::sleep(ACCEPT_BACKOFF).await,
        }
    }
}
