//! One client address with many sessions in a short time, more than the router has ports.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::topology::Network;
use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Mode, port};

tests![
    Parallel: many_sessions_of_one_client;
    OnRequest: hundred_thousand_sessions_of_one_client
];

/// Concurrent sessions.
const CLIENTS: usize = 16;

const CONNECTION_TRACKING: &str = "add table inet filter
    add chain inet filter input { type filter hook input priority 0; }
    add rule inet filter input ct state invalid drop
    add chain inet filter forward { type filter hook forward priority 0; }
    add rule inet filter forward ct state invalid drop";

/// Ports of clients start here in Linux; the gateway's are below.
const FIRST_CLIENT_PORT: u16 = 32768;

/// Only a session that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(40);

fn many_sessions_of_one_client() {
    sessions(2_000);
}

/// `cargo test --test lab -- --ignored hundred_thousand`.
fn hundred_thousand_sessions_of_one_client() {
    sessions(100_000);
}

/// In each family. Connection tracking would take a session whose two legs have the same port for one connection.
fn sessions(count: usize) {
    let network = Network::new();
    let lab = &network.lab;
    // The kernel's default, in place of the lab's.
    for host in [&lab.client, &lab.gateway] {
        host.run(["sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 60999"]);
    }
    lab.gateway.run(["nft", CONNECTION_TRACKING]);
    let gateway = Gateway::start(lab, &Config::new(lab, Mode::Tproxy).for_crowds());
    for family in Family::ALL {
        let at = lab.server_socket(family, port::SMTP);
        let listener = lab.server.in_thread(|| TcpListener::bind(at)).unwrap();
        let of_clients = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&of_clients);
        thread::spawn(move || serve(&listener, &counted));
        let left = AtomicUsize::new(count);
        let begun = Instant::now();
        let failures: Vec<String> = lab.client.in_thread(|| {
            // The threads inherit the namespace.
            thread::scope(|scope| {
                let clients = (0..CLIENTS).map(|_| scope.spawn(|| client(at, &left)));
                let clients: Vec<_> = clients.collect();
                clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
            })
        });
        eprintln!("{family}: {count} sessions in {:.1?}", begun.elapsed());
        let shown = &failures[..failures.len().min(5)];
        assert!(failures.is_empty(), "{} of {count} failed: {shown:?}", failures.len());
        assert_eq!(of_clients.load(Ordering::Relaxed), 0, "connections from ports of clients");
    }
    let sessions = gateway.metric("gatepost_sessions_total", &[]);
    assert!(sessions >= (2 * count) as f64, "only {sessions} passed the gateway");
}

/// Sessions until none is left; the errors of those that failed.
fn client(to: SocketAddr, left: &AtomicUsize) -> Vec<String> {
    let mut failures = Vec::new();
    let take = |left: usize| left.checked_sub(1);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
        if let Err(error) = session(to) {
            failures.push(error.to_string());
        }
    }
    failures
}

fn session(to: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    for (command, code) in [("", "220"), ("QUIT\r\n", "221")] {
        stream.write_all(command.as_bytes())?;
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if !line.starts_with(code) {
            return Err(std::io::Error::other(format!("{line:?} instead of {code}")));
        }
    }
    reader.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A mail server that greets and says good-bye; ends with the process. Counts its clients with a port as clients have.
fn serve(listener: &TcpListener, of_clients: &AtomicUsize) {
    while let Ok((stream, peer)) = listener.accept() {
        if peer.port() >= FIRST_CLIENT_PORT {
            of_clients.fetch_add(1, Ordering::Relaxed);
        }
        thread::spawn(move || serve_session(stream));
    }
}

fn serve_session(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"220 mx.example.org ESMTP\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    stream.write_all(b"221 2.0.0 Bye\r\n")
}
