//! Properties of every packet and every dialogue.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::addr::Side;
use crate::wire::{DecodeError, SyntheticConnection};

fn links() -> impl Strategy<Value = LinkType> {
    (0_u16..300).prop_map(LinkType::from_number)
}

/// Mostly valid packets.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let options = |next| vec![next, 0, 1, 4, 0, 0, 0, 0];
    prop_oneof![
        vec(any::<u8>(), 0..60).prop_map(|text| tcp4(&text)),
        vec(any::<u8>(), 0..60).prop_map(|text| tcp6(&text)),
        vec(any::<u8>(), 0..60).prop_map(move |text| extended(
            &tcp6(&text),
            0,
            &[&options(60), &options(6)]
        )),
        (vec(any::<u8>(), 0..60), 0_u8..4, 0_u8..4).prop_map(|(text, offset, more)| {
            extended(&tcp6(&text), 44, &[&[6, 0, 0, (offset << 3) | (more & 1), 0, 0, 0, 1]])
        }),
        vec(any::<u8>(), 0..100),
    ]
}

/// Whether `cut` is `whole` as captured with a snap length.
fn agrees(whole: Decoded<'_>, cut: Decoded<'_>) -> bool {
    match (whole, cut) {
        (_, Decoded::Error(DecodeError::Truncated)) => true,
        (Decoded::Tcp(whole), Decoded::Tcp(cut)) => {
            let mss = cut.mss.or(whole.mss);
            let begins = whole.payload.starts_with(cut.payload);
            begins && whole == Segment { payload: whole.payload, mss, ..cut }
        }
        (Decoded::Udp(whole), Decoded::Udp(cut)) => whole.payload.starts_with(cut.payload),
        (whole, cut) => whole == cut,
    }
}

/// Sender, payload and length; a payload of `None` is omitted, with that length.
fn dialogue() -> impl Strategy<Value = Vec<(Side, Option<Vec<u8>>, u16)>> {
    let side = prop_oneof![Just(Side::Client), Just(Side::Server)];
    vec((side, prop::option::of(vec(any::<u8>(), 0..300)), 0_u16..3000), 0..8)
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(link in links(), packets in vec(vec(any::<u8>(), 0..120), 0..8), wire_len: u32) {
        let mut decoder = Decoder::new();
        for bytes in &packets {
            let _ = decoder.decode(&Packet::new(AT, link, bytes, wire_len));
        }
    }

    #[test]
    fn mutated_packets_do_not_panic(
        packets in vec(packets(), 1..6),
        mutations in vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut packets = packets;
        for (which, at, value) in mutations {
            let which = which.index(packets.len());
            let bytes = &mut packets[which];
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
        }
        let mut decoder = Decoder::new();
        for bytes in &packets {
            if let Decoded::Tcp(segment) = decoder.decode(&packet(LinkType::Raw, bytes, bytes.len())) {
                prop_assert!(segment.payload.len() <= segment.len as usize);
            }
        }
    }

    /// A snap length removes payload and changes nothing else.
    #[test]
    fn truncation_anywhere_only_removes_payload(bytes in packets(), mutation in prop::option::of((any::<prop::sample::Index>(), any::<u8>()))) {
        let mut bytes = bytes;
        if let Some((at, value)) = mutation && !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let (mut decoder, mut other) = (Decoder::new(), Decoder::new());
        let whole = decoder.decode(&packet(LinkType::Raw, &bytes, bytes.len()));
        for end in 0..bytes.len() {
            let cut = other.decode(&packet(LinkType::Raw, &bytes[..end], bytes.len()));
            prop_assert!(agrees(whole, cut), "{end}: {whole:?} became {cut:?}");
        }
    }

    /// Synthesised packets carry the dialogue, each byte once and in order, and acknowledge it.
    #[test]
    fn a_synthetic_connection_decodes_to_its_dialogue(v6: bool, mss in 1_u16..2000, nanos: u64, dialogue in dialogue()) {
        let (client, server) = ends(v6);
        let mut connection = SyntheticConnection::new(client, server).with_mss(mss);
        let at = Timestamp::from_nanos(nanos);
        let mut packets = Vec::new();
        let mut keep = |at: Timestamp, bytes: &[u8], wire_len| packets.push((at, bytes.to_vec(), wire_len));
        connection.open(at, &mut keep);
        let mut sent: [Vec<Option<u8>>; 2] = Default::default();
        for (from, bytes, hole) in &dialogue {
            match bytes {
                Some(bytes) => {
                    connection.send(*from, bytes, at, &mut keep);
                    sent[from.index()].extend(bytes.iter().map(|byte| Some(*byte)));
                }
                None => {
                    connection.send_omitted(*from, u64::from(*hole), at, &mut keep);
                    sent[from.index()].extend(vec![None; usize::from(*hole)]);
                }
            }
        }
        connection.close(Side::Client, at, &mut keep);
        connection.send(Side::Client, b"too late", at, &mut keep);
        connection.send_omitted(Side::Client, 7, at, &mut keep);
        connection.close(Side::Server, at, &mut keep);
        connection.reset(Side::Client, at, &mut keep);

        let mut decoded: [Vec<Option<u8>>; 2] = Default::default();
        let mut next: [Option<u32>; 2] = [None; 2];
        let mut decoder = Decoder::new();
        for (at, bytes, wire_len) in &packets {
            let packet = Packet::new(*at, LinkType::Raw, bytes, *wire_len);
            let Decoded::Tcp(segment) = decoder.decode(&packet) else { panic!("a segment") };
            let from = usize::from(segment.src == server);
            prop_assert_eq!((segment.src, segment.dst), if from == 0 { (client, server) } else { (server, client) });
            prop_assert!(segment.len <= u32::from(mss));
            prop_assert_eq!(segment.mss.is_some(), segment.syn);
            prop_assert!(next[from].is_none_or(|next| next == segment.seq), "in sequence");
            prop_assert_eq!(segment.ack, next[1 - from], "all is acknowledged");
            let flags = u32::from(segment.syn) + u32::from(segment.fin);
            next[from] = Some(segment.seq.wrapping_add(segment.len + flags));
            decoded[from].extend(segment.payload.iter().map(|byte| Some(*byte)));
            decoded[from].extend(vec![None; segment.len as usize - segment.payload.len()]);
        }
        prop_assert_eq!(decoded, sent);
    }
}
