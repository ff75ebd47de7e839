//! The gateway's DNS server: Knot, behind a forwarder that delays some names, never answers others, fails some, and records
//! a query that is repeated while it is in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::Host;

/// Interval at which the forwarder checks whether it should stop.
const LOOK: Duration = Duration::from_millis(100);
/// Timeout of Knot's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How the forwarder treats queries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// Delay of every answer.
    pub(crate) delay: Duration,
    /// Delays of answers to names below these.
    pub(crate) slow: Vec<(Name, Duration)>,
    /// Names without an answer.
    pub(crate) silent: Vec<Name>,
    /// One query in so many is answered by SERVFAIL; 0 is none.
    pub(crate) fails_one_in: u64,
    /// The sender that a query belongs to, for [`QueryLog::spans`].
    pub(crate) about: Option<fn(&Name) -> Option<String>>,
}

/// The queries received.
#[derive(Debug, Default)]
pub(crate) struct QueryLog {
    pub(crate) questions: AtomicU64,
    /// Queries received while the same one was in flight.
    pub(crate) twice: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// The number of queries for each name and type.
    pub(crate) by_question: Mutex<BTreeMap<(String, RecordType), u64>>,
    open: Mutex<BTreeSet<(Name, RecordType)>>,
    /// For each sender ([`Behaviour::about`]): the times of the first query and of the last answer.
    pub(crate) spans: Mutex<BTreeMap<String, (Instant, Instant)>>,
}

impl QueryLog {
    pub(crate) fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }
}

/// A running forwarder.
pub(crate) struct Resolver {
    pub(crate) log: Arc<QueryLog>,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Resolver {
    /// Listens at `at` on that host and forwards to `server`.
    pub(crate) fn start(
        host: &Host,
        at: SocketAddr,
        server: SocketAddr,
        behaviour: Behaviour,
    ) -> Self {
        let socket = host.in_thread(|| UdpSocket::bind(at)).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        // Created in the host's namespace; each serves one query at a time.
        let upwards = host.in_thread(|| {
            (0..512).map(|_| UdpSocket::bind((at.ip(), 0)).unwrap()).collect::<Vec<_>>()
        });
        let (log, over) = (Arc::<QueryLog>::default(), Arc::<AtomicBool>::default());
        let forwarder = Forwarder {
            socket: Arc::new(socket),
            upwards: Arc::new(Mutex::new(upwards)),
            server,
            behaviour: Arc::new(behaviour),
            log: Arc::clone(&log),
        };
        let ends = Arc::clone(&over);
        let thread = thread::spawn(move || forwarder.run(&ends));
        Self { log, over, thread: Some(thread) }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Clone)]
struct Forwarder {
    socket: Arc<UdpSocket>,
    upwards: Arc<Mutex<Vec<UdpSocket>>>,
    server: SocketAddr,
    behaviour: Arc<Behaviour>,
    log: Arc<QueryLog>,
}

impl Forwarder {
    fn run(self, over: &AtomicBool) {
        let mut buffer = [0; 4096];
        while !over.load(Ordering::Relaxed) {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else { continue };
            let (one, octets) = (self.clone(), buffer[..length].to_vec());
            thread::spawn(move || one.question(&octets, from));
        }
    }

    fn question(&self, octets: &[u8], from: SocketAddr) {
        let Ok(message) = Message::from_vec(octets) else { return };
        let Some(query) = message.queries.first() else { return };
        let key = (query.name().to_lowercase(), query.query_type());
        let number = self.log.questions.fetch_add(1, Ordering::Relaxed) + 1;
        let name = (key.0.to_string(), key.1);
        *self.log.by_question.lock().unwrap().entry(name).or_default() += 1;
        if !self.log.open.lock().unwrap().insert(key.clone()) {
            self.log.twice.fetch_add(1, Ordering::Relaxed);
        }
        let asked = Instant::now();
        let within = |name: &Name| name.zone_of(&key.0);
        if self.behaviour.silent.iter().any(within) {
            self.log.open.lock().unwrap().remove(&key);
            return;
        }
        let slow = self.behaviour.slow.iter().find(|(name, _)| within(name));
        thread::sleep(slow.map_or(self.behaviour.delay, |(_, delay)| *delay));
        let fails = self.behaviour.fails_one_in;
        let answer = if fails > 0 && number.is_multiple_of(fails) {
            self.log.failed.fetch_add(1, Ordering::Relaxed);
            let mut refusal = message.clone();
            refusal.metadata.message_type = MessageType::Response;
            refusal.metadata.response_code = ResponseCode::ServFail;
            refusal.to_vec().ok()
        } else {
            self.ask(octets)
        };
        self.log.open.lock().unwrap().remove(&key);
        if let Some(about) = self.behaviour.about.and_then(|about| about(&key.0)) {
            let mut spans = self.log.spans.lock().unwrap();
            spans.entry(about).or_insert((asked, asked)).1 = Instant::now();
        }
        if let Some(answer) = answer {
            let _ = self.socket.send_to(&answer, from);
        }
    }

    fn ask(&self, octets: &[u8]) -> Option<Vec<u8>> {
        let socket = self.upwards.lock().unwrap().pop()?;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let answer = (|| {
            socket.send_to(octets, self.server).ok()?;
            let mut buffer = [0; 4096];
            let (length, _) = socket.recv_from(&mut buffer).ok()?;
            Some(buffer[..length].to_vec())
        })();
        self.upwards.lock().unwrap().push(socket);
        answer
    }
}
