//! What all flows together may hold.

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

#[test]
fn lines_that_never_end_are_held_up_to_a_bound_for_all() {
    let settings = Settings {
        profile: Arc::default(),
        ports: Ports::default(),
        limits: Limits { held: 2500, ..Limits::default() },
        observer: Arc::new(()),
        transcripts: Transcripts::None,
    };
    let mut analyst = Analyst::new(settings);
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
