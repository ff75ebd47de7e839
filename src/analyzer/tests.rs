//! The bound on buffered bytes over all flows, and the live counts of open sessions.

use super::{Analyzer, AnalyzerSettings};
use crate::addr::Side;
use crate::stream::{FlowLimits, PendingFlows, SocketEvent};
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet, SyntheticConnection};

/// Concurrent clients that send `bytes` bytes of a line without its end.
fn unfinished_lines(clients: u16, bytes: usize) -> Vec<(Timestamp, Vec<u8>)> {
    let mut packets = Vec::new();
    let at = Timestamp::from_nanos(1_767_323_045_000_000_000);
    let mut emit = |at, bytes: &[u8], _| packets.push((at, bytes.to_vec()));
    for port in 0..clients {
        let client = format!("[2001:db8::1]:{}", 1024 + port).parse().unwrap();
        let mut connection = SyntheticConnection::new(client, "[2001:db8::25]:25".parse().unwrap());
        connection.open(at, &mut emit);
        connection.send(Side::Server, b"220 mx.example ESMTP\r\n", at, &mut emit);
        connection.send(Side::Client, &vec![b'x'; bytes], at, &mut emit);
    }
    packets
}

fn settings(limits: FlowLimits) -> AnalyzerSettings {
    AnalyzerSettings { limits, ..AnalyzerSettings::default() }
}

#[test]
fn unfinished_lines_are_buffered_within_one_bound_for_all_flows() {
    let mut analyzer = Analyzer::new(settings(FlowLimits { held: 2500, ..FlowLimits::default() }));
    let mut most = 0;
    for (at, bytes) in unfinished_lines(10, 1000) {
        let wire_len = u32::try_from(bytes.len()).unwrap();
        analyzer.packet(&Packet::new(at, LinkType::Raw, &bytes, wire_len));
        let [_, held] = analyzer.held();
        assert!(held <= 2500, "{held}");
        most = most.max(held);
    }
    assert!(most >= 2000, "{most}");
    analyzer.finish();
    assert_eq!(analyzer.held(), [0, 0]);
    // The first two fit; each of the others gave up its buffer, which counts as a desync.
    let lost: Vec<u64> = analyzer.sessions().map(|session| session.record.smtp.desyncs).collect();
    assert_eq!(lost.iter().filter(|desyncs| **desyncs > 0).count(), 8, "{lost:?}");
}

#[test]
fn open_and_waiting_sessions_are_counted_between_packets() {
    let at = Timestamp::from_nanos(1_767_323_045_000_000_000);
    let mut analyzer = Analyzer::new(settings(FlowLimits::default()));
    for (client, server, packets) in [
        ("[2001:db8::1]:4000", "[2001:db8::25]:25", 3),
        ("[2001:db8::1]:4001", "[2001:db8::25]:25", 1),
        ("192.0.2.1:4000", "192.0.2.25:25", 1),
    ] {
        let mut left = packets;
        SyntheticConnection::new(client.parse().unwrap(), server.parse().unwrap()).open(
            at,
            &mut |at, bytes, len| {
                if left > 0 {
                    left -= 1;
                    analyzer.packet(&Packet::new(at, LinkType::Raw, bytes, len));
                }
            },
        );
    }
    assert_eq!(analyzer.open_sessions(), [1, 2]);
    let waits = PendingFlows { flows: 1, retried: 0, since: Some(at) };
    assert_eq!(analyzer.opening(), [waits; 2]);

    // The client's kernel reports that it gave up.
    let local = "192.0.2.1:4000".parse().unwrap();
    let peer = "192.0.2.25:25".parse().unwrap();
    let at = at + std::time::Duration::from_secs(30);
    analyzer.socket(&SocketEvent { at, local, peer, rtt: None, retransmits: 4, closed: true });
    assert_eq!(
        (analyzer.open_sessions(), analyzer.opening()[0]),
        ([0, 2], PendingFlows::default())
    );
    assert_eq!(analyzer.sessions().count(), 1);
    // Timeouts expire without packets.
    analyzer.tick(at + std::time::Duration::from_secs(120));
    assert_eq!(analyzer.open_sessions(), [0, 1]);
    analyzer.tick(at + std::time::Duration::from_secs(4000));
    assert_eq!(analyzer.open_sessions(), [0, 0]);
    assert_eq!(analyzer.sessions().count(), 2);
}
