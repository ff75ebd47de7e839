//! A synthetic capture of many concurrent sessions, like port 25 of a busy MTA: both families, an MTU of 1500, messages from a
//! few kilobytes to two megabytes.

use std::fs::File;
use std::io::BufWriter;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use gatepost::addr::Side;
use gatepost::source::PcapngWriter;
use gatepost::time::Timestamp;
use gatepost::wire::{LinkType, SyntheticConnection};

/// Concurrent sessions.
const AT_ONCE: usize = 64;
/// Bytes sent at a time, so that sessions interleave.
const BURST: usize = 14_400;

/// The contents of the capture.
pub(crate) struct Made {
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    pub(crate) sessions: u64,
    pub(crate) messages: u64,
}

/// A session in progress.
struct SyntheticSession {
    connection: SyntheticConnection,
    /// Data still to be sent, in reverse order.
    script: Vec<(Side, Vec<u8>)>,
    messages: u64,
    opened: bool,
}

impl SyntheticSession {
    fn new(number: u64) -> Self {
        let port = 1024 + u16::try_from(number % 60_000).unwrap_or_default();
        let host = number / 60_000;
        let [client, server] = if number.is_multiple_of(3) {
            [format!("192.0.2.{}:{port}", host + 1), "198.51.100.25:25".to_owned()]
        } else {
            [format!("[2001:db8:1::{host:x}]:{port}"), "[2001:db8:2::25]:25".to_owned()]
        };
        let address = |text: String| -> SocketAddr {
            text.parse().unwrap_or_else(|_| unreachable!("{text}"))
        };
        let messages = 1 + number % 3;
        let mut script = vec![
            (Side::Server, b"220 mx.example ESMTP\r\n".to_vec()),
            (Side::Client, b"EHLO client.example\r\n".to_vec()),
            (Side::Server, b"250-mx.example\r\n250-PIPELINING\r\n250 SIZE 52428800\r\n".to_vec()),
        ];
        for message in 0..messages {
            script.extend([
                (Side::Client, format!("MAIL FROM:<a{number}@a.example>\r\nRCPT TO:<b{message}@b.example>\r\nDATA\r\n").into_bytes()),
                (Side::Server, b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 go on\r\n".to_vec()),
            ]);
            let text = body(number.wrapping_mul(7).wrapping_add(message));
            script.extend(text.chunks(BURST).map(|chunk| (Side::Client, chunk.to_vec())));
            script.push((Side::Server, b"250 2.0.0 Ok: queued\r\n".to_vec()));
        }
        script.push((Side::Client, b"QUIT\r\n".to_vec()));
        script.push((Side::Server, b"221 2.0.0 Bye\r\n".to_vec()));
        script.reverse();
        let connection = SyntheticConnection::new(address(client), address(server));
        Self { connection, script, messages, opened: false }
    }
}

/// Lines of base64-like text, with the end of data.
fn body(seed: u64) -> Vec<u8> {
    let bytes = match seed % 20 {
        0..=7 => 4_000,
        8..=15 => 30_000,
        16..=18 => 200_000,
        _ => 2_000_000,
    };
    let line: Vec<u8> = (0..76u64).map(|n| b'A' + ((seed + n * 7) % 26) as u8).collect();
    let mut text = b"From: a@a.example\r\nTo: b@b.example\r\nSubject: bench\r\n\r\n".to_vec();
    while text.len() < bytes {
        text.extend_from_slice(&line);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b".\r\n");
    text
}

/// Writes a capture of about `bytes` to `path`.
pub(crate) fn make(path: &Path, bytes: u64) -> Result<Made> {
    let mut writer = PcapngWriter::new(
        BufWriter::with_capacity(1 << 20, File::create(path)?),
        LinkType::Raw,
        0,
        "bench",
    )?;
    let mut made = Made { bytes: 0, packets: 0, sessions: 0, messages: 0 };
    let mut now = Timestamp::from_nanos(1_767_323_045_000_000_000);
    let mut open: Vec<SyntheticSession> = Vec::new();
    let mut failed = None;
    loop {
        while open.len() < AT_ONCE && made.bytes < bytes {
            open.push(SyntheticSession::new(made.sessions));
            made.sessions += 1;
        }
        if open.is_empty() {
            break;
        }
        open.retain_mut(|session| {
            now = now + Duration::from_micros(100);
            let mut emit = |at, packet: &[u8], wire_len| {
                made.bytes += packet.len() as u64;
                made.packets += 1;
                if let Err(error) = writer.packet(at, packet, wire_len, None) {
                    failed = Some(error);
                }
            };
            if !session.opened {
                session.opened = true;
                session.connection.open(now, &mut emit);
                return true;
            }
            match session.script.pop() {
                Some((from, bytes)) => {
                    session.connection.send(from, &bytes, now, &mut emit);
                    true
                }
                None => {
                    session.connection.close(Side::Client, now, &mut emit);
                    session.connection.close(Side::Server, now, &mut emit);
                    made.messages += session.messages;
                    false
                }
            }
        });
        if let Some(error) = failed {
            return Err(error.into());
        }
    }
    writer.finish()?;
    Ok(made)
}
