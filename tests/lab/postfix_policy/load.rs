//! Many questions over several connections.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use super::{lines_with, policy_only};
use crate::harness::tests;
use crate::support::{Gateway, Lab};

tests![
    Alone: many_connections_ask_at_once
];

const CONNECTIONS: usize = 8;
const SESSIONS: usize = 100;
const RECIPIENTS: usize = 10;

/// Rules by network and sender, as a site has them, without lookups: those are the cache's.
const RULES: &str = r#"
[[policy]]
name = "friends"
when = { networks = ["203.0.113.0/24"] }
otherwise = "accept"

[[policy]]
name = "not from there"
when = { sender = [".bad.example"] }
otherwise = "reject"
"#;

fn many_connections_ask_at_once() {
    let lab = Lab::new();
    let path = lab.path("policy");
    let config = policy_only(&lab, &path).policies(RULES);
    let mut gateway = Gateway::start(&lab, &config);
    let began = Instant::now();
    let rejected: usize = thread::scope(|scope| {
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let path = &path;
                scope.spawn(move || ask(path, connection))
            })
            .collect();
        connections.into_iter().map(|one| one.join().unwrap()).sum()
    });
    let took = began.elapsed();
    let questions = CONNECTIONS * SESSIONS * RECIPIENTS;
    let rate = questions as f64 / took.as_secs_f64();
    println!(
        "{questions} questions over {CONNECTIONS} connections in {took:.2?}: {rate:.0} a second"
    );
    assert_eq!(rejected, questions / 2);
    gateway.terminate();
    gateway.wait();
    let sessions = lines_with(&gateway.log(), "verdict");
    assert_eq!(sessions.len(), CONNECTIONS * SESSIONS, "a line for each session");
}

/// Sessions one after the other, every second of a bad sender. Returns the number of rejected recipients.
fn ask(path: &Path, connection: usize) -> usize {
    let mut stream = UnixStream::connect(path).unwrap();
    let mut rejected = 0;
    for session in 0..SESSIONS {
        for recipient in 0..RECIPIENTS {
            let domain = if session % 2 == 0 { "mta.good.example" } else { "mta.bad.example" };
            let port = 1024 + connection * SESSIONS + session;
            let request = format!(
                "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=2001:db8::25\n\
                 client_name=unknown\nreverse_client_name=unknown\nhelo_name=mta.example\nsender=a@{domain}\n\
                 recipient=r{recipient}@example.org\nrecipient_count=0\nqueue_id=\ninstance={port}.1\nsize=0\n\
                 encryption_protocol=TLSv1.3\nclient_port={port}\nserver_address=2001:db8::1\nserver_port=25\n\n"
            );
            stream.write_all(request.as_bytes()).unwrap();
            let reply = reply(&mut stream);
            match &*reply {
                "action=DUNNO\n\n" => {}
                _ => {
                    assert!(reply.starts_with("action=REJECT 5.7.1 "), "{reply}");
                    rejected += 1;
                }
            }
        }
    }
    rejected
}

fn reply(stream: &mut UnixStream) -> String {
    let mut reply = Vec::new();
    while !reply.ends_with(b"\n\n") {
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk).unwrap();
        assert!(count > 0, "the gateway closed the connection");
        reply.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8(reply).unwrap()
}
