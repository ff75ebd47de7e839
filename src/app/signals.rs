//! Signals and the time limit that end a command.

use std::pin::Pin;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Sleep, sleep};

/// Stands for no time limit.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

pub(super) fn on(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot handle signals")
}

/// SIGINT, SIGTERM, and the limit of `--duration`.
pub(super) struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    limit: Pin<Box<Sleep>>,
}

impl Shutdown {
    pub(super) fn new(limit: Option<Duration>) -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            limit: Box::pin(sleep(limit.unwrap_or(FOREVER))),
        })
    }

    /// Waits for the first of them and names it.
    pub(super) async fn requested(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupted",
            _ = self.terminate.recv() => "terminated",
            () = &mut self.limit => "time limit reached",
        }
    }
}
