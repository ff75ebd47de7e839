//! How much of a client a waiting session holds, and that the bytes pass unchanged afterwards.

use std::net::Ipv4Addr;

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::*;
use crate::addr::{ClientAddr, Networks, OriginalDst, UpstreamAddr};
use crate::engine::{Profile, Timeouts};
use crate::policy::PolicyAction;
use crate::policy::facts::{Answer, Lookup, LookupResult, Source};
use crate::policy::rules::{FactName, PolicyRule, PolicyRules, Requirement, RuleMode, When};
use crate::relay::lookups::{LookupFuture, LookupProvider};

/// More than a waiting session may hold, and more than it held before there was a bound.
const FLOOD: usize = 200 * 1024;
const LINE_LENGTH: usize = 2048;
/// Fails the test if it is needed.
const DEADLINE: Duration = Duration::from_secs(20);

/// Answers once the gate is open.
struct Gated(Shared<BoxFuture<'static, ()>>);

impl LookupProvider for Gated {
    fn lookup(&self, _: Lookup) -> LookupFuture {
        let gate = self.0.clone();
        Box::pin(async move {
            gate.await;
            LookupResult { answer: Answer::Yes(None), source: Source::Upstream, at: None }
        })
    }
}

/// A pump with the test at both of its sockets.
struct Fixture {
    pump: Pump,
    client: TcpStream,
    upstream: TcpStream,
    open_gate: oneshot::Sender<()>,
}

async fn socket_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (peer, listener.accept().await.unwrap().0)
}

impl Fixture {
    async fn new(rules: Vec<PolicyRule>) -> Self {
        let (client, at_client) = socket_pair().await;
        let (upstream, at_upstream) = socket_pair().await;
        let mut profile = Profile {
            rules: PolicyRules::new(rules, Networks::default()).into(),
            ..Profile::default()
        };
        profile.limits.line_length = LINE_LENGTH;
        let clock = RelayClock::start();
        let address = ClientAddr::new("192.0.2.1:1000".parse().unwrap());
        let destination = OriginalDst::new("192.0.2.25:25".parse().unwrap());
        let (open_gate, gate) = oneshot::channel();
        let gate = Gated(gate.map(drop).boxed().shared());
        let mut pump = Pump::new(PumpParts {
            engine: Proxy::new(
                profile.into(),
                Timeouts::RFC_5321,
                address,
                destination,
                clock.now(),
            ),
            address,
            observer: Arc::new(()),
            tap: SessionTap::default(),
            lookups: PendingLookups::new(Arc::new(gate), address.ip()),
            clock,
            line_length: LINE_LENGTH,
            tls: None,
            failed_handshakes: None,
            client: RelayEndpoint::new(RelayStream::Tcp(at_client), Vec::new(), Vec::new()),
        });
        assert!(pump.with_engine(|engine, _, out| engine.open(None, out)).await);
        let address = UpstreamAddr::new(destination.socket());
        pump.with_engine(|engine, at, out| engine.on_connected(address, at, out)).await;
        pump.set_upstream(
            RelayEndpoint::new(RelayStream::Tcp(at_upstream), Vec::new(), Vec::new()),
            None,
        );
        Self { pump, client, upstream, open_gate }
    }

    /// Runs the pump until `done` completes.
    async fn run<T>(pump: &mut Pump, done: impl Future<Output = T>) -> T {
        let both = async {
            tokio::pin!(done);
            let mut is_over = false;
            loop {
                tokio::select! {
                    biased;
                    () = std::future::poll_fn(|cx| pump.poll(cx)), if !is_over => is_over = true,
                    result = &mut done => return result,
                }
            }
        };
        timeout(DEADLINE, both).await.expect("no end")
    }
}

/// Sends in the background: the gateway does not read all of it yet.
fn send(mut to: OwnedWriteHalf, bytes: Vec<u8>) {
    tokio::spawn(async move { to.write_all(&bytes).await.map(|()| to) });
}

fn recipient_rule() -> PolicyRule {
    let fact = FactName::Recipient;
    PolicyRule {
        name: "recipient".into(),
        at: fact.stage(),
        when: When::default(),
        exempt: Vec::new(),
        require: vec![Requirement::new(fact)],
        otherwise: PolicyAction::Reject,
        on_unknown: PolicyAction::Tempfail,
        mode: RuleMode::Enforce,
        url: None,
    }
}

#[tokio::test]
async fn a_client_that_floods_before_the_greeting_is_read_up_to_a_line() {
    let lines = b"NOOP of a client that does not wait\r\n".repeat(FLOOD / 37 + 1);
    // A line without end is discarded as it comes.
    for (flood, least, most) in [(lines, 1, LINE_LENGTH), (vec![b'x'; FLOOD], 0, AUTH_LINE)] {
        let Fixture { mut pump, client, upstream: _silent, .. } = Fixture::new(Vec::new()).await;
        let (_replies, to) = client.into_split();
        send(to, flood);
        Fixture::run(&mut pump, sleep(Duration::from_millis(200))).await;
        let held = pump.client.unconsumed.capacity();
        assert!((least..=most).contains(&held), "{held} bytes of at most {most}");
    }
}

/// Both before the greeting is complete: postscreen(8) tests whether the client waits.
#[tokio::test]
async fn a_line_of_the_greeting_and_an_early_line_of_the_client_pass_at_once() {
    let Fixture { mut pump, mut client, mut upstream, .. } = Fixture::new(Vec::new()).await;
    let both = async {
        let mut received = [0; 12];
        upstream.write_all(b"220-teaser\r\n").await.unwrap();
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"220-teaser\r\n");
        client.write_all(b"EHLO a.b\r\n").await.unwrap();
        upstream.read_exact(received.get_mut(..10).unwrap()).await.unwrap();
        assert_eq!(received.get(..10).unwrap(), b"EHLO a.b\r\n");
    };
    Fixture::run(&mut pump, both).await;
}

#[tokio::test]
async fn a_client_that_floods_during_a_lookup_is_read_up_to_a_line_and_its_mail_passes() {
    let fixture = Fixture::new(vec![recipient_rule()]).await;
    let Fixture { mut pump, client, upstream, open_gate } = fixture;
    let (mut replies, to) = client.into_split();
    let server = tokio::spawn(serve(upstream));
    let line = "The content of a message, sent before the reply to DATA.\r\n";
    let content = line.repeat(FLOOD / line.len());
    let envelope = "EHLO a.example\r\nMAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n";
    send(to, format!("{envelope}{content}.\r\nQUIT\r\n").into_bytes());
    Fixture::run(&mut pump, sleep(Duration::from_millis(200))).await;
    let held = pump.client.unconsumed.len();
    let most = LINE_LENGTH + SMALL_READ;
    assert!((1..=most).contains(&held), "{held} bytes of at most {most}");

    open_gate.send(()).unwrap();
    let mut all = Vec::new();
    let until_closed = async {
        while !all.ends_with(b"221 bye\r\n") {
            assert_ne!(replies.read_buf(&mut all).await.unwrap(), 0, "no reply to QUIT");
        }
    };
    Fixture::run(&mut pump, until_closed).await;
    assert!(server.await.unwrap().contains(&content), "all of the content, unchanged");
}

/// RFC 4954 §4: 12288 bytes, more than `limits.line_length`.
#[tokio::test]
async fn the_longest_auth_line_passes() {
    let Fixture { mut pump, client, upstream, .. } = Fixture::new(Vec::new()).await;
    let (mut replies, mut to) = client.into_split();
    let server = tokio::spawn(serve(upstream));
    let response = "A".repeat(AUTH_LINE - 2);
    let dialogue = async {
        for (command, reply) in [
            ("", "220 mx"),
            ("EHLO a.example", "250 AUTH PLAIN"),
            ("AUTH PLAIN", "334 "),
            (response.as_str(), "250 ok"),
            ("QUIT", "221 bye"),
        ] {
            // In two parts: the first is an incomplete line.
            let (first, rest) = command.split_at(command.len() / 2);
            to.write_all(first.as_bytes()).await.unwrap();
            sleep(Duration::from_millis(20)).await;
            if !command.is_empty() {
                to.write_all(format!("{rest}\r\n").as_bytes()).await.unwrap();
            }
            let mut received = Vec::new();
            while !received.ends_with(format!("{reply}\r\n").as_bytes()) {
                assert_ne!(replies.read_buf(&mut received).await.unwrap(), 0, "{reply}");
            }
        }
    };
    Fixture::run(&mut pump, dialogue).await;
    assert!(server.await.unwrap().contains(&response));
}

/// An upstream that accepts everything; returns what it received.
async fn serve(stream: TcpStream) -> String {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    let (mut received, mut in_content) = (String::new(), false);
    write.write_all(b"220 mx\r\n").await.unwrap();
    loop {
        let start = received.len();
        lines.read_line(&mut received).await.unwrap();
        let line = received.split_at(start).1.trim_end();
        let reply = match line.split(' ').next().unwrap() {
            "." => "250 queued",
            _ if in_content => continue,
            "EHLO" => "250-mx\r\n250-PIPELINING\r\n250 AUTH PLAIN",
            "DATA" => "354 go",
            "AUTH" => "334 ",
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        in_content = reply == "354 go";
        write.write_all(format!("{reply}\r\n").as_bytes()).await.unwrap();
        if reply == "221 bye" {
            return received;
        }
    }
}
