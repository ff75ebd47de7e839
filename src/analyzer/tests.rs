//! What all flows together may hold, and what is known of them before they are over.

use super::*;
use crate::addr::Side;
use crate::time::Timestamp;
use crate::wire::{LinkType, Talk};

/// Clients that begin a line and do not end it, at once.
fn beginners(clients: u16, octets: usize) -> Vec<(Timestamp, Vec<u8>)> {
    let mut packets = Vec::new();
    let at = Timestamp::from_nanos(1_767_323_045_000_000_000);
    let mut emit = |at, octets: &[u8], _| packets.push((at, octets.to_vec()));
    for port in 0..clients {
        let client = format!("[2001:db8::1]:{}", 1024 + port).parse().unwrap();
        let mut talk = Talk::new(client, "[2001:db8::25]:25".parse().unwrap());
        talk.open(at, &mut emit);
        talk.say(Side::Server, b"220 mx.example ESMTP\r\n", at, &mut emit);
        talk.say(Side::Client, &vec![b'x'; octets], at, &mut emit);
    }
    packets
}

fn settings(limits: Limits) -> Settings {
    Settings {
        profile: Arc::default(),
        ports: Ports::default(),
        limits,
        observer: Arc::new(()),
        transcripts: Transcripts::None,
    }
}

#[test]
fn lines_that_never_end_are_held_up_to_a_bound_for_all() {
    let mut analyst = Analyzer::new(settings(Limits { held: 2500, ..Limits::default() }));
    let mut most = 0;
    for (at, octets) in beginners(10, 1000) {
        let wire_len = u32::try_from(octets.len()).unwrap();
        analyst.packet(&Packet::new(at, LinkType::Raw, &octets, wire_len));
        let [_, held] = analyst.held();
        assert!(held <= 2500, "{held}");
        most = most.max(held);
    }
    assert!(most >= 2000, "{most}");
    analyst.finish();
    assert_eq!(analyst.held(), [0, 0]);
    // Whoever had to let go is told to have lost something; the first two had room.
    let lost: Vec<u64> = analyst.sessions().map(|session| session.record.smtp.desyncs).collect();
    assert_eq!(lost.iter().filter(|desyncs| **desyncs > 0).count(), 8, "{lost:?}");
}

/// A live view asks between packets.
#[test]
fn what_is_open_and_what_waits_is_known() {
    let at = Timestamp::from_nanos(1_767_323_045_000_000_000);
    let mut analyst = Analyzer::new(settings(Limits::default()));
    for (client, server, packets) in [
        ("[2001:db8::1]:4000", "[2001:db8::25]:25", 3),
        ("[2001:db8::1]:4001", "[2001:db8::25]:25", 1),
        ("192.0.2.1:4000", "192.0.2.25:25", 1),
    ] {
        let mut left = packets;
        Talk::new(client.parse().unwrap(), server.parse().unwrap()).open(
            at,
            &mut |at, octets, len| {
                if left > 0 {
                    left -= 1;
                    analyst.packet(&Packet::new(at, LinkType::Raw, octets, len));
                }
            },
        );
    }
    assert_eq!(analyst.open_sessions(), [1, 2]);
    let waits = Opening { flows: 1, again: 0, since: Some(at) };
    assert_eq!(analyst.opening(), [waits; 2]);

    // The kernel of the client says that it gave up.
    let local = "192.0.2.1:4000".parse().unwrap();
    let peer = "192.0.2.25:25".parse().unwrap();
    let at = at + std::time::Duration::from_secs(30);
    analyst.socket(&SocketFacts { at, local, peer, rtt: None, retransmits: 4, closed: true });
    assert_eq!((analyst.open_sessions(), analyst.opening()[0]), ([0, 2], Opening::default()));
    assert_eq!(analyst.sessions().count(), 1);
    // Time passes without packets.
    analyst.tick(at + std::time::Duration::from_secs(120));
    assert_eq!(analyst.open_sessions(), [0, 1]);
    analyst.tick(at + std::time::Duration::from_secs(4000));
    assert_eq!(analyst.open_sessions(), [0, 0]);
    assert_eq!(analyst.sessions().count(), 2);
}
