//! The DNS server as the gateway sees it: Knot, behind a forwarder that lets some names wait, never answers others, fails
//! some, and notices a question that is asked while it is open.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::{Name, RecordType};

use super::Host;

/// How often the forwarder looks whether it is over.
const LOOK: Duration = Duration::from_millis(100);
/// How long Knot may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of questions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manners {
    /// Every answer comes so late.
    pub(crate) delay: Duration,
    /// Those to names below these come so late.
    pub(crate) slow: Vec<(Name, Duration)>,
    /// These never come.
    pub(crate) silent: Vec<Name>,
    /// Of so many questions one is answered by SERVFAIL; 0 is none.
    pub(crate) fails_one_in: u64,
    /// Whom a question is about, where that is looked at.
    pub(crate) about: Option<fn(&Name) -> Option<String>>,
}

/// What was asked.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) questions: AtomicU64,
    /// Asked while the same question was open.
    pub(crate) twice: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// How often each was asked.
    pub(crate) by_question: Mutex<BTreeMap<(String, RecordType), u64>>,
    open: Mutex<BTreeSet<(Name, RecordType)>>,
    /// By what [`Manners::about`] says: the first question, and the last answer.
    pub(crate) spans: Mutex<BTreeMap<String, (Instant, Instant)>>,
}

impl Heard {
    pub(crate) fn questions(&self) -> u64 {
        self.questions.load(Ordering::Relaxed)
    }
}

/// A running forwarder.
pub(crate) struct Resolver {
    pub(crate) heard: Arc<Heard>,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Resolver {
    /// Listens at `at` on that host and asks `server`.
    pub(crate) fn start(host: &Host, at: SocketAddr, server: SocketAddr, manners: Manners) -> Self {
        let socket = host.in_thread(|| UdpSocket::bind(at)).unwrap();
        socket.set_read_timeout(Some(LOOK)).unwrap();
        // Made where the server is; used by one question each.
        let upwards = host.in_thread(|| {
            (0..512).map(|_| UdpSocket::bind((at.ip(), 0)).unwrap()).collect::<Vec<_>>()
        });
        let (heard, over) = (Arc::<Heard>::default(), Arc::<AtomicBool>::default());
        let forwarder = Forwarder {
            socket: Arc::new(socket),
            upwards: Arc::new(Mutex::new(upwards)),
            server,
            manners: Arc::new(manners),
            heard: Arc::clone(&heard),
        };
        let ends = Arc::clone(&over);
        let thread = thread::spawn(move || forwarder.run(&ends));
        Self { heard, over, thread: Some(thread) }
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
    manners: Arc<Manners>,
    heard: Arc<Heard>,
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
        let number = self.heard.questions.fetch_add(1, Ordering::Relaxed) + 1;
        let name = (key.0.to_string(), key.1);
        *self.heard.by_question.lock().unwrap().entry(name).or_default() += 1;
        if !self.heard.open.lock().unwrap().insert(key.clone()) {
            self.heard.twice.fetch_add(1, Ordering::Relaxed);
        }
        let asked = Instant::now();
        let within = |name: &Name| name.zone_of(&key.0);
        if self.manners.silent.iter().any(within) {
            self.heard.open.lock().unwrap().remove(&key);
            return;
        }
        let slow = self.manners.slow.iter().find(|(name, _)| within(name));
        thread::sleep(slow.map_or(self.manners.delay, |(_, delay)| *delay));
        let fails = self.manners.fails_one_in;
        let answer = if fails > 0 && number.is_multiple_of(fails) {
            self.heard.failed.fetch_add(1, Ordering::Relaxed);
            let mut refusal = message.clone();
            refusal.metadata.message_type = MessageType::Response;
            refusal.metadata.response_code = ResponseCode::ServFail;
            refusal.to_vec().ok()
        } else {
            self.ask(octets)
        };
        self.heard.open.lock().unwrap().remove(&key);
        if let Some(about) = self.manners.about.and_then(|about| about(&key.0)) {
            let mut spans = self.heard.spans.lock().unwrap();
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
