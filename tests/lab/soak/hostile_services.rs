//! An upstream, a resolver and a Redis that break off, lie, repeat themselves, or stay silent.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::thread::{self, Scope};
use std::time::Duration;

use super::{DNS, Over, REDIS, Random};
use crate::support::{Family, Lab};

pub(super) const UPSTREAM_PORT: u16 = 2599;
/// Interval at which a thread checks whether the run is over.
const LOOK: Duration = Duration::from_millis(100);

pub(super) fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    lab: &'scope Lab,
    over: &'scope Over,
) {
    let at = lab.server_socket(Family::Ipv6, UPSTREAM_PORT);
    let upstream = lab.server.in_thread(|| TcpListener::bind(at)).unwrap();
    scope.spawn(move || serve(&upstream, over, upstream_session));
    let redis = lab.gateway.in_thread(|| TcpListener::bind(REDIS)).unwrap();
    scope.spawn(move || serve(&redis, over, redis_session));
    let dns = lab.gateway.in_thread(|| UdpSocket::bind(DNS)).unwrap();
    scope.spawn(move || resolve(&dns, over));
}

fn serve(listener: &TcpListener, over: &Over, session: fn(&mut TcpStream, &mut Random)) {
    listener.set_nonblocking(true).unwrap();
    let mut number = 0;
    while !over.is() {
        let Ok((mut stream, _)) = listener.accept() else {
            thread::sleep(LOOK);
            continue;
        };
        number += 1;
        let mut random = Random::new(number);
        thread::spawn(move || {
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
            let _ = stream.set_write_timeout(Some(Duration::from_secs(20)));
            session(&mut stream, &mut random);
        });
    }
}

/// Any reply to anything, at any time, whole or in pieces.
fn upstream_session(stream: &mut TcpStream, random: &mut Random) {
    let mut input = [0; 4096];
    for _ in 0..random.below(30) {
        let reply: Vec<u8> = match random.below(12) {
            0 => return,
            1 => random.bytes(200),
            2 => b"220-one\r\n220-two\r\n".repeat(500),
            3 => b"250-a\r\n550 b\r\n".to_vec(),
            4 => b"250 \0\r bare\n".to_vec(),
            5 => b"250 ok\r\n250 twice\r\n".to_vec(),
            6 => b"354 go on\r\n".to_vec(),
            7 => b"421 4.3.2 going away\r\n".to_vec(),
            8 => b"25".to_vec(),
            9 => Vec::new(),
            _ => b"250 2.0.0 ok\r\n".to_vec(),
        };
        let pieces = if random.below(4) == 0 { reply.len().clamp(1, 40) } else { 1 };
        for piece in reply.chunks(reply.len().div_ceil(pieces).max(1)) {
            if stream.write_all(piece).is_err() {
                return;
            }
        }
        if random.below(3) > 0 && !matches!(stream.read(&mut input), Ok(1..)) {
            return;
        }
    }
}

fn redis_session(stream: &mut TcpStream, random: &mut Random) {
    let mut input = [0; 4096];
    while matches!(stream.read(&mut input), Ok(1..)) {
        let reply: Vec<u8> = match random.below(6) {
            0 => return,
            1 => random.bytes(100),
            2 => b"$-1\r\n".to_vec(),
            3 => b"$1000000000\r\n".to_vec(),
            4 => Vec::new(),
            _ => b"+OK\r\n".to_vec(),
        };
        if stream.write_all(&reply).is_err() {
            return;
        }
    }
}

/// The query with another head is an answer without records; now and then it is none.
fn resolve(socket: &UdpSocket, over: &Over) {
    socket.set_read_timeout(Some(LOOK)).unwrap();
    let mut random = Random::new(53);
    let mut query = [0; 4096];
    while !over.is() {
        let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
        let mut answer = query[..length].to_vec();
        if let Some(flags) = answer.get_mut(2..4) {
            let code = *random.pick(&[0, 2, 3, 5]);
            flags.copy_from_slice(&[0x81, 0x80 | code]);
        }
        match random.below(6) {
            0 => continue,
            1 => answer = random.bytes(60),
            2 => answer.truncate(random.below(length)),
            3 => answer[0] ^= 1, // Another query's answer.
            _ => {}
        }
        let _ = socket.send_to(&answer, from);
    }
}
