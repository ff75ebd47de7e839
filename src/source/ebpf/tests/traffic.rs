//! Sessions between real TCP stacks.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::namespaces::{Pair, Watched, ip, server};
use crate::wire::Segment;

/// What is said, in turns.
#[derive(Clone, Debug)]
enum Turn {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

use Turn::{Client, Server};

const CONTENT: usize = 1 << 20;

/// So that each place in it is told from others.
fn content(len: usize) -> Vec<u8> {
    (0..len / 8).flat_map(|number| format!("{number:07}\n").into_bytes()).collect()
}

fn message() -> Vec<Turn> {
    let mut last = content(CONTENT);
    last.extend(b"\r\n.\r\nQUIT\r\n");
    vec![
        Server(b"220 mx.example.org ESMTP\r\n".to_vec()),
        Client(b"EHLO client.example\r\n".to_vec()),
        Server(b"250-mx.example.org\r\n250 PIPELINING\r\n".to_vec()),
        Client(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n".to_vec()),
        Server(b"250 Ok\r\n250 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n".to_vec()),
        Client(last),
        Server(b"250 queued\r\n221 Bye\r\n".to_vec()),
    ]
}

/// Holds the conversation; each side says its turn when it has heard the other's.
fn converse(pair: &Pair, at: SocketAddr, turns: &[Turn]) -> (SocketAddr, SocketAddr) {
    let listener = pair.near(|| TcpListener::bind(at).unwrap());
    let client = pair.far(|| TcpStream::connect(at).unwrap());
    let (served, _) = listener.accept().unwrap();
    let ends = (client.local_addr().unwrap(), at);
    thread::scope(|scope| {
        scope.spawn(|| play(client, turns, |turn| matches!(turn, Client(_))));
        scope.spawn(|| play(served, turns, |turn| matches!(turn, Server(_))));
    });
    ends
}

fn play(mut stream: TcpStream, turns: &[Turn], is_ours: impl Fn(&Turn) -> bool) {
    for turn in turns {
        let (Client(bytes) | Server(bytes)) = turn;
        if is_ours(turn) {
            stream.write_all(bytes).unwrap();
        } else {
            let mut heard = vec![0; bytes.len()];
            stream.read_exact(&mut heard).unwrap();
            assert!(heard == *bytes);
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

/// What each side said, by turns.
fn said(turns: &[Turn]) -> [Vec<u8>; 2] {
    let mut said = [Vec::new(), Vec::new()];
    for turn in turns {
        match turn {
            Client(bytes) => said[0].extend(bytes),
            Server(bytes) => said[1].extend(bytes),
        }
    }
    said
}

/// Walks through the segments of one conversation in their order: that what was handed up is what was said, and what was
/// left out is what `wanted` says of a segment (side, where in the side's stream, length).
fn check(
    watched: &Watched,
    (client, server): (SocketAddr, SocketAddr),
    said: &[Vec<u8>; 2],
    mut left_out: impl FnMut(usize, usize, usize) -> usize,
) -> Vec<usize> {
    let mut next: [Option<u32>; 2] = [None; 2];
    let mut at = [0; 2];
    let mut lengths = Vec::new();
    watched.segments(|segment: &Segment<'_>| {
        if ![(client, server), (server, client)].contains(&(segment.src, segment.dst)) {
            return;
        }
        let side = usize::from(segment.src == server);
        if segment.syn {
            assert!(side == 0 || next[0].is_some(), "the answer to a SYN came first");
            next[side] = Some(segment.seq.wrapping_add(1));
            return;
        }
        let expected = next[side].expect("a SYN first");
        let len = segment.len as usize;
        if len == 0 {
            return;
        }
        // A kernel that has little time sends again what was answered already.
        if expected.wrapping_sub(segment.seq).cast_signed() >= segment.len.cast_signed() {
            return;
        }
        assert_eq!(segment.seq, expected);
        next[side] = Some(expected.wrapping_add(segment.len));
        let omitted = segment.omitted as usize;
        assert_eq!(omitted, left_out(side, at[side], len), "side {side} at {} of {len}", at[side]);
        assert_eq!(omitted + segment.payload.len(), len);
        assert!(segment.payload == &said[side][at[side] + omitted..at[side] + len]);
        at[side] += len;
        lengths.push(len);
    });
    assert_eq!(at, [said[0].len(), said[1].len()]);
    lengths
}

/// By the rule for content.
fn content_left_out(len: usize) -> usize {
    if len <= 1024 { 0 } else { len - 256 }
}

/// Where content begins in what the client says.
fn content_begins(turns: &[Turn]) -> usize {
    said(&turns[..5])[0].len()
}

fn check_message(watched: &Watched, ends: (SocketAddr, SocketAddr)) -> Vec<usize> {
    let turns = message();
    let begins = content_begins(&turns);
    check(watched, ends, &said(&turns), |side, at, len| {
        if side == 0 && at >= begins { content_left_out(len) } else { 0 }
    })
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn content_of_messages_stays_in_the_kernel() {
    let pair = Pair::new();
    let mut ends = Vec::new();
    let watched = pair.watch(&["far"], || {
        for v6 in [false, true] {
            ends.push(converse(&pair, server(v6, 25), &message()));
        }
        // Of no concern.
        converse(&pair, server(false, 1025), &message());
    });
    for &ends in &ends {
        let lengths = check_message(&watched, ends);
        assert!(lengths.iter().any(|&len| len > 9000), "no segment was larger than a frame");
    }
    let mut others = 0;
    watched.segments(|segment| {
        others += u32::from(segment.src.port() == 1025 || segment.dst.port() == 1025);
    });
    assert_eq!(others, 0);

    for (client, server) in ends {
        let last = watched.sockets.iter().rfind(|socket| socket.peer == client).unwrap();
        assert_eq!((last.local, last.closed, last.retransmits), (server, true, 0));
        assert!(last.rtt.is_some());
    }
    assert!(watched.sockets.iter().all(|socket| socket.local.port() == 25));
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn loopback_is_seen_once() {
    let pair = Pair::new();
    let at: SocketAddr = "127.0.0.1:2525".parse().unwrap();
    let mut ends = None;
    let watched = pair.watch(&["lo"], || {
        let listener = pair.near(|| TcpListener::bind(at).unwrap());
        let client = pair.near(|| TcpStream::connect(at).unwrap());
        let (served, _) = listener.accept().unwrap();
        ends = Some((client.local_addr().unwrap(), at));
        let turns = message();
        thread::scope(|scope| {
            scope.spawn(|| play(client, &turns, |turn| matches!(turn, Client(_))));
            scope.spawn(|| play(served, &turns, |turn| matches!(turn, Server(_))));
        });
    });
    check_message(&watched, ends.unwrap());
    let (client, _) = ends.unwrap();
    for local in [client, at] {
        assert!(watched.sockets.iter().any(|socket| socket.local == local && socket.closed));
    }
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn tunnels_begin_with_the_ip_header() {
    let pair = Pair::new();
    for command in [
        "tuntap add dev bare mode tun",
        "link set bare up",
        "addr add 198.51.100.1/24 dev bare",
        "addr add 2001:db8:1::1/64 dev bare nodad",
    ] {
        ip(&format!("-n {} {command}", pair.near_name()));
    }
    // Nobody is behind it: what is sent there is an opening.
    let watched = pair.watch(&["bare"], || {
        pair.near(|| {
            let to: [SocketAddr; 2] =
                ["198.51.100.2:25".parse().unwrap(), "[2001:db8:1::2]:2525".parse().unwrap()];
            for to in to {
                let patience = std::time::Duration::from_millis(1);
                let _ = TcpStream::connect_timeout(&to, patience);
            }
        });
    });
    let mut syns = Vec::new();
    watched.segments(|segment| syns.push((segment.dst.port(), segment.syn, segment.mss.is_some())));
    assert_eq!(syns, [(25, true, true), (2525, true, true)]);
    let gave_up = |port| {
        let of_it = |socket: &&crate::stream::SocketEvent| socket.peer.port() == port;
        watched.sockets.iter().filter(of_it).all(|socket| socket.closed && socket.rtt.is_none())
    };
    assert!(gave_up(25) && gave_up(2525) && watched.sockets.len() == 2, "{:?}", watched.sockets);
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn of_tls_only_the_hellos_come_up() {
    let pair = Pair::new();
    let record = |kind: u8, handshake: u8, len: usize| {
        let mut record = vec![kind, 3, 3, 0x10, 0, handshake];
        record.resize(len, 0xab);
        record
    };
    let turns = [
        Server(b"220 mx.example.org ESMTP\r\n".to_vec()),
        Client(b"STARTTLS\r\n".to_vec()),
        Server(b"220 Go ahead\r\n".to_vec()),
        Client(record(22, 1, 517)),
        Server(record(22, 2, 3000)),
        Client(record(20, 1, 80)),
        Server(record(23, 0, 300)),
        Client(record(23, 0, 200_000)),
        Server(record(23, 0, 60)),
        Client(record(23, 0, 60)),
        Server(record(23, 0, 5000)),
        Server(record(23, 0, 60)),
        Client(record(23, 0, 60)),
    ];
    let said = said(&turns);
    let hello = [said_until(&turns, 3, 0), said_until(&turns, 4, 1)];
    let mut ends = None;
    let watched = pair.watch(&["far"], || ends = Some(converse(&pair, server(true, 25), &turns)));
    // Segments that begin in the first 4 KiB of TLS come whole.
    check(
        &watched,
        ends.unwrap(),
        &said,
        |side, at, len| {
            if at < hello[side] + 4096 { 0 } else { len }
        },
    );
    let up: usize = watched.packets.iter().map(|packet| packet.bytes.len()).sum();
    assert!(up < 200_000, "{up} bytes came up");
}

/// Bytes that a side says before a turn.
fn said_until(turns: &[Turn], turn: usize, side: usize) -> usize {
    said(&turns[..turn])[side].len()
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn chunks_come_whole_and_replies_end_the_quiet() {
    let pair = Pair::new();
    let mut chunk = format!("BDAT {CONTENT} LAST\r\n").into_bytes();
    chunk.extend(content(CONTENT));
    let turns = [
        Server(b"220 mx.example.org ESMTP\r\n".to_vec()),
        Client(b"DATA\r\n".to_vec()),
        Server(b"354 a line\r\n".to_vec()),
        Client(content(40_000)),
        // A server that gives up.
        Server(b"451-4.3.0 354 is no reply here\r\n451 4.3.0 later\r\n".to_vec()),
        Client(chunk),
        Server(b"250 2.0.0 Ok\r\n".to_vec()),
    ];
    let said = said(&turns);
    let quiet = 6..6 + content(40_000).len();
    let mut ends = None;
    let watched =
        pair.watch(&["far"], || ends = Some(converse(&pair, server(false, 2525), &turns)));
    check(&watched, ends.unwrap(), &said, |side, at, len| {
        if side == 0 && quiet.contains(&at) { content_left_out(len) } else { 0 }
    });
}
