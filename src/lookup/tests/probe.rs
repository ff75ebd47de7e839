//! Probes of scripted servers on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::super::probe::LARGE_ANSWERED;
use super::super::{LargeHello, LookupService, LookupSettings, ProbeSettings};
use super::resolver::Resolver;
use super::service::{settings, start};
use crate::policy::facts::Resolution;
use crate::policy::facts::{Answer, Lookup, Reason};

const DEADLINE: Duration = Duration::from_secs(20);

/// A server that follows its script in each connection; records the lines received and counts connections.
struct Peer {
    address: SocketAddr,
    received: Arc<Mutex<Vec<String>>>,
    calls: Arc<Mutex<usize>>,
}

/// `S: ` sends a line; `C: ` expects a line with that prefix; `hang up` closes; `stall` stops responding; `slow` waits for
/// 300 ms. After the script it replies 250 to every line.
async fn peer(script: &'static str) -> Peer {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (received, calls): (Arc<Mutex<Vec<String>>>, Arc<Mutex<usize>>) = Default::default();
    let (told, counted) = (Arc::clone(&received), Arc::clone(&calls));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            *counted.lock().unwrap() += 1;
            let told = Arc::clone(&told);
            tokio::spawn(async move { play(stream, script, &told).await });
        }
    });
    Peer { address, received, calls }
}

async fn play(stream: TcpStream, script: &str, received: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    let hear = async |stream: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await;
        received.lock().unwrap().push(line.trim_end().to_owned());
        matches!(read, Ok(1..)).then_some(line)
    };
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_at_checked(3) {
            Some(("S: ", reply)) => {
                stream.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
            }
            Some(("C: ", expected)) => {
                let line = hear(&mut stream).await.unwrap_or_default();
                assert!(line.starts_with(expected), "received {line:?} for {expected:?}");
            }
            _ if line == "hang up" => return,
            _ if line == "slow" => tokio::time::sleep(Duration::from_millis(300)).await,
            _ => {
                assert_eq!(line, "stall");
                std::future::pending::<()>().await;
            }
        }
    }
    while hear(&mut stream).await.is_some() {
        stream.write_all(b"250 ok\r\n").await.unwrap();
    }
}

fn probes(port: u16) -> ProbeSettings {
    ProbeSettings {
        port,
        callouts: true,
        timeout: Duration::from_millis(700),
        ..ProbeSettings::default()
    }
}

async fn reach_of(peer: &Peer, change: impl FnOnce(&mut LookupSettings)) -> LookupService {
    // No DNS queries here.
    let mut settings = settings((Ipv4Addr::LOCALHOST, 9).into());
    settings.probes = probes(peer.address.port());
    change(&mut settings);
    start(settings).0
}

fn in_words(answer: &Answer) -> String {
    match answer {
        Answer::Yes(_) => String::from("yes"),
        Answer::No(reason, detail) => {
            let told = format!("no: {} {}", reason.as_str(), detail.as_deref().unwrap_or_default());
            told.trim_end().to_owned()
        }
        Answer::Unknown(reason) => format!("unknown: {}", reason.as_str()),
        other => panic!("no answer of a probe: {other:?}"),
    }
}

#[tokio::test]
async fn each_way_of_answering_is_told_apart() {
    let callout = "S: 220 hi\nC: EHLO gate.example\nS: 250-mx\nS: 250 DSN\nC: MAIL FROM:<>\n";
    let rcpt = |reply: &str| -> &'static str {
        Box::leak(format!("{callout}S: 250 ok\nC: RCPT TO:<a@a.example>\n{reply}").into())
    };
    let unreached = Box::leak(format!("{callout}S: 550 5.7.1 no bounces").into());
    let rejected_before_rcpt = "unknown: rejected_before_rcpt";
    for (script, connect, greet, call_out) in [
        ("S: 220-a\nS: 220 b\nC: EHLO gate.example\nS: 250-mx\nS: 250 DSN", "yes", "yes", "yes"),
        ("S: 220 a\nC: EHLO\nS: 502 what\nC: HELO gate.example\nS: 250 mx", "yes", "yes", "yes"),
        ("stall", "yes", "no: established_but_stalled", "no: established_but_stalled"),
        (
            "S: 220 a\nC: EHLO\nstall",
            "yes",
            "no: established_but_stalled",
            "no: established_but_stalled",
        ),
        (
            "S: 220-and it goes on\nstall",
            "yes",
            "no: established_but_stalled",
            "no: established_but_stalled",
        ),
        ("hang up", "yes", rejected_before_rcpt, rejected_before_rcpt),
        ("S: 220 a\nC: EHLO\nhang up", "yes", rejected_before_rcpt, rejected_before_rcpt),
        ("S: 421 4.3.2 later", "yes", rejected_before_rcpt, rejected_before_rcpt),
        ("S: 554 5.7.1 not you", "yes", "no: rejected_before_rcpt 554 5.7.1", rejected_before_rcpt),
        ("S: SSH-2.0-OpenSSH", "yes", "no: rejected_before_rcpt", rejected_before_rcpt),
        (
            "S: 220 a\nC: EHLO\nS: 450 4.7.1 later",
            "yes",
            rejected_before_rcpt,
            rejected_before_rcpt,
        ),
        (
            "S: 220 a\nC: EHLO\nS: 550 no\nC: HELO\nS: 550 5.7.1 no",
            "yes",
            "no: rejected_before_rcpt 550 5.7.1",
            rejected_before_rcpt,
        ),
        (unreached, "yes", "yes", rejected_before_rcpt),
        (rcpt("S: 250 2.1.5 ok"), "yes", "yes", "yes"),
        (rcpt("S: 251 will forward"), "yes", "yes", "yes"),
        (rcpt("S: 550 5.1.1 who"), "yes", "yes", "no: no_such_mailbox 550 5.1.1"),
        (rcpt("S: 550 who"), "yes", "yes", "no: no_such_mailbox 550"),
        (rcpt("S: 550 5.7.1 you are listed"), "yes", "yes", rejected_before_rcpt),
        (rcpt("S: 450 4.2.0 greylisted"), "yes", "yes", "unknown: deferred"),
        (rcpt("hang up"), "yes", "yes", rejected_before_rcpt),
        (rcpt("stall"), "yes", "yes", "no: established_but_stalled"),
    ] {
        // A script that expects MAIL would mind QUIT.
        let greeted = script.split("C: MAIL").next().unwrap();
        let path = String::from("a@a.example");
        for (script, of, expected) in
            [(greeted, Lookup::Connect as fn(_) -> _, connect), (greeted, Lookup::Greet, greet)]
        {
            let peer = peer(script).await;
            let service = reach_of(&peer, |_| {}).await;
            let result = service.lookup(&of(peer.address.ip())).await;
            assert_eq!(in_words(&result.answer), expected, "{script}");
        }
        let peer = peer(script).await;
        let service = reach_of(&peer, |_| {}).await;
        let result = service.lookup(&Lookup::Callout(peer.address.ip(), path)).await;
        assert_eq!(in_words(&result.answer), call_out, "{script}");
    }
}

#[tokio::test]
async fn refused_differs_from_no_response() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let gone = Peer { address: free, received: Arc::default(), calls: Arc::default() };
    let service = reach_of(&gone, |_| {}).await;
    for lookup in [Lookup::Connect(free.ip()), Lookup::Greet(free.ip())] {
        assert_eq!(in_words(&service.lookup(&lookup).await.answer), "no: refused");
    }
    // A listener with a full queue drops SYNs.
    let full = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    full.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        let _in_progress = socket.connect(&address.into());
        waiting.push(socket);
    }
    let deaf = Peer { address, received: Arc::default(), calls: Arc::default() };
    let service = reach_of(&deaf, |_| {}).await;
    let began = Instant::now();
    let result = service.lookup(&Lookup::Greet(address.ip())).await;
    assert_eq!(in_words(&result.answer), "no: no_response");
    assert!(began.elapsed() < DEADLINE);
    drop(waiting);
}

/// The caller gets an unknown answer at the deadline; the probe continues, and a later caller gets its result.
#[tokio::test]
async fn a_probe_continues_after_the_deadline() {
    let peer = peer("slow\nS: 220 a\nC: EHLO\nS: 250 mx").await;
    let deadline = Duration::from_millis(100);
    let service = reach_of(&peer, |settings| {
        settings.deadline = deadline;
        settings.probes.timeout = DEADLINE;
    })
    .await;
    let greet = Lookup::Greet(peer.address.ip());
    assert_eq!(in_words(&service.lookup(&greet).await.answer), "unknown: timeout");
    let began = Instant::now();
    while in_words(&service.lookup(&greet).await.answer) != "yes" {
        assert!(began.elapsed() < DEADLINE);
    }
    assert_eq!(*peer.calls.lock().unwrap(), 1);
}

fn hello() -> LargeHello {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    LargeHello(Arc::new(config))
}

#[tokio::test]
async fn large_segments_need_the_option() {
    let offers = "S: 220 a\nC: EHLO\nS: 250-mx\nS: 250 STARTTLS\n";
    let answered = Answer::Yes(Some(LARGE_ANSWERED.to_owned()));
    let stalled = Answer::No(Reason::EstablishedButStalled, None);
    let with = |end: &str| -> &'static str { Box::leak(format!("{offers}{end}").into()) };
    for (script, wanted, expected) in [
        (with("C: QUIT"), false, Answer::Yes(None)),
        // Without STARTTLS one long command.
        ("S: 220 a\nC: EHLO\nS: 250 mx\nC: NOOP xxx\nS: 250 ok\nC: QUIT", true, answered.clone()),
        ("S: 220 a\nC: EHLO\nS: 250 mx\nC: NOOP xxx\nS: 500 what\nC: QUIT", true, answered.clone()),
        ("S: 220 a\nC: EHLO\nS: 250 mx\nC: NOOP xxx\nhang up", true, answered.clone()),
        ("S: 220 a\nC: EHLO\nS: 250 mx\nC: NOOP xxx\nstall", true, stalled.clone()),
        ("S: 220 a\nC: EHLO\nS: 250 mx\nC: QUIT", false, Answer::Yes(None)),
        (with("C: STARTTLS\nS: 454 4.7.0 no key\nC: QUIT"), true, Answer::Yes(None)),
        (with("C: STARTTLS\nS: 220 go\nhang up"), true, answered.clone()),
        // Not TLS, but an answer.
        (with("C: STARTTLS\nS: 220 go\nS: what"), true, answered),
        (with("C: STARTTLS\nS: 220 go\nstall"), true, stalled.clone()),
        (with("C: STARTTLS\nstall"), true, stalled),
    ] {
        let peer = peer(script).await;
        let service = reach_of(&peer, |settings| settings.large_hello = wanted.then(hello)).await;
        let result = service.lookup(&Lookup::Greet(peer.address.ip())).await;
        assert_eq!(result.answer, expected, "{script}");
    }
}

/// The ClientHello fills a segment of a link with 1500 bytes, which has 1428 over IPv6 with timestamps.
#[tokio::test]
async fn the_large_segment_is_large() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let peer = Peer { address, received: Arc::default(), calls: Arc::default() };
    let service = reach_of(&peer, |settings| settings.large_hello = Some(hello())).await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = vec![0; 4096];
        let mut length = 0;
        for reply in ["220 a\r\n", "250-mx\r\n250 STARTTLS\r\n", "220 go\r\n"] {
            stream.write_all(reply.as_bytes()).await.unwrap();
            length = stream.read(&mut received).await.unwrap();
        }
        length
    };
    let lookup = Lookup::Greet(address.ip());
    let (length, _) = tokio::join!(serve, service.lookup(&lookup));
    assert!(length >= 1428, "{length}");
}

/// A probe that needs no greeting nevertheless leaves like a client.
#[tokio::test]
async fn a_connection_probe_waits_for_the_greeting_and_quits() {
    for script in ["slow\nS: 220 a\nC: QUIT", "slow\nS: 554 5.7.1 not you\nC: QUIT"] {
        let peer = peer(script).await;
        let service = reach_of(&peer, |_| {}).await;
        let began = Instant::now();
        let result = service.lookup(&Lookup::Connect(peer.address.ip())).await;
        assert_eq!(in_words(&result.answer), "yes");
        assert!(began.elapsed() < Duration::from_millis(250), "the answer does not wait");
        expect_quit(&peer).await;
    }
}

/// After a rejection, too.
#[tokio::test]
async fn a_rejected_probe_quits() {
    for script in [
        "S: 554 5.7.1 not you",
        "S: 220 a\nC: EHLO\nS: 450 4.7.1 later",
        "S: 220 a\nC: EHLO\nS: 250 mx\nC: MAIL\nS: 550 5.7.1 no bounces",
    ] {
        let peer = peer(script).await;
        let service = reach_of(&peer, |_| {}).await;
        let callout = Lookup::Callout(peer.address.ip(), String::from("a@a.example"));
        service.lookup(&callout).await;
        expect_quit(&peer).await;
    }
}

async fn expect_quit(peer: &Peer) {
    let began = Instant::now();
    while !peer.received.lock().unwrap().iter().any(|line| line == "QUIT") {
        assert!(began.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_path_cannot_inject_commands() {
    let peer = peer("S: 220 a").await;
    let service = reach_of(&peer, |settings| settings.upstreams = vec![peer.address]).await;
    for path in [
        "a@a.example>\r\nDATA",
        "a\n@a.example",
        "<a@a.example>",
        "a@a.example> X=1",
        "a b@a.example",
        "@r.example:a@a.example",
        "a",
        "",
    ] {
        for lookup in [
            Lookup::Callout(peer.address.ip(), path.to_owned()),
            Lookup::Recipient(path.to_owned()),
        ] {
            let result = service.lookup(&lookup).await;
            assert_eq!(in_words(&result.answer), "unknown: no_resolver", "{path:?}");
        }
    }
    assert_eq!(*peer.calls.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_path_beyond_ascii_asks_for_smtputf8() {
    let script = "S: 220 a
        C: EHLO
        S: 250 mx
        C: MAIL FROM:<> SMTPUTF8
        S: 250 ok
        C: RCPT TO:<b\u{e4}@a.example>
        S: 250 ok";
    let peer = peer(script).await;
    let service = reach_of(&peer, |settings| settings.upstreams = vec![peer.address]).await;
    let path = "b\u{e4}@a.example";
    for lookup in
        [Lookup::Callout(peer.address.ip(), path.to_owned()), Lookup::Recipient(path.to_owned())]
    {
        assert_eq!(in_words(&service.lookup(&lookup).await.answer), "yes", "{lookup:?}");
    }
}

#[tokio::test]
async fn probes_are_limited_in_total_and_per_server() {
    let peer = peer("slow\nS: 220 a\nC: EHLO\nS: 250 mx").await;
    let port = peer.address.port();
    let ips = |count: u8| (1..=count).map(|n| Ipv4Addr::new(127, 0, 0, n).into());
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let everywhere = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            held.push(listener.accept().await.unwrap().0);
        }
    });
    let dns = (Ipv4Addr::LOCALHOST, 9).into();
    // Concurrent probes.
    let few = ProbeSettings { max_concurrent: 3, ..probes(everywhere) };
    let (service, events) = start(LookupSettings { probes: few, ..settings(dns) });
    let lookups: Vec<_> = ips(10).map(Lookup::Greet).collect();
    join_all(lookups.iter().map(|lookup| service.lookup(lookup))).await;
    let limited = events.take().into_iter().filter(|how| *how == Resolution::RateLimited).count();
    assert_eq!(limited, 7);
    // Probes per second; a new second may begin meanwhile.
    let few = ProbeSettings { per_second: 2, ..probes(everywhere) };
    let (service, events) = start(LookupSettings { probes: few, ..settings(dns) });
    let lookups: Vec<_> = ips(10).map(Lookup::Connect).collect();
    join_all(lookups.iter().map(|lookup| service.lookup(lookup))).await;
    let limited = events.take().into_iter().filter(|how| *how == Resolution::RateLimited).count();
    assert!((5..=8).contains(&limited), "{limited}");
    // Probes of one server, of any kind; an answer that a limit prevented is not cached.
    let few = ProbeSettings { per_server_per_minute: 2, timeout: DEADLINE, ..probes(port) };
    let (service, _) = start(LookupSettings { probes: few, ..settings(dns) });
    let ip = peer.address.ip();
    let third = Lookup::Callout(ip, String::from("a@a.example"));
    assert_eq!(in_words(&service.lookup(&Lookup::Connect(ip)).await.answer), "yes");
    assert_eq!(in_words(&service.lookup(&Lookup::Greet(ip)).await.answer), "yes");
    assert_eq!(in_words(&service.lookup(&third).await.answer), "unknown: rate_limited");
    assert!(!service.all_entries().iter().any(|(lookup, _)| *lookup == third));
}

#[tokio::test]
async fn a_recipient_is_verified_once() {
    let start = "S: 220 mx\nC: EHLO gate.example\nS: 250 mx\nC: MAIL FROM:<>\nS: 250 ok\nC: RCPT TO:<b@b.example>\n";
    let with = |end: &str| -> &'static str { Box::leak(format!("{start}{end}").into()) };
    let down = "unknown: upstream_down";
    let lookup = Lookup::Recipient(String::from("b@b.example"));
    for (script, expected) in [
        (with("slow\nS: 250 2.1.5 ok"), "yes"),
        (with("S: 550 5.1.1 who"), "no: no_such_mailbox 550 5.1.1"),
        (with("S: 554 5.7.1 relay access denied"), "no: no_such_mailbox 554 5.7.1"),
        (with("S: 451 4.3.0 later"), "unknown: deferred"),
        (with("hang up"), down),
        ("S: 421 busy", down),
        ("S: 554 no", down),
        ("hang up", down),
        ("S: 220 mx\nC: EHLO\nS: 250 mx\nC: MAIL\nS: 550 no", down),
    ] {
        let peer = peer(script).await;
        let service = reach_of(&peer, |settings| {
            settings.upstreams = vec![peer.address];
            settings.probes.timeout = DEADLINE;
        })
        .await;
        for result in join_all((0..20).map(|_| service.lookup(&lookup))).await {
            assert_eq!(in_words(&result.answer), expected, "{script}");
        }
        assert_eq!(*peer.calls.lock().unwrap(), 1, "{script}");
        let entries = service.all_entries();
        let (_, entry) = entries.first().unwrap();
        let ttl = entry.expires_at - entry.result.at.unwrap();
        if expected == down {
            assert!(ttl < Duration::from_secs(3), "cached for {ttl:?}");
        }
    }
}

#[tokio::test]
async fn the_next_upstream_verifies_when_the_first_is_down() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let (deaf, peer) =
        (peer("stall").await, peer("C: PROXY TCP4 127.0.0.1 127.0.0.1 \nS: 220 mx").await);
    let lookup = Lookup::Recipient(String::from("b@b.example"));
    let service = reach_of(&peer, |settings| {
        settings.upstreams = vec![free, deaf.address, peer.address];
        settings.upstream_proxy_v1 = true;
        settings.deadline = Duration::from_secs(2);
    });
    assert_eq!(in_words(&service.await.lookup(&lookup).await.answer), "yes");
    let none = reach_of(&peer, |_| {}).await;
    assert_eq!(none.lookup(&lookup).await.answer, Answer::Unknown(Reason::NoResolver));
}

#[tokio::test]
async fn pending_verifications_are_limited() {
    let peer = peer("slow\nS: 220 mx").await;
    let resolver = Resolver::start().await;
    let (upstreams, max_pending_recipients) = (vec![peer.address], 4);
    let (service, events) =
        start(LookupSettings { upstreams, max_pending_recipients, ..settings(resolver.address) });
    let query: Vec<_> = (0..10).map(|n| Lookup::Recipient(format!("b{n}@b.example"))).collect();
    join_all(query.iter().map(|lookup| service.lookup(lookup))).await;
    let how = events.take();
    assert_eq!(how.iter().filter(|how| **how == Resolution::RateLimited).count(), 6);
    assert_eq!(*peer.calls.lock().unwrap(), 4);
    // A lookup over the limit may be repeated at once.
    assert_eq!(in_words(&service.lookup(&query[9]).await.answer), "yes");
}

#[tokio::test]
async fn a_probe_ends_with_quit() {
    let peer = peer("S: 220 a\nC: EHLO\nS: 250 mx").await;
    let service = reach_of(&peer, |_| {}).await;
    service.lookup(&Lookup::Greet(peer.address.ip())).await;
    expect_quit(&peer).await;
    let mut nothing = Vec::new();
    let mut stream = TcpStream::connect(peer.address).await.unwrap();
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut nothing).await.unwrap();
}
