//! The service: connections of Postfix's smtpd(8) processes, each with one request after the other.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout};

use super::action::action;
use super::instances::Instances;
use super::listener::{PolicyListener, PolicyStream};
use super::lookups::PolicyLookups;
use super::question::{SessionKey, question};
use super::request::{MAX_REQUEST, ParsedRequest, PolicyRequest};
use super::sessions::{SessionTimes, Sessions};
use super::settings::PolicySettings;
use crate::addr::{ClientAddr, OriginalDst};
use crate::engine::{
    DelegatedAction, DelegationEvent, DelegationFault, Observe, Profile, SessionRecord,
};

/// Postfix closes an idle connection after 300 s, and any after 1000 s (smtpd_policy_service_max_idle, _max_ttl). A connection
/// that the gateway closed first would cost Postfix a second attempt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Postfix sends a request at once.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stop waits for replies in progress.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Delay after an accept that failed for lack of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Interval at which sessions that are over are recorded.
const TICK: Duration = Duration::from_secs(1);
/// How often the log repeats that a client sent no request.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);
const READ: usize = 4096;

/// What the service needs of the gateway.
pub struct PolicyServiceParts {
    pub settings: PolicySettings,
    pub profile: Arc<Profile>,
    pub lookups: Arc<dyn PolicyLookups>,
    pub observer: Arc<dyn Observe>,
    pub times: SessionTimes,
    /// Receives warnings, for the log.
    pub warn: Box<dyn Fn(&str) + Send + Sync>,
}

/// A running service.
pub struct PolicyService {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    finished: mpsc::Receiver<()>,
    task: JoinHandle<()>,
}

/// See [`PolicyService::records`].
pub struct PolicyRecords(Arc<Sessions>);

impl PolicyRecords {
    /// A relay decided on a message of this session by its content. Questions about the end of its messages have none, and
    /// what the relay decided holds.
    pub fn on_message_decided(&self, client: ClientAddr, server: OriginalDst) {
        self.0.on_message_decided(SessionKey { client: client.socket(), server: server.socket() });
    }

    /// The record of the questions about the session that `relayed` is the record of. It is not reported by itself then.
    pub fn take(&self, relayed: &SessionRecord) -> Option<SessionRecord> {
        let (client, server) = (relayed.client.into(), relayed.server.into());
        self.0.take(SessionKey { client, server })
    }
}

struct Shared {
    settings: ArcSwap<PolicySettings>,
    sessions: Arc<Sessions>,
    instances: Mutex<Instances>,
    observer: Arc<dyn Observe>,
    connections: AtomicUsize,
    warn: Box<dyn Fn(&str) + Send + Sync>,
    warned: Mutex<Option<Instant>>,
}

impl PolicyService {
    /// Accepts connections from now on.
    pub fn start(listener: PolicyListener, parts: PolicyServiceParts) -> Self {
        let PolicyServiceParts { settings, profile, lookups, observer, times, warn } = parts;
        let sessions = Sessions::new(lookups, Arc::clone(&observer), profile, times);
        let shared = Arc::new(Shared {
            settings: ArcSwap::from_pointee(settings),
            sessions: Arc::new(sessions),
            instances: Mutex::default(),
            observer,
            connections: AtomicUsize::new(0),
            warn,
            warned: Mutex::default(),
        });
        let (stop, stopped) = watch::channel(false);
        let (in_progress, finished) = mpsc::channel(1);
        let task = tokio::spawn(accept(listener, Arc::clone(&shared), stopped, in_progress));
        Self { shared, stop, finished, task }
    }

    /// The sessions that Postfix asked about, for those who have more of them.
    pub fn records(&self) -> PolicyRecords {
        PolicyRecords(Arc::clone(&self.shared.sessions))
    }

    /// Rules and limits for questions from now on; the address stays.
    pub fn reload(&self, settings: PolicySettings, profile: Arc<Profile>) {
        self.shared.settings.store(Arc::new(settings));
        self.shared.sessions.profile.store(profile);
    }

    /// Answers the questions in progress, closes every connection and records the sessions.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let _elapsed = timeout(STOP_TIMEOUT, self.finished.recv()).await;
        self.task.abort();
        self.shared.sessions.finish_all();
    }
}

async fn accept(
    listener: PolicyListener,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
    in_progress: mpsc::Sender<()>,
) {
    let mut tick = interval(TICK);
    loop {
        tokio::select! {
            biased;
            _ = stopped.changed() => return,
            _ = tick.tick() => shared.sessions.finish_quiet(),
            accepted = listener.accept() => match accepted {
                Ok(stream) => {
                    let (shared, stopped) = (Arc::clone(&shared), stopped.clone());
                    let in_progress = in_progress.clone();
                    tokio::spawn(async move {
                        let _in_progress = in_progress;
                        serve(stream, &shared, stopped).await;
                    });
                }
                Err(error) => {
                    shared.observer.accept_error(&error.to_string());
                    sleep(ACCEPT_BACKOFF).await;
                }
            },
        }
    }
}

/// Counts an open connection.
struct Connection<'a>(&'a Shared);

impl<'a> Connection<'a> {
    /// `None` if there are too many.
    fn open(shared: &'a Shared) -> Option<Self> {
        let limit = shared.settings.load().connections;
        let before = shared.connections.fetch_add(1, Ordering::Relaxed);
        shared.observer.delegation(DelegationEvent::Connected);
        let connection = Self(shared);
        (before < limit).then_some(connection)
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
        self.0.observer.delegation(DelegationEvent::Disconnected);
    }
}

async fn serve(
    mut stream: Box<dyn PolicyStream>,
    shared: &Shared,
    mut stopped: watch::Receiver<bool>,
) {
    let Some(_open) = Connection::open(shared) else {
        let limit = shared.settings.load().connections;
        let problem = format!(
            "more than {limit} connections; raise `[postfix] policy_connections` (Postfix: default_process_limit)"
        );
        return shared.on_fault(DelegationFault::Connections, &problem);
    };
    let mut current = None;
    let mut bytes = Vec::new();
    loop {
        let (reply, len) = match PolicyRequest::parse(&bytes) {
            ParsedRequest::Complete { request, len } => {
                (shared.reply(&request, &mut current).await, len)
            }
            ParsedRequest::Incomplete => {
                let limit = if bytes.is_empty() { IDLE_TIMEOUT } else { REQUEST_TIMEOUT };
                let reading = timeout(limit, read(&mut stream, &mut bytes));
                let read = tokio::select! {
                    biased;
                    read = reading => read,
                    _ = stopped.changed() => break,
                };
                match read {
                    Ok(Ok(1..)) => continue,
                    Ok(Ok(0) | Err(_)) => break,
                    Err(_elapsed) => {
                        shared.on_fault(DelegationFault::Idle, "no request in time");
                        break;
                    }
                }
            }
            ParsedRequest::Malformed(problem) => {
                shared.on_fault(DelegationFault::Malformed, problem);
                break;
            }
            ParsedRequest::TooLong => {
                let problem = format!("a request has more than {MAX_REQUEST} bytes");
                shared.on_fault(DelegationFault::TooLong, &problem);
                break;
            }
        };
        bytes.drain(..len);
        bytes.shrink_to(READ);
        let written = timeout(REPLY_TIMEOUT, stream.write_all(reply.as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) || *stopped.borrow_and_update() {
            break;
        }
    }
    if let Some(key) = current {
        shared.sessions.on_left(key);
    }
}

/// Appends what arrived, no more than a request may have.
async fn read(stream: &mut Box<dyn PolicyStream>, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; READ];
    let room = (MAX_REQUEST - bytes.len().min(MAX_REQUEST)).clamp(1, READ);
    let count = stream.read(chunk.get_mut(..room).unwrap_or_default()).await?;
    bytes.extend_from_slice(chunk.get(..count).unwrap_or_default());
    Ok(count)
}

impl Shared {
    /// The reply to a request. `current` is the session that the connection asked about last.
    async fn reply(&self, request: &PolicyRequest<'_>, current: &mut Option<SessionKey>) -> String {
        let began = Instant::now();
        let Some((key, asked)) = question(request).filter(|(key, _)| !self.is_own(*key, request))
        else {
            self.count(DelegatedAction::Dunno, began);
            return "action=DUNNO\n\n".to_owned();
        };
        if let Some(last) = current.replace(key).filter(|last| *last != key) {
            self.sessions.on_left(last);
        }
        let deadline = began + self.settings.load().deadline;
        let (at, instance) = (asked.at, Arc::clone(&asked.instance));
        let decided = self.sessions.decide(key, asked, deadline.into()).await;
        let mut instances = self.instances.lock().unwrap_or_else(PoisonError::into_inner);
        let (kind, text) = action(&decided, at, &instance, &mut instances);
        drop(instances);
        self.count(kind, began);
        format!("action={text}\n\n")
    }

    /// Whether the session is one of the gateway's own: it asks the mail server of this host whether it has a recipient. If the
    /// rules applied to it, the lookup would wait for itself.
    fn is_own(&self, key: SessionKey, request: &PolicyRequest<'_>) -> bool {
        let profile = self.sessions.profile.load();
        let is_local = key.client.ip().is_loopback() || key.client.ip() == key.server.ip();
        is_local && request.sender.is_empty() && *request.helo_name == profile.smtp.hostname
    }

    fn count(&self, action: DelegatedAction, began: Instant) {
        self.observer.delegation(DelegationEvent::Answered { action, took: began.elapsed() });
    }

    /// Logged once a minute.
    fn on_fault(&self, fault: DelegationFault, problem: &str) {
        self.observer.delegation(DelegationEvent::Fault(fault));
        let mut last = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= NOTICE_INTERVAL) {
            *last = Some(Instant::now());
            (self.warn)(&format!("closed a connection of Postfix's policy client: {problem}"));
        }
    }
}
