//! Calls of scripted servers on loopback: each outcome.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::super::{LookupService, LookupSettings, ProbeSettings};
use super::resolver::Resolver;
use super::service::{settings, start};
use super::{Answer, Lookup, Reason};
use crate::policy::facts::Resolution;

const GENEROUS: Duration = Duration::from_secs(20);

/// A server that plays its script for each connection, and remembers what it heard and how many called.
struct Peer {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    calls: Arc<Mutex<usize>>,
}

/// `S: ` says a line, `C: ` hears one with that beginning; `hang up` closes, `stall` does nothing any more, `slow` waits a
/// little. Without any more lines it answers everything with 250.
async fn peer(script: &'static str) -> Peer {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heard, calls): (Arc<Mutex<Vec<String>>>, Arc<Mutex<usize>>) = Default::default();
    let (told, counted) = (Arc::clone(&heard), Arc::clone(&calls));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            *counted.lock().unwrap() += 1;
            let told = Arc::clone(&told);
            tokio::spawn(async move { play(stream, script, &told).await });
        }
    });
    Peer { address, heard, calls }
}

async fn play(stream: TcpStream, script: &str, heard: &Mutex<Vec<String>>) {
    let mut stream = BufReader::new(stream);
    let hear = async |stream: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await;
        heard.lock().unwrap().push(line.trim_end().to_owned());
        matches!(read, Ok(1..)).then_some(line)
    };
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match line.split_at_checked(3) {
            Some(("S: ", reply)) => {
                stream.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
            }
            Some(("C: ", expected)) => {
                let line = hear(&mut stream).await.unwrap_or_default();
                assert!(line.starts_with(expected), "heard {line:?} for {expected:?}");
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
    // Nothing here asks the DNS.
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
            let answered = service.lookup(&of(peer.address.ip())).await;
            assert_eq!(in_words(&answered.answer), expected, "{script}");
        }
        let peer = peer(script).await;
        let service = reach_of(&peer, |_| {}).await;
        let answered = service.lookup(&Lookup::Callout(peer.address.ip(), path)).await;
        assert_eq!(in_words(&answered.answer), call_out, "{script}");
    }
}

#[tokio::test]
async fn refused_is_not_silent() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let gone = Peer { address: free, heard: Arc::default(), calls: Arc::default() };
    let service = reach_of(&gone, |_| {}).await;
    for lookup in [Lookup::Connect(free.ip()), Lookup::Greet(free.ip())] {
        assert_eq!(in_words(&service.lookup(&lookup).await.answer), "no: refused");
    }
    // A listener whose queue is full drops SYNs.
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
    let deaf = Peer { address, heard: Arc::default(), calls: Arc::default() };
    let service = reach_of(&deaf, |_| {}).await;
    let began = Instant::now();
    let answered = service.lookup(&Lookup::Greet(address.ip())).await;
    assert_eq!(in_words(&answered.answer), "no: no_response");
    assert!(began.elapsed() < GENEROUS);
    drop(waiting);
}

/// The asker leaves at the deadline; the call goes on, and its answer is there when he comes again.
#[tokio::test]
async fn a_slow_greeting_is_waited_for_in_the_background() {
    let peer = peer("slow\nS: 220 a\nC: EHLO\nS: 250 mx").await;
    let deadline = Duration::from_millis(100);
    let service = reach_of(&peer, |settings| {
        settings.deadline = deadline;
        settings.probes.timeout = GENEROUS;
    })
    .await;
    let greet = Lookup::Greet(peer.address.ip());
    assert_eq!(in_words(&service.lookup(&greet).await.answer), "unknown: timeout");
    let began = Instant::now();
    while in_words(&service.lookup(&greet).await.answer) != "yes" {
        assert!(began.elapsed() < GENEROUS);
    }
    assert_eq!(*peer.calls.lock().unwrap(), 1);
}

#[tokio::test]
async fn large_segments_are_tried_where_wanted_and_pipelining_is_offered() {
    let offers = "S: 220 a\nC: EHLO\nS: 250-mx\nS: 250 PIPELINING";
    for (script, wanted, noops, expected) in [
        (offers, true, 4, "yes"),
        (offers, false, 0, "yes"),
        ("S: 220 a\nC: EHLO\nS: 250 mx", true, 0, "yes"),
        ("S: 220 a\nC: EHLO\nS: 250-mx\nS: 250 PIPELINING\nC: NOOP\nhang up", true, 1, "yes"),
        (
            "S: 220 a\nC: EHLO\nS: 250-mx\nS: 250 PIPELINING\nC: NOOP\nC: NOOP\nstall",
            true,
            2,
            "no: established_but_stalled",
        ),
    ] {
        let peer = peer(script).await;
        let service = reach_of(&peer, |settings| settings.probes.large_segments = wanted).await;
        let answered = service.lookup(&Lookup::Greet(peer.address.ip())).await;
        assert_eq!(in_words(&answered.answer), expected, "{script}");
        let heard = peer.heard.lock().unwrap().clone();
        let noop: Vec<_> = heard.iter().filter(|line| line.starts_with("NOOP")).collect();
        assert_eq!(noop.len(), noops, "{script}");
        assert!(noop.iter().all(|line| line.len() + 2 <= 512), "RFC 5321 §4.5.3.1.4");
        assert!(noops < 4 || noop.iter().map(|line| line.len() + 2).sum::<usize>() > 1500);
    }
}

#[tokio::test]
async fn a_path_cannot_say_anything_else() {
    let peer = peer("S: 220 a").await;
    let service = reach_of(&peer, |settings| settings.upstreams = vec![peer.address]).await;
    for path in ["a@a.example>\r\nDATA", "a\n@a.example", "<a@a.example>", "b\u{e4}@a.example", ""]
    {
        for lookup in [
            Lookup::Callout(peer.address.ip(), path.to_owned()),
            Lookup::Recipient(path.to_owned()),
        ] {
            let answered = service.lookup(&lookup).await;
            assert_eq!(in_words(&answered.answer), "unknown: no_resolver", "{path:?}");
        }
    }
    assert_eq!(*peer.calls.lock().unwrap(), 0);
}

#[tokio::test]
async fn calls_are_limited_in_all_and_of_each_server() {
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
    // At once.
    let few = ProbeSettings { max_concurrent: 3, ..probes(everywhere) };
    let (service, seen) = start(LookupSettings { probes: few, ..settings(dns) });
    let lookups: Vec<_> = ips(10).map(Lookup::Greet).collect();
    join_all(lookups.iter().map(|lookup| service.lookup(lookup))).await;
    let limited = seen.take().into_iter().filter(|how| *how == Resolution::RateLimited).count();
    assert_eq!(limited, 7);
    // In a second; a second may begin anew in between.
    let few = ProbeSettings { per_second: 2, ..probes(everywhere) };
    let (service, seen) = start(LookupSettings { probes: few, ..settings(dns) });
    let lookups: Vec<_> = ips(10).map(Lookup::Connect).collect();
    join_all(lookups.iter().map(|lookup| service.lookup(lookup))).await;
    let limited = seen.take().into_iter().filter(|how| *how == Resolution::RateLimited).count();
    assert!((5..=8).contains(&limited), "{limited}");
    // Of one server, whatever is asked of it; and what a limit kept from being asked is not kept.
    let few = ProbeSettings { per_server_per_minute: 2, timeout: GENEROUS, ..probes(port) };
    let (service, _) = start(LookupSettings { probes: few, ..settings(dns) });
    let ip = peer.address.ip();
    let third = Lookup::Callout(ip, String::from("a@a.example"));
    assert_eq!(in_words(&service.lookup(&Lookup::Connect(ip)).await.answer), "yes");
    assert_eq!(in_words(&service.lookup(&Lookup::Greet(ip)).await.answer), "yes");
    assert_eq!(in_words(&service.lookup(&third).await.answer), "unknown: rate_limited");
    assert!(!service.kept().iter().any(|(lookup, _)| *lookup == third));
}

#[tokio::test]
async fn upstream_is_asked_once_about_a_recipient() {
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
            settings.probes.timeout = GENEROUS;
        })
        .await;
        for answered in join_all((0..20).map(|_| service.lookup(&lookup))).await {
            assert_eq!(in_words(&answered.answer), expected, "{script}");
        }
        assert_eq!(*peer.calls.lock().unwrap(), 1, "{script}");
        let kept = service.kept();
        let (_, entry) = kept.first().unwrap();
        let life = entry.expires_at - entry.answered.at.unwrap();
        if expected == down {
            assert!(life < Duration::from_secs(3), "kept for {life:?}");
        }
    }
}

#[tokio::test]
async fn another_upstream_is_asked_when_the_first_is_down() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let (deaf, peer) = (peer("stall").await, peer("C: PROXY UNKNOWN\nS: 220 mx").await);
    let lookup = Lookup::Recipient(String::from("b@b.example"));
    let service = reach_of(&peer, |settings| {
        settings.upstreams = vec![free, deaf.address, peer.address];
        settings.upstream_proxy_header = b"PROXY UNKNOWN\r\n".to_vec();
        settings.deadline = Duration::from_secs(2);
    });
    assert_eq!(in_words(&service.await.lookup(&lookup).await.answer), "yes");
    let none = reach_of(&peer, |_| {}).await;
    assert_eq!(none.lookup(&lookup).await.answer, Answer::Unknown(Reason::NoResolver));
}

#[tokio::test]
async fn questions_to_upstream_are_capped() {
    let peer = peer("slow\nS: 220 mx").await;
    let resolver = Resolver::start().await;
    let (upstreams, max_pending_recipients) = (vec![peer.address], 4);
    let (service, seen) =
        start(LookupSettings { upstreams, max_pending_recipients, ..settings(resolver.address) });
    let asked: Vec<_> = (0..10).map(|n| Lookup::Recipient(format!("b{n}@b.example"))).collect();
    join_all(asked.iter().map(|lookup| service.lookup(lookup))).await;
    let how = seen.take();
    assert_eq!(how.iter().filter(|how| **how == Resolution::RateLimited).count(), 6);
    assert_eq!(*peer.calls.lock().unwrap(), 4);
    // Whoever was refused may ask again at once.
    assert_eq!(in_words(&service.lookup(&asked[9]).await.answer), "yes");
}

/// Octets that follow the leave-taking are no harm.
#[tokio::test]
async fn the_server_hears_quit() {
    let peer = peer("S: 220 a\nC: EHLO\nS: 250 mx").await;
    let service = reach_of(&peer, |_| {}).await;
    service.lookup(&Lookup::Greet(peer.address.ip())).await;
    let began = Instant::now();
    while !peer.heard.lock().unwrap().iter().any(|line| line == "QUIT") {
        assert!(began.elapsed() < GENEROUS);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut nothing = Vec::new();
    let mut stream = TcpStream::connect(peer.address).await.unwrap();
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut nothing).await.unwrap();
}
