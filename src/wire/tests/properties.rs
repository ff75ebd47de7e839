//! What holds for every packet, and for every dialogue.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::addr::Side;
use crate::wire::{DecodeError, SyntheticConnection};

fn links() -> impl Strategy<Value = LinkType> {
    (0_u16..300).prop_map(LinkType::from_number)
}

/// Packets that are mostly right.
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

/// `cut` is `whole` as a capture with a snap length shows it.
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

/// Who says what; `None` is a hole of that many bytes.
fn dialogue() -> impl Strategy<Value = Vec<(Side, Option<Vec<u8>>, u16)>> {
    let side = prop_oneof![Just(Side::Client), Just(Side::Server)];
    vec((side, prop::option::of(vec(any::<u8>(), 0..300)), 0_u16..3000), 0..8)
}

proptest! {
    #[test]
    fn no_octets_panic(link in links(), packets in vec(vec(any::<u8>(), 0..120), 0..8), wire_len: u32) {
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
        for (which, place, value) in mutations {
            let which = which.index(packets.len());
            let bytes = &mut packets[which];
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
        }
        let mut decoder = Decoder::new();
        for bytes in &packets {
            if let Decoded::Tcp(segment) = decoder.decode(&packet(LinkType::Raw, bytes, bytes.len())) {
                prop_assert!(segment.payload.len() <= segment.len as usize);
            }
        }
    }

    /// A snap length takes payload away and changes nothing else.
    #[test]
    fn cut_anywhere(bytes in packets(), mutation in prop::option::of((any::<prop::sample::Index>(), any::<u8>()))) {
        let mut bytes = bytes;
        if let Some((place, value)) = mutation && !bytes.is_empty() {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        let (mut decoder, mut other) = (Decoder::new(), Decoder::new());
        let whole = decoder.decode(&packet(LinkType::Raw, &bytes, bytes.len()));
        for end in 0..bytes.len() {
            let cut = other.decode(&packet(LinkType::Raw, &bytes[..end], bytes.len()));
            prop_assert!(agrees(whole, cut), "{end}: {whole:?} became {cut:?}");
        }
    }

    /// What a talk writes says what was said, each byte once and in order, and acknowledges it.
    #[test]
    fn a_talk_is_read_as_it_was_said(v6: bool, mss in 1_u16..2000, nanos: u64, dialogue in dialogue()) {
        let (client, server) = ends(v6);
        let mut talk = SyntheticConnection::new(client, server).with_mss(mss);
        let at = Timestamp::from_nanos(nanos);
        let mut packets = Vec::new();
        let mut keep = |at: Timestamp, bytes: &[u8], wire_len| packets.push((at, bytes.to_vec(), wire_len));
        talk.open(at, &mut keep);
        let mut said: [Vec<Option<u8>>; 2] = Default::default();
        for (from, bytes, hole) in &dialogue {
            match bytes {
                Some(bytes) => {
                    talk.say(*from, bytes, at, &mut keep);
                    said[from.index()].extend(bytes.iter().map(|byte| Some(*byte)));
                }
                None => {
                    talk.omit(*from, u64::from(*hole), at, &mut keep);
                    said[from.index()].extend(vec![None; usize::from(*hole)]);
                }
            }
        }
        talk.close(Side::Client, at, &mut keep);
        talk.say(Side::Client, b"too late", at, &mut keep);
        talk.omit(Side::Client, 7, at, &mut keep);
        talk.close(Side::Server, at, &mut keep);
        talk.reset(Side::Client, at, &mut keep);

        let mut heard: [Vec<Option<u8>>; 2] = Default::default();
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
            heard[from].extend(segment.payload.iter().map(|byte| Some(*byte)));
            heard[from].extend(vec![None; segment.len as usize - segment.payload.len()]);
        }
        prop_assert_eq!(heard, said);
    }
}
