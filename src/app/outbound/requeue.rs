//! Requests that Postfix tries a refused message again at once: `postqueue -i ID`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::evidence::{QueueEvent, no_room};
use crate::metrics::Metrics;
use crate::report::{LogLevel, SessionLog, printable};

/// Waits after the refusal was logged. Postfix puts a message into the deferred queue only after the log line, and flush(8)
/// does not find it before: the request is repeated while no new attempt is in the log.
const WAITS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(5), Duration::from_secs(30)];
/// Messages that wait; more are left to Postfix's own schedule.
const MAX_WAITING: usize = 1000;
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

/// A message, and the requests that were made for it.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    due: Instant,
    requests: usize,
}

pub(super) struct Requeue {
    /// `[outbound] config_directory`, for another instance of Postfix.
    pub(super) config_directory: Option<PathBuf>,
    pub(super) events: mpsc::Receiver<QueueEvent>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: Arc<SessionLog>,
}

impl Requeue {
    /// Until all senders of events are gone.
    pub(super) async fn run(mut self) {
        let mut waiting: HashMap<String, Waiting> = HashMap::new();
        let (mut has_failed, mut is_full) = (false, false);
        loop {
            let next = waiting.iter().min_by_key(|(_, one)| one.due);
            let next = next.map(|(queue_id, one)| (queue_id.clone(), *one));
            let due = next.as_ref().map(|(_, one)| one.due);
            tokio::select! {
                event = self.events.recv() => match event {
                    None => return,
                    Some(QueueEvent::Retry(queue_id)) if waiting.len() < MAX_WAITING => {
                        let due = Instant::now() + WAITS[0];
                        waiting.insert(queue_id, Waiting { due, requests: 0 });
                        is_full = false;
                    }
                    Some(QueueEvent::Retry(queue_id)) => {
                        no_room(&self.metrics, &self.log, is_full, &queue_id);
                        is_full = true;
                    }
                    Some(QueueEvent::Tried(queue_id)) => drop(waiting.remove(&queue_id)),
                },
                () = until(due) => {
                    let Some((queue_id, mut one)) = next else { continue };
                    let result = self.request(&queue_id).await;
                    self.metrics.on_outbound_retry(result.is_ok());
                    if let Err(reason) = &result && !has_failed {
                        let notice = format!(
                            "outbound: the retry of {queue_id} cannot be requested: {reason}; messages wait for Postfix's own retry"
                        );
                        self.log.notice(LogLevel::Warn, &notice);
                    }
                    has_failed = result.is_err();
                    one.requests += 1;
                    match WAITS.get(one.requests) {
                        Some(wait) => {
                            one.due = Instant::now() + *wait;
                            waiting.insert(queue_id, one);
                        }
                        None => drop(waiting.remove(&queue_id)),
                    }
                }
            }
        }
    }

    async fn request(&self, queue_id: &str) -> Result<(), String> {
        let mut command = Command::new("postqueue");
        if let Some(directory) = &self.config_directory {
            command.arg("-c").arg(directory);
        }
        command.args(["-i", queue_id]).stdin(Stdio::null()).kill_on_drop(true);
        match timeout(COMMAND_LIMIT, command.output()).await {
            Err(_elapsed) => Err("postqueue does not end".to_owned()),
            Ok(Err(error)) => Err(format!("postqueue: {error}")),
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => {
                let text = String::from_utf8_lossy(&output.stderr);
                Err(printable(text.lines().next_back().unwrap_or("postqueue failed")))
            }
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
