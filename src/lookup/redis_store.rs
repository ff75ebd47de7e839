//! A Redis server where several gateways share what probes told them: one calls, all know.
//!
//! Shared are answers of other servers (connect, greet, callout): resolvers share DNS answers, and our upstream is each
//! gateway's own. An answer is kept there as long as here. Before a gateway calls it takes a short-lived lock (SET NX PX);
//! who does not get it waits for the answer of who did. Without Redis every gateway calls by itself: each command has
//! [`PATIENCE`], after one that failed nothing is asked of Redis until it answers a PING again, and that is tried in the
//! background.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use super::cache_entry::CacheEntry;
use super::now;
use crate::policy::facts::{Lookup, LookupKind, LookupObserver};

/// What a question may lose by Redis, a command.
const PATIENCE: Duration = Duration::from_millis(50);
/// How often a server that is away is tried, and one that is there asked whether it still is.
const LOOK: Duration = Duration::from_secs(1);
/// How often the answer of another gateway is looked for.
const WAIT: Duration = Duration::from_millis(50);
/// A lock outlives the call that it is for, a little.
const SPARE: Duration = Duration::from_secs(2);

/// Whether a text names a Redis server, such as `redis://192.0.2.6:6379/0`.
///
/// # Errors
/// What is wrong with it.
pub fn check_redis_url(url: &str) -> Result<(), String> {
    Client::open(url).map(drop).map_err(|error| error.to_string())
}

pub(super) struct Shared {
    line: Arc<Line>,
    /// A call takes no longer.
    patience: Duration,
}

struct Line {
    connection: Mutex<Option<MultiplexedConnection>>,
    up: AtomicBool,
    observer: Arc<dyn LookupObserver>,
}

/// Whose turn it is to call.
pub(super) enum Turn {
    /// Nobody's: it is known.
    Known(Box<CacheEntry>),
    /// Ours; others wait for what we share, or for [`Shared::let_go`].
    Ours,
    /// Everybody's: Redis is away, or the other gateway had no answer.
    Alone,
}

/// Answers of other servers, and nothing else.
pub(super) const fn is_shared(kind: LookupKind) -> bool {
    matches!(kind, LookupKind::Connect | LookupKind::Greet | LookupKind::Callout)
}

impl Shared {
    /// Connects in the background.
    ///
    /// # Errors
    /// `url` names no Redis server.
    pub(super) fn start(
        url: &str,
        patience: Duration,
        runtime: &Handle,
        observer: Arc<dyn LookupObserver>,
    ) -> Result<Self, String> {
        let client = Client::open(url).map_err(|error| error.to_string())?;
        let connection = Mutex::default();
        let line = Arc::new(Line { connection, up: AtomicBool::new(false), observer });
        let held = Arc::downgrade(&line);
        runtime.spawn(async move {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(LOOK)
                .set_response_timeout(LOOK);
            while let Some(line) = held.upgrade() {
                line.look(&client, &config).await;
                drop(line);
                sleep(LOOK).await;
            }
        });
        Ok(Self { line, patience: patience + SPARE })
    }

    /// What another gateway shared, after waiting for it if one is calling right now; else the leave to call.
    pub(super) async fn turn(&self, lookup: &Lookup) -> Turn {
        let Some((key, lock)) = keys(lookup) else { return Turn::Alone };
        let until = Instant::now() + self.patience;
        let milliseconds = self.patience.as_millis().to_string();
        while Instant::now() < until {
            let known: Option<Option<Vec<u8>>> =
                self.line.ask(Cmd::new().arg("GET").arg(&key)).await;
            match known.map(|known| known.and_then(|octets| read(&octets))) {
                None => return Turn::Alone,
                Some(Some(entry)) => return Turn::Known(Box::new(entry)),
                Some(None) => {}
            }
            let mut locking = Cmd::new();
            locking.arg("SET").arg(&lock).arg("1").arg("NX").arg("PX").arg(&milliseconds);
            match self.line.ask::<Option<String>>(&locking).await {
                Some(Some(_ok)) => return Turn::Ours,
                Some(None) => sleep(WAIT).await,
                None => return Turn::Alone,
            }
        }
        Turn::Alone
    }

    /// Shares an answer, and gives the lock back.
    pub(super) async fn share(&self, lookup: &Lookup, entry: &CacheEntry) {
        let Some((key, lock)) = keys(lookup) else { return };
        let life = (entry.expires_at - now()).as_millis().max(1).to_string();
        if let Ok(value) = serde_json::to_vec(entry) {
            let mut setting = Cmd::new();
            setting.arg("SET").arg(&key).arg(value).arg("PX").arg(life);
            let _else_alone = self.line.ask::<String>(&setting).await;
        }
        let _else_expires = self.line.ask::<u64>(Cmd::new().arg("DEL").arg(&lock)).await;
    }

    /// Gives the lock back: there is no answer to share.
    pub(super) async fn let_go(&self, lookup: &Lookup) {
        if let Some((_, lock)) = keys(lookup) {
            let _else_expires = self.line.ask::<u64>(Cmd::new().arg("DEL").arg(&lock)).await;
        }
    }

    /// Removes an answer.
    pub(super) async fn forget(&self, lookup: &Lookup) {
        if let Some((key, _)) = keys(lookup) {
            let _else_expires = self.line.ask::<u64>(Cmd::new().arg("DEL").arg(&key)).await;
        }
    }
}

/// The keys of an answer and of its lock.
fn keys(lookup: &Lookup) -> Option<(String, String)> {
    let json = serde_json::to_string(lookup).ok()?;
    Some((format!("gatepost:1:fact:{json}"), format!("gatepost:1:lock:{json}")))
}

/// `None` for what another version wrote, or a clock that is ahead of ours.
fn read(octets: &[u8]) -> Option<CacheEntry> {
    serde_json::from_slice::<CacheEntry>(octets).ok().filter(|entry| entry.is_fresh(now()))
}

impl Line {
    fn connection(&self) -> Option<MultiplexedConnection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `None` if there is no answer in time: then Redis is away until it answers a PING.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        if !self.up.load(Ordering::Relaxed) {
            return None;
        }
        let mut connection = self.connection()?;
        match timeout(PATIENCE, command.query_async(&mut connection)).await {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(_)) | Err(_) => {
                self.set_up(false);
                None
            }
        }
    }

    fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
        self.observer.on_store_state(up);
    }

    async fn look(&self, client: &Client, config: &AsyncConnectionConfig) {
        let connection = match self.connection() {
            Some(connection) => Some(connection),
            None => client.get_multiplexed_async_connection_with_config(config).await.ok(),
        };
        let mut answers = false;
        if let Some(mut connection) = connection.clone() {
            let ping = Cmd::new().arg("PING").to_owned();
            let pinged = timeout(LOOK, ping.query_async::<String>(&mut connection)).await;
            answers = matches!(pinged, Ok(Ok(_)));
        }
        // One that does not answer is replaced: it may hang for ever.
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) =
            connection.filter(|_| answers);
        self.set_up(answers);
    }
}
