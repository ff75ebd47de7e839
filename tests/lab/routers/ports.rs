//! One client address with more sessions in a short time than the router has ports.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::topology::Network;
use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Mode, port};

tests![
    Parallel: five_thousand_sessions_over_a_thousand_ports;
    OnRequest: hundred_thousand_sessions_of_one_client
];

/// Concurrent sessions.
const CLIENTS: usize = 16;

/// Only a session that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(40);

fn five_thousand_sessions_over_a_thousand_ports() {
    sessions(2_500, Some("20000 20999"));
}

/// `cargo test --test lab -- --ignored hundred_thousand`.
fn hundred_thousand_sessions_of_one_client() {
    sessions(100_000, None);
}

fn sessions(in_each_family: usize, ports: Option<&str>) {
    let network = Network::new();
    let lab = &network.lab;
    if let Some(ports) = ports {
        lab.gateway.run(["sysctl", "-qw", &format!("net.ipv4.ip_local_port_range={ports}")]);
    }
    let gateway = Gateway::start(lab, &Config::new(lab, Mode::Tproxy).for_crowds());
    for family in Family::ALL {
        let at = lab.server_socket(family, port::SMTP);
        let listener = lab.server.in_thread(|| TcpListener::bind(at)).unwrap();
        thread::spawn(move || serve(&listener));
        let left = AtomicUsize::new(in_each_family);
        let begun = Instant::now();
        let failures: Vec<String> = lab.client.in_thread(|| {
            // The threads inherit the namespace.
            thread::scope(|scope| {
                let clients = (0..CLIENTS).map(|_| scope.spawn(|| client(at, &left)));
                let clients: Vec<_> = clients.collect();
                clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
            })
        });
        eprintln!("{family}: {in_each_family} sessions in {:.1?}", begun.elapsed());
        let shown = &failures[..failures.len().min(5)];
        assert!(failures.is_empty(), "{} of {in_each_family} failed: {shown:?}", failures.len());
    }
    let resources = gateway.metric("gatepost_sessions_total", &[]);
    assert!(resources >= (2 * in_each_family) as f64, "only {resources} passed the gateway");
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

/// A mail server that greets and says good-bye; ends with the process.
fn serve(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        thread::spawn(move || serve_session(stream));
    }
}

fn serve_session(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(b"220 mx.example.org ESMTP\r\n")?;
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    stream.write_all(b"221 2.0.0 Bye\r\n")
}
