//! A vantage on loopback: results, and refused requests.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::vantage::{
    ProbedAddress, RequestEvent, RequestLog, SharedKey, Vantage, VantageCanaries, VantageError,
    VantageResult, VantageServer, VantageServerSettings, VantageSettings, serve,
};
use super::super::{LookupService, LookupSettings, ProbeSettings, Ttls};
use super::name;
use super::resolver::Resolver;
use super::service::settings;
use crate::addr::Family;
use crate::policy::facts::{Answer, Reason};
use crate::smtp_connection::CanarySender;
use crate::tls::{UpstreamVerification, upstream_config};

static FILES: AtomicUsize = AtomicUsize::new(0);

/// Removed on drop.
struct KeyFile(PathBuf);

impl KeyFile {
    fn with(text: &str) -> Self {
        let file = format!("{}-{}", std::process::id(), FILES.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("gatepost-vantage-{file}.key"));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn of(digit: char) -> Self {
        Self::with(&format!("{}\n", digit.to_string().repeat(64)))
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _result = fs::remove_file(&self.0);
    }
}

/// A vantage for four domains; exchanges are at 192.0.2.1, which does not exist.
async fn vantage(key: &KeyFile, resolver: &Resolver, rate: u32) -> SocketAddr {
    vantage_with(key, resolver, rate, Arc::new(())).await
}

async fn vantage_with(
    key: &KeyFile,
    resolver: &Resolver,
    rate: u32,
    log: Arc<dyn RequestLog>,
) -> SocketAddr {
    vantage_that_sends(key, resolver, rate, log, None).await
}

async fn vantage_that_sends(
    key: &KeyFile,
    resolver: &Resolver,
    rate: u32,
    log: Arc<dyn RequestLog>,
    canaries: Option<VantageCanaries>,
) -> SocketAddr {
    let zero = Duration::ZERO;
    let ttls =
        Ttls { probe_positive: zero, probe_negative: zero, unknown: zero, ..Ttls::default() };
    let probes = ProbeSettings { timeout: Duration::from_millis(300), ..ProbeSettings::default() };
    let deadline = Duration::from_millis(500);
    let settings = LookupSettings { ttls, probes, deadline, ..settings(resolver.address) };
    let (service, _) = LookupService::start(settings, Arc::new(())).unwrap();
    let server_settings = VantageServerSettings {
        key: SharedKey::read(&key.0).unwrap(),
        domains: BTreeSet::from(
            ["nx", "silent", "gone", "a"].map(|it| name(&format!("{it}.example"))),
        ),
        requests_per_minute: NonZeroU32::new(rate).unwrap(),
        only_global: true,
        canaries,
        reports: None,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, VantageServer::new(server_settings, service, log)));
    address
}

fn client(address: SocketAddr, key: &KeyFile) -> Vantage {
    let timeout = Duration::from_secs(10);
    let settings = VantageSettings { address, key: key.0.clone(), domains: Vec::new(), timeout };
    Vantage::new(&settings, None).unwrap()
}

#[tokio::test]
async fn a_vantage_reports_each_address() {
    let (key, resolver) = (KeyFile::of('a'), Resolver::start().await);
    let asking = client(vantage(&key, &resolver, 60).await, &key);
    let none = VantageResult::Addresses(Vec::new());
    assert_eq!(asking.probe(&name("nx.example"), Family::Ipv6).await.unwrap(), none);
    let unknown = VantageResult::Unknown(Reason::Timeout);
    assert_eq!(asking.probe(&name("silent.example"), Family::Ipv4).await.unwrap(), unknown);
    // mx.a.example is at 192.0.2.1: no route, or no response.
    let found = asking.probe(&name("a.example"), Family::Ipv4).await.unwrap();
    let VantageResult::Addresses(probed) = &found else { panic!("{found:?}") };
    assert_eq!((probed[0].host.to_string(), probed.len()), (String::from("mx.a.example"), 1));
    assert_eq!(probed[0].ip, Ipv4Addr::new(192, 0, 2, 1));
    assert_ne!(probed[0].answer, Answer::Yes(None));
}

#[tokio::test]
async fn canaries_go_to_mailboxes_of_the_domains_only() {
    let (key, resolver) = (KeyFile::of('a'), Resolver::start().await);
    let mute = client(vantage(&key, &resolver, 60).await, &key);
    let refused = |error: VantageError| match error {
        VantageError::Refused { status, why, .. } => (status.as_u16(), why),
        other => panic!("{other}"),
    };
    let error = refused(mute.send_canaries("canary@a.example").await.unwrap_err());
    let why = "this vantage sends no canaries; start it with --canary-from";
    assert_eq!(error, (403, why.to_owned()));

    let tls = upstream_config(&UpstreamVerification::None).unwrap();
    let timeout = Duration::from_millis(300);
    let sender = CanarySender { hostname: "v.example".to_owned(), timeout, tls };
    let canaries = VantageCanaries::new(sender, "check@v.example".to_owned(), 2);
    let address = vantage_that_sends(&key, &resolver, 60, Arc::new(()), Some(canaries)).await;
    let asking = client(address, &key);
    for (to, domain) in [
        ("canary@elsewhere.example", "elsewhere.example"),
        ("canary@a.example>\r\nRCPT TO:<b@elsewhere.example", "the recipient"),
        ("elsewhere.example!canary@a.example", "the recipient"),
        ("a.example", "the recipient"),
    ] {
        let error = refused(asking.send_canaries(to).await.unwrap_err());
        assert_eq!(error, (403, format!("{domain} is not among the domains of this vantage")));
    }
    // mx.a.example is at 192.0.2.1, where nothing is; gone.example has no exchange.
    let pair = asking.send_canaries("canary@a.example").await.unwrap();
    let delivery = pair.ipv4.delivery.unwrap();
    assert_eq!(delivery.code, None);
    assert!(delivery.server.unwrap().starts_with("mx.a.example 192.0.2.1:25"));
    assert!(asking.send_canaries("canary@nx.example").await.is_ok());
    let (status, why) = refused(asking.send_canaries("canary@a.example").await.unwrap_err());
    assert_eq!((status, &*why), (429, "2 pairs were sent in 24 hours, which is the limit"));
}

#[test]
fn one_reachable_address_proves_the_receive_path() {
    let probed = |answer| ProbedAddress {
        host: name("mx.a.example"),
        ip: [192, 0, 2, 1].into(),
        answer,
        large: false,
    };
    let found = |answers: &[Answer]| {
        VantageResult::Addresses(answers.iter().cloned().map(probed).collect()).receive_path()
    };
    let (yes, no) = (Answer::Yes(None), Answer::No(Reason::NoResponse, None));
    let unknown = Answer::Unknown(Reason::RejectedBeforeRcpt);
    let detail = Some(String::from("mx.a.example 192.0.2.1"));
    let not_reached = Answer::No(Reason::NotReached, detail.clone());
    assert_eq!(found(&[no.clone(), unknown.clone(), yes]), Answer::Yes(detail));
    assert_eq!(found(&[no.clone(), no.clone()]), not_reached);
    assert_eq!(found(&[no, unknown.clone()]), unknown);
    assert_eq!(found(&[]), Answer::No(Reason::NoUsableAddress, None));
    assert_eq!(
        VantageResult::Unknown(Reason::Servfail).receive_path(),
        Answer::Unknown(Reason::Servfail)
    );
}

#[tokio::test]
async fn refused_requests_have_a_reason() {
    let (key, other) = (KeyFile::of('a'), KeyFile::of('b'));
    let resolver = Resolver::start().await;
    let address = vantage(&key, &resolver, 3).await;
    let refused = |error: VantageError| match error {
        VantageError::Refused { status, why, .. } => (status.as_u16(), why),
        other => panic!("{other}"),
    };
    let asking = client(address, &key);
    let reply = refused(asking.probe(&name("b.example"), Family::Ipv6).await.unwrap_err());
    assert_eq!(reply, (403, String::from("b.example is not among the domains of this vantage")));
    let stranger = client(address, &other);
    let reply = refused(stranger.probe(&name("nx.example"), Family::Ipv6).await.unwrap_err());
    assert_eq!(reply, (401, String::from("the signature is wrong: do both have the same key?")));
    let mut results = Vec::new();
    for _ in 0..4 {
        results.push(asking.probe(&name("nx.example"), Family::Ipv6).await);
    }
    let last = results.pop().unwrap().unwrap_err();
    assert!(results.into_iter().all(|result| result.is_ok()));
    assert_eq!(refused(last), (429, String::from("too many requests; wait a minute")));

    // Nothing listens there.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let error = client(free, &key).probe(&name("nx.example"), Family::Ipv6).await.unwrap_err();
    assert!(matches!(error, VantageError::Connect(_)), "{error}");
}

#[tokio::test]
async fn bad_input_gets_a_clear_error() {
    let (key, resolver) = (KeyFile::of('a'), Resolver::start().await);
    let address = vantage(&key, &resolver, 60).await;
    let long = format!(
        "POST /probe HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n{}",
        "x".repeat(5000)
    );
    for (request, status, why) in [
        ("GET /probe HTTP/1.1\r\nHost: a\r\n\r\n", "405", "method not allowed; use POST"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "404",
            "not found; the paths are /probe, /canary and /canary-reports",
        ),
        (
            "POST /probe HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "401",
            "the request has no signature",
        ),
        (
            "POST /probe HTTP/1.1\r\nHost: a\r\ngatepost-signature: zz\r\nContent-Length: 2\r\n\r\n{}",
            "401",
            "the signature is wrong: do both have the same key?",
        ),
        (&long, "413", "longer than 4096 bytes"),
        ("nonsense\r\n\r\n", "400", ""),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        let _reset_after_413 = stream.read_to_end(&mut bytes).await;
        let reply = String::from_utf8_lossy(&bytes);
        assert!(reply.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {reply}");
        assert!(reply.contains(why), "{request}: {reply}");
    }
}

/// Collects the lines of the log.
#[derive(Default)]
struct Lines(Mutex<Vec<String>>);

impl RequestLog for Lines {
    fn log(&self, _: SocketAddr, event: RequestEvent<'_>) {
        self.0.lock().unwrap().push(event.to_string());
    }
}

/// A client that does not finish its request holds its connection for seconds, and one network holds few.
#[tokio::test]
async fn slow_and_greedy_clients_are_cut_off_and_logged() {
    let (key, resolver) = (KeyFile::of('a'), Resolver::start().await);
    let lines = Arc::new(Lines::default());
    let address =
        vantage_with(&key, &resolver, 60, Arc::clone(&lines) as Arc<dyn RequestLog>).await;
    let head = "POST /probe HTTP/1.1\r\nHost: a\r\ngatepost-signature: aa\r\n";
    let began = Instant::now();
    let slow = ["", "POST /pro", head, &format!("{head}Content-Length: 40\r\n\r\n{{\"domain\"")]
        .map(str::to_owned)
        .map(async |part| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(part.as_bytes()).await.unwrap();
            let mut reply = Vec::new();
            let _reset = stream.read_to_end(&mut reply).await;
            String::from_utf8_lossy(&reply).into_owned()
        });
    let replies = join_all(slow).await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(9), "{took:?}");
    assert!(replies[3].contains("the body did not arrive in time"), "{replies:?}");

    let mut held = Vec::new();
    for _ in 0..16 {
        held.push(TcpStream::connect(address).await.unwrap());
    }
    let mut over = TcpStream::connect(address).await.unwrap();
    assert_eq!(over.read(&mut [0; 16]).await.unwrap_or(0), 0, "closed at once");
    drop((held, over));
    let asking = client(address, &key);
    let probe = async || asking.probe(&name("nx.example"), Family::Ipv6).await;
    while probe().await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lines = lines.0.lock().unwrap().join("\n");
    for expected in [
        "closed without a request: ",
        "rejected with 408: the body did not arrive in time",
        "closed: its network has too many connections",
        "probed nx.example over ipv6: no address",
    ] {
        assert!(lines.contains(expected), "{expected}: {lines}");
    }
}

/// An eavesdropper repeats the request, changes it, or forges a response.
#[tokio::test]
async fn captured_requests_cannot_be_reused() {
    let (key, resolver) = (KeyFile::of('a'), Resolver::start().await);
    let address = vantage(&key, &resolver, 60).await;
    // A proxy that records the request.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let between = listener.local_addr().unwrap();
    let received = tokio::spawn(async move {
        let (mut from, _) = listener.accept().await.unwrap();
        let mut to = TcpStream::connect(address).await.unwrap();
        let mut bytes = vec![0; 4096];
        let count = from.read(&mut bytes).await.unwrap();
        bytes.truncate(count);
        to.write_all(&bytes).await.unwrap();
        tokio::io::copy(&mut to, &mut from).await.unwrap();
        bytes
    });
    let result = client(between, &key).probe(&name("nx.example"), Family::Ipv6).await;
    assert_eq!(result.unwrap(), VantageResult::Addresses(Vec::new()));
    let received = String::from_utf8(received.await.unwrap()).unwrap();
    for (reply, status, why) in [
        (received.clone(), "401", "the request is a repetition"),
        (received.replace("ipv6", "ipv4"), "401", "the signature is wrong"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(reply.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(why), "{answer}");
    }

    // Responses without a signature.
    for answer in ["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "SSH-2.0-OpenSSH\r\n"] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let forger = client(listener.local_addr().unwrap(), &key);
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            let _request = stream.read(&mut bytes).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let error = forger.probe(&name("nx.example"), Family::Ipv6).await.unwrap_err();
        assert!(matches!(error, VantageError::Forged(_) | VantageError::Lost { .. }), "{error}");
    }
}

#[test]
fn a_key_is_64_hexadecimal_digits() {
    for (text, good) in [
        ("a".repeat(64), true),
        (format!("  {}\n", "0F".repeat(32)), true),
        ("a".repeat(63), false),
        ("a".repeat(66), false),
        ("g".repeat(64), false),
        (String::new(), false),
    ] {
        let file = KeyFile::with(&text);
        assert_eq!(SharedKey::read(&file.0).is_ok(), good, "{text}");
    }
    let error = SharedKey::read(std::path::Path::new("/nowhere/key")).unwrap_err().to_string();
    assert!(error.contains("openssl rand -hex 32"), "{error}");
}
