//! Clients that send garbage, trickle, flood, smuggle, guess, and vanish.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::{Over, Random};
use crate::support::Lab;

const THREADS: u64 = 8;
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct HostileClients {
    sessions: Arc<AtomicU64>,
}

impl HostileClients {
    /// They connect to `targets` until the run is over.
    pub(super) fn spawn<'scope>(
        scope: &'scope Scope<'scope, '_>,
        lab: &'scope Lab,
        over: &'scope Over,
        targets: Vec<SocketAddr>,
    ) -> Self {
        let sessions = Arc::<AtomicU64>::default();
        for number in 0..THREADS {
            let own: [IpAddr; 2] = [
                format!("2001:db8:66:{number}::1").parse().unwrap(),
                format!("192.0.2.{}", 100 + number).parse().unwrap(),
            ];
            own.iter().for_each(|ip| lab.add_client_ip(*ip));
            let (sessions, targets) = (Arc::clone(&sessions), targets.clone());
            scope.spawn(move || {
                let mut random = Random::new(number + 1);
                lab.client.in_thread(|| {
                    while !over.is() {
                        let target = *random.pick(&targets);
                        let from = if target.is_ipv6() { own[0] } else { own[1] };
                        if let Ok(stream) = connect(from, target) {
                            sessions.fetch_add(1, Ordering::Relaxed);
                            attack(stream, &mut random, over);
                        }
                        thread::sleep(Duration::from_millis(20));
                    }
                });
            });
        }
        Self { sessions }
    }

    pub(super) fn sessions(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }
}

fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(&to.into(), TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(socket.into())
}

/// A transaction up to the content, pipelined without waiting.
fn envelope(recipient: &str) -> Vec<u8> {
    format!("EHLO x.example\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n").into()
}

fn attack(mut stream: TcpStream, random: &mut Random, over: &Over) {
    let script: Vec<u8> = match random.below(16) {
        0 => random.bytes(3000),
        1 => b"GET / HTTP/1.1\r\nHost: mx\r\n\r\n".to_vec(),
        2 => [&b"\x16\x03\x01\x02\x00\x01"[..], &random.bytes(500)].concat(),
        3 => b"EHLO x\r\nFROB\r\n".repeat(200),
        4 => b"EHLO x\r\n".repeat(3000),
        5 => [envelope("hostile@example.org"), b"x\r\n".repeat(5000)].concat(),
        6 => [b"NOOP ".to_vec(), vec![b'x'; 500_000]].concat(),
        7 => b"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<a@x.example>\r\nRSET\r\n".to_vec(),
        8 => b"EHLO x\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<hostile@example.org>\r\nBDAT 99999999999\r\nx".to_vec(),
        9 => {
            let smuggled = "\n.\nMAIL FROM:<a@x.example>\r\nRCPT TO:<smuggled@example.org>\r\nDATA\r\nx\r\n.\r\n";
            [envelope("hostile@example.org"), smuggled.into(), b"\r\n.\r\nQUIT\r\n".to_vec()].concat()
        }
        10 => b"EHLO x\r\nXCLIENT ADDR=127.0.0.1 NAME=localhost\r\nXFORWARD ADDR=::1\r\n".to_vec(),
        11 => b"PROXY TCP6 ::1 ::1 1 25\r\nEHLO x\r\n".to_vec(),
        12 => [envelope("victim@elsewhere.example"), b".\r\n".to_vec()].concat(),
        13 => return trickle(stream, random, over),
        14 => Vec::new(),
        _ => return SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap_or_default(),
    };
    if random.below(2) == 0 {
        let _greeting = stream.read(&mut [0; 512]);
    }
    let _refused = stream.write_all(&script);
    match random.below(3) {
        0 => drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
        1 => drop(stream.shutdown(std::net::Shutdown::Write)),
        _ => {}
    }
    let end = Instant::now() + TIMEOUT;
    while matches!(stream.read(&mut [0; 4096]), Ok(1..)) && Instant::now() < end && !over.is() {}
}

/// One octet at a time, in the middle of a message.
fn trickle(mut stream: TcpStream, random: &mut Random, over: &Over) {
    let _refused = stream.write_all(&envelope("hostile@example.org"));
    for _ in 0..random.below(40) {
        if over.is() || stream.write_all(b"x").is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(500));
    }
}
