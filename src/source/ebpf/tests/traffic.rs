//! Sessions between real TCP stacks.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use super::namespaces::{CaptureResult, Pair, ip, server};
use crate::wire::Segment;

/// One turn of a dialogue.
#[derive(Clone, Debug)]
enum Turn {
    Client(Vec<u8>),
    Server(Vec<u8>),
}

use Turn::{Client, Server};

const CONTENT: usize = 1 << 20;

/// Message content in which every position is distinct.
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

/// Runs the dialogue over TCP; each side sends its turn after it received the other's.
fn run_dialogue(pair: &Pair, at: SocketAddr, turns: &[Turn]) -> (SocketAddr, SocketAddr) {
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
            let mut received = vec![0; bytes.len()];
            stream.read_exact(&mut received).unwrap();
            assert!(received == *bytes);
        }
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

/// All bytes of each side.
fn streams(turns: &[Turn]) -> [Vec<u8>; 2] {
    let mut streams = [Vec::new(), Vec::new()];
    for turn in turns {
        match turn {
            Client(bytes) => streams[0].extend(bytes),
            Server(bytes) => streams[1].extend(bytes),
        }
    }
    streams
}

/// Compares the segments of one dialogue with the streams sent. `expected_omission` returns the bytes to omit for a segment
/// (side, offset in the side's stream, length). Returns the segment lengths.
fn check(
    watched: &CaptureResult,
    (client, server): (SocketAddr, SocketAddr),
    streams: &[Vec<u8>; 2],
    mut expected_omission: impl FnMut(usize, usize, usize) -> usize,
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
            assert!(side == 0 || next[0].is_some(), "a SYN-ACK before its SYN");
            next[side] = Some(segment.seq.wrapping_add(1));
            return;
        }
        let expected = next[side].expect("a SYN first");
        let len = segment.len as usize;
        if len == 0 {
            return;
        }
        // A busy kernel retransmits segments that were acknowledged already.
        if expected.wrapping_sub(segment.seq).cast_signed() >= segment.len.cast_signed() {
            return;
        }
        assert_eq!(segment.seq, expected);
        next[side] = Some(expected.wrapping_add(segment.len));
        let omitted = segment.omitted as usize;
        assert_eq!(
            omitted,
            expected_omission(side, at[side], len),
            "side {side} at {} of {len}",
            at[side]
        );
        assert_eq!(omitted + segment.payload.len(), len);
        assert!(segment.payload == &streams[side][at[side] + omitted..at[side] + len]);
        at[side] += len;
        lengths.push(len);
    });
    assert_eq!(at, [streams[0].len(), streams[1].len()]);
    lengths
}

/// Bytes omitted from a segment of message content.
fn content_omission(len: usize) -> usize {
    if len <= 1024 { 0 } else { len - 256 }
}

/// Offset of the message content in the client's stream.
fn content_offset(turns: &[Turn]) -> usize {
    streams(&turns[..5])[0].len()
}

fn check_message(watched: &CaptureResult, ends: (SocketAddr, SocketAddr)) -> Vec<usize> {
    let turns = message();
    let start = content_offset(&turns);
    check(watched, ends, &streams(&turns), |side, at, len| {
        if side == 0 && at >= start { content_omission(len) } else { 0 }
    })
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn message_content_is_not_copied() {
    let pair = Pair::new();
    let mut ends = Vec::new();
    let watched = pair.watch(&["far"], || {
        for v6 in [false, true] {
            ends.push(run_dialogue(&pair, server(v6, 25), &message()));
        }
        // An unwatched port.
        run_dialogue(&pair, server(false, 1025), &message());
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
        let last = watched.socket_events.iter().rfind(|socket| socket.peer == client).unwrap();
        assert_eq!((last.local, last.closed), (server, true));
        // None, but for the probes of a busy kernel (RFC 8985).
        assert!(last.retransmits <= 2, "{last:?}");
        assert!(last.rtt.is_some());
    }
    assert!(watched.socket_events.iter().all(|socket| socket.local.port() == 25));
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn loopback_packets_are_captured_once() {
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
        assert!(watched.socket_events.iter().any(|socket| socket.local == local && socket.closed));
    }
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn tunnels_without_a_link_layer_are_captured() {
    let pair = Pair::new();
    for command in [
        "tuntap add dev bare mode tun",
        "link set bare up",
        "addr add 198.51.100.1/24 dev bare",
        "addr add 2001:db8:1::1/64 dev bare nodad",
    ] {
        ip(&format!("-n {} {command}", pair.near_name()));
    }
    // There is no peer: only SYNs are sent.
    let watched = pair.watch(&["bare"], || {
        pair.near(|| {
            let to: [SocketAddr; 2] =
                ["198.51.100.2:25".parse().unwrap(), "[2001:db8:1::2]:2525".parse().unwrap()];
            for to in to {
                let timeout = std::time::Duration::from_millis(1);
                let _ = TcpStream::connect_timeout(&to, timeout);
            }
        });
    });
    let mut syns = Vec::new();
    watched.segments(|segment| syns.push((segment.dst.port(), segment.syn, segment.mss.is_some())));
    assert_eq!(syns, [(25, true, true), (2525, true, true)]);
    let connect_failed = |port| {
        let of_it = |socket: &&crate::stream::SocketEvent| socket.peer.port() == port;
        watched
            .socket_events
            .iter()
            .filter(of_it)
            .all(|socket| socket.closed && socket.rtt.is_none())
    };
    assert!(
        connect_failed(25) && connect_failed(2525) && watched.socket_events.len() == 2,
        "{:?}",
        watched.socket_events
    );
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn only_the_start_of_tls_is_copied() {
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
    let streams = streams(&turns);
    let hello = [offset_of_turn(&turns, 3, 0), offset_of_turn(&turns, 4, 1)];
    let mut ends = None;
    let watched =
        pair.watch(&["far"], || ends = Some(run_dialogue(&pair, server(true, 25), &turns)));
    // Segments that start in the first 4 KiB of TLS are copied whole.
    check(
        &watched,
        ends.unwrap(),
        &streams,
        |side, at, len| {
            if at < hello[side] + 4096 { 0 } else { len }
        },
    );
    let copied: usize = watched.packets.iter().map(|packet| packet.bytes.len()).sum();
    assert!(copied < 200_000, "{copied} bytes were copied");
}

/// Offset of a turn in a side's stream.
fn offset_of_turn(turns: &[Turn], turn: usize, side: usize) -> usize {
    streams(&turns[..turn])[side].len()
}

#[test]
#[ignore = "needs root, for namespaces and bpf(2): make test"]
fn bdat_chunks_are_copied_and_a_reply_ends_the_content() {
    let pair = Pair::new();
    let mut chunk = format!("BDAT {CONTENT} LAST\r\n").into_bytes();
    chunk.extend(content(CONTENT));
    let turns = [
        Server(b"220 mx.example.org ESMTP\r\n".to_vec()),
        Client(b"DATA\r\n".to_vec()),
        Server(b"354 a line\r\n".to_vec()),
        Client(content(40_000)),
        // The server aborts the transfer.
        Server(b"451-4.3.0 354 is no reply here\r\n451 4.3.0 later\r\n".to_vec()),
        Client(chunk),
        Server(b"250 2.0.0 Ok\r\n".to_vec()),
    ];
    let streams = streams(&turns);
    let content_range = 6..6 + content(40_000).len();
    let mut ends = None;
    let watched =
        pair.watch(&["far"], || ends = Some(run_dialogue(&pair, server(false, 2525), &turns)));
    check(&watched, ends.unwrap(), &streams, |side, at, len| {
        if side == 0 && content_range.contains(&at) { content_omission(len) } else { 0 }
    });
}
