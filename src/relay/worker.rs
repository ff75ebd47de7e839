//! Worker threads: each has its own runtime, listeners and sessions, so a session never changes its thread.
//!
//! Sessions are plain tasks, not local ones: waking a task of a `LocalSet` costs a system call even from its own thread.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::mpsc::{
    Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel,
};
use tokio::task::JoinHandle as Task;

use super::listen::WantedAddress;
use super::session;
use super::state::{ListenerCell, RelayState};
use super::upstream::describe;

/// Shorter than any timer of a session: tokio wakes its own thread, by a system call, for each timer that becomes the first
/// to fire.
const HEARTBEAT: Duration = Duration::from_millis(250);
/// Delay after an accept that failed for lack of descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

enum WorkerCommand {
    Listen(WantedAddress, StdListener, ListenerCell),
    StopListening(WantedAddress),
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

    pub(super) fn listen(
        &self,
        address: WantedAddress,
        socket: StdListener,
        listener: ListenerCell,
    ) {
        self.send(WorkerCommand::Listen(address, socket, listener));
    }

    /// Connections that the kernel has accepted already are served.
    pub(super) fn stop_listening(&self, address: WantedAddress) {
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
    let mut accepting: Vec<(WantedAddress, Arc<Notify>, Task<()>)> = Vec::new();
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
            WorkerCommand::Listen(address, socket, listener) => {
                // Registration fails only if the process has no descriptor left for epoll itself.
                let Ok(socket) = TcpListener::from_std(socket) else {
                    continue;
                };
                let stop = Arc::new(Notify::new());
                let acceptor = Acceptor {
                    socket,
                    listener,
                    state: Arc::clone(&state),
                    in_progress: in_progress.clone(),
                };
                let task = tokio::spawn(acceptor.run(Arc::clone(&stop)));
                accepting.push((address, stop, task));
            }
            WorkerCommand::StopListening(address) => {
                accepting.retain(|(accepted, stop, _)| {
                    let is_other = *accepted != address;
                    if !is_other {
                        stop.notify_one();
                    }
                    is_other
                });
            }
            WorkerCommand::Finish => break,
        }
    }
    for (_, _, task) in accepting {
        task.abort();
    }
    drop(in_progress);
    all_ended.recv().await;
    heartbeat.abort();
}

/// Accepts the connections of one socket.
struct Acceptor {
    socket: TcpListener,
    listener: ListenerCell,
    state: Arc<RelayState>,
    in_progress: Sender<()>,
}

impl Acceptor {
    async fn run(self, stop: Arc<Notify>) {
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = self.socket.accept() => accepted,
                () = stop.notified() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.serve(stream, peer),
                // The client gave up between its SYN and our accept.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(out_of_resources) => {
                    self.state.observer.accept_error(&describe(&out_of_resources));
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr) {
        let (listener, state) = (self.listener.load_full(), Arc::clone(&self.state));
        tokio::spawn(session::run(stream, peer, listener, state, self.in_progress.clone()));
    }
}
