//! A Redis server through which gateways share probe results: one gateway probes, all use the answer.
//!
//! Shared are answers of other servers (connect, greet, callout). DNS answers are shared by resolvers, and our upstream is
//! each gateway's own. An answer expires in Redis when it expires here. A gateway takes a short-lived lock (SET NX PX) before
//! it probes; without the lock it waits for the answer of the lock's holder. Without Redis each gateway probes for itself:
//! each command has [`COMMAND_TIMEOUT`], and after a failed command none is sent until Redis answers a PING, which is tried
//! in the background.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

use super::cache_entry::CacheEntry;
use super::clock::now;
use super::settings::{LookupSettings, Ttls};
use crate::policy::facts::{Lookup, LookupKind, LookupObserver};

/// The most that a command may delay a lookup.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(50);
/// Interval of PING, and of connection attempts.
const PING_INTERVAL: Duration = Duration::from_secs(1);
/// How often the answer of another gateway is looked for.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Bytes of an answer in Redis; ours have a few hundred. A longer one is not read.
const MAX_VALUE: usize = 4096;
/// How much longer than a probe a lock lasts.
const LOCK_MARGIN: Duration = Duration::from_secs(2);

/// Whether `url` is the address of a Redis server, such as `redis://192.0.2.6:6379/0`.
///
/// # Errors
/// The reason why it is not.
pub fn check_redis_url(url: &str) -> Result<(), String> {
    Client::open(url).map(drop).map_err(|error| error.to_string())
}

pub(super) struct RedisStore {
    connection: Arc<Connection>,
    /// Upper bound of a probe's duration, and a margin.
    lock_ttl: Duration,
    ttls: Ttls,
}

struct Connection {
    multiplexed: Mutex<Option<MultiplexedConnection>>,
    up: AtomicBool,
    observer: Arc<dyn LookupObserver>,
}

/// The result of [`RedisStore::claim`].
pub(super) enum Claim {
    /// Another gateway has the answer.
    Hit(Box<CacheEntry>),
    /// This gateway holds the lock: others wait for [`RedisStore::share`] or [`RedisStore::release`].
    Acquired,
    /// Redis does not respond, or the lock's holder had no answer.
    Unavailable,
}

/// Whether gateways share answers of this kind.
pub(super) const fn is_shared(kind: LookupKind) -> bool {
    matches!(kind, LookupKind::Connect | LookupKind::Greet | LookupKind::Callout)
}

impl RedisStore {
    /// Connects in the background.
    ///
    /// # Errors
    /// `url` is not the address of a Redis server.
    pub(super) fn start(
        url: &str,
        settings: &LookupSettings,
        runtime: &Handle,
        observer: Arc<dyn LookupObserver>,
    ) -> Result<Self, String> {
        let client = Client::open(url).map_err(|error| error.to_string())?;
        let connection =
            Connection { multiplexed: Mutex::default(), up: AtomicBool::new(false), observer };
        let connection = Arc::new(connection);
        let monitored = Arc::downgrade(&connection);
        runtime.spawn(async move {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(PING_INTERVAL)
                .set_response_timeout(PING_INTERVAL);
            while let Some(connection) = monitored.upgrade() {
                connection.check(&client, &config).await;
                drop(connection);
                sleep(PING_INTERVAL).await;
            }
        });
        let lock_ttl = settings.probes.timeout + LOCK_MARGIN;
        Ok(Self { connection, lock_ttl, ttls: settings.ttls })
    }

    /// The answer of another gateway, after waiting for it if that gateway is probing now; otherwise the lock.
    pub(super) async fn claim(&self, lookup: &Lookup) -> Claim {
        let Some((key, lock)) = keys(lookup) else { return Claim::Unavailable };
        let deadline = Instant::now() + self.lock_ttl;
        let milliseconds = self.lock_ttl.as_millis().to_string();
        while Instant::now() < deadline {
            // GETRANGE of a missing key is empty.
            let mut get = Cmd::new();
            get.arg("GETRANGE").arg(&key).arg(0).arg(MAX_VALUE);
            let value: Option<Vec<u8>> = self.connection.send(&get).await;
            match value.map(|bytes| self.decode(lookup.kind(), &bytes)) {
                None => return Claim::Unavailable,
                Some(Some(entry)) => return Claim::Hit(Box::new(entry)),
                Some(None) => {}
            }
            let mut set = Cmd::new();
            set.arg("SET").arg(&lock).arg("1").arg("NX").arg("PX").arg(&milliseconds);
            match self.connection.send::<Option<String>>(&set).await {
                Some(Some(_ok)) => return Claim::Acquired,
                Some(None) => sleep(POLL_INTERVAL).await,
                None => return Claim::Unavailable,
            }
        }
        Claim::Unavailable
    }

    /// `None` for the format of another version, and for an answer that this gateway would not have, or not any more: Redis is
    /// another host, and may be anybody's.
    fn decode(&self, kind: LookupKind, bytes: &[u8]) -> Option<CacheEntry> {
        if bytes.len() > MAX_VALUE {
            return None;
        }
        let entry = serde_json::from_slice::<CacheEntry>(bytes).ok()?;
        entry.limited_to(kind, now(), &self.ttls)
    }

    /// Stores an answer and releases the lock. Both expire by themselves if that fails.
    pub(super) async fn share(&self, lookup: &Lookup, entry: &CacheEntry) {
        let Some((key, lock)) = keys(lookup) else { return };
        let ttl = (entry.expires_at - now()).as_millis().max(1).to_string();
        if let Ok(value) = serde_json::to_vec(entry) {
            let mut set = Cmd::new();
            set.arg("SET").arg(&key).arg(value).arg("PX").arg(ttl);
            let _redis_is_down = self.connection.send::<String>(&set).await;
        }
        self.delete(&lock).await;
    }

    /// Releases the lock without an answer.
    pub(super) async fn release(&self, lookup: &Lookup) {
        if let Some((_, lock)) = keys(lookup) {
            self.delete(&lock).await;
        }
    }

    /// Removes an answer.
    pub(super) async fn remove(&self, lookup: &Lookup) {
        if let Some((key, _)) = keys(lookup) {
            self.delete(&key).await;
        }
    }

    async fn delete(&self, key: &str) {
        let _redis_is_down = self.connection.send::<u64>(Cmd::new().arg("DEL").arg(key)).await;
    }
}

/// The keys of an answer and of its lock.
fn keys(lookup: &Lookup) -> Option<(String, String)> {
    let json = serde_json::to_string(lookup).ok()?;
    Some((format!("gatepost:1:fact:{json}"), format!("gatepost:1:lock:{json}")))
}

impl Connection {
    fn multiplexed(&self) -> Option<MultiplexedConnection> {
        self.multiplexed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `None` without a reply in time: then no command is sent until Redis answers a PING.
    async fn send<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        if !self.up.load(Ordering::Relaxed) {
            return None;
        }
        let mut connection = self.multiplexed()?;
        match timeout(COMMAND_TIMEOUT, command.query_async(&mut connection)).await {
            Ok(Ok(value)) => Some(value),
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

    /// Connects if necessary, and sends a PING.
    async fn check(&self, client: &Client, config: &AsyncConnectionConfig) {
        let connection = match self.multiplexed() {
            Some(connection) => Some(connection),
            None => client.get_multiplexed_async_connection_with_config(config).await.ok(),
        };
        let mut responds = false;
        if let Some(mut connection) = connection.clone() {
            let ping = Cmd::new().arg("PING").to_owned();
            let pong = timeout(PING_INTERVAL, ping.query_async::<String>(&mut connection)).await;
            responds = matches!(pong, Ok(Ok(_)));
        }
        // A connection that does not respond is replaced: it may hang for ever.
        *self.multiplexed.lock().unwrap_or_else(PoisonError::into_inner) =
            connection.filter(|_| responds);
        self.set_up(responds);
    }
}
