//! Fragments in every order, and fragments that must not be reassembled.

use std::time::Duration;

use super::*;
use crate::wire::DecodeError;

const FRAGMENT: &str = "fragment";

/// Fragments of the IP packet `whole`, one for each `(offset, more, payload)`, with the datagram identification `id`.
fn make_fragments(whole: &[u8], id: u16, cuts: &[(usize, bool, &[u8])]) -> Vec<Vec<u8>> {
    let fragment = |&(offset, more, payload): &(usize, bool, &[u8])| {
        let offset = u16::try_from(offset).unwrap();
        if whole[0] >> 4 == 4 {
            let mut packet = [&whole[..20], payload].concat();
            let len = u16::try_from(packet.len()).unwrap();
            packet[2..4].copy_from_slice(&len.to_be_bytes());
            packet[4..6].copy_from_slice(&id.to_be_bytes());
            let field = (offset / 8) | (u16::from(more) << 13);
            packet[6..8].copy_from_slice(&field.to_be_bytes());
            packet
        } else {
            let mut header = vec![whole[6], 0];
            header.extend((offset | u16::from(more)).to_be_bytes());
            header.extend(u32::from(id).to_be_bytes());
            extended(&[&whole[..40], payload].concat(), 44, &[&header])
        }
    };
    cuts.iter().map(fragment).collect()
}

/// `whole` in fragments of `size` bytes.
fn split(whole: &[u8], id: u16, size: usize) -> Vec<Vec<u8>> {
    let payload = &whole[if whole[0] >> 4 == 4 { 20 } else { 40 }..];
    let last = (payload.len() - 1) / size;
    let cuts: Vec<_> = payload
        .chunks(size)
        .enumerate()
        .map(|(number, part)| (number * size, number != last, part))
        .collect();
    make_fragments(whole, id, &cuts)
}

/// The result of decoding `bytes`: the payload of a segment, or a word.
fn decode(decoder: &mut Decoder, bytes: &[u8], at: Timestamp) -> String {
    let packet = Packet { at, ..packet(LinkType::Raw, bytes, bytes.len()) };
    match decoder.decode(&packet) {
        Decoded::Tcp(segment) => {
            assert_eq!((segment.src, segment.dst), ends(bytes[0] >> 4 == 6));
            assert_eq!(usize::try_from(segment.len), Ok(segment.payload.len()));
            String::from_utf8_lossy(segment.payload).into_owned()
        }
        Decoded::Fragment => FRAGMENT.to_owned(),
        Decoded::Error(error) => format!("{error:?}"),
        other => panic!("{other:?}"),
    }
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else {
        return vec![vec![]];
    };
    let insert = |order: Vec<usize>| {
        (0..=order.len()).map(move |index| {
            let mut order = order.clone();
            order.insert(index, last);
            order
        })
    };
    orders(last).into_iter().flat_map(insert).collect()
}

const TEXT: &[u8] = b"DATA of a segment that came in pieces of sixteen bytes";

#[test]
fn fragments_in_every_order_are_reassembled() {
    for whole in [tcp4(TEXT), tcp6(TEXT)] {
        let fragments = split(&whole, 7, 16);
        assert_eq!(fragments.len(), 5);
        let mut decoder = Decoder::new();
        for order in orders(5) {
            let (last, others) = order.split_last().unwrap();
            for &number in others {
                assert_eq!(decode(&mut decoder, &fragments[number], AT), FRAGMENT, "{order:?}");
            }
            let text = decode(&mut decoder, &fragments[*last], AT);
            assert_eq!(text.as_bytes(), TEXT, "{order:?}");
        }
    }
}

#[test]
fn interleaved_datagrams_and_duplicate_fragments_are_reassembled() {
    for make in [tcp4, tcp6] {
        let (one, other) =
            (split(&make(b"the one, and its end"), 1, 24), make(b"the other of them"));
        let other = split(&other, 2, 24);
        let mut decoder = Decoder::new();
        for fragment in [&one[1], &other[0], &one[1], &other[0]] {
            assert_eq!(decode(&mut decoder, fragment, AT), FRAGMENT);
        }
        assert_eq!(decode(&mut decoder, &one[0], AT), "the one, and its end");
        assert_eq!(decode(&mut decoder, &other[1], AT), "the other of them");
    }
}

/// The fragmentable part of an IPv6 packet may start with an extension header, and only the first fragment has its type.
#[test]
fn the_fragmentable_part_may_start_with_options() {
    let mut whole = extended(&tcp6(TEXT), 60, &[&[6, 0, 1, 4, 0, 0, 0, 0]]);
    let mut fragments = split(&whole, 7, 16);
    whole[6] = 60;
    for fragment in &mut fragments[1..] {
        fragment[40] = 59;
    }
    fragments.reverse();
    let mut decoder = Decoder::new();
    let results: Vec<_> = fragments.iter().map(|bytes| decode(&mut decoder, bytes, AT)).collect();
    assert_eq!(results.last().unwrap().as_bytes(), TEXT);
}

#[test]
fn an_overlap_invalidates_the_datagram() {
    for whole in [tcp4(TEXT), tcp6(TEXT)] {
        let fragments = split(&whole, 7, 16);
        for overlap in [
            (8, true, &b"overlaps two of them...."[..]),
            (16, true, b"other bytes...."),
            (16, false, &whole[whole.len() - 59..][..16]),
            (0, true, &[b'.'; 32]),
        ] {
            let overlap = make_fragments(&whole, 7, &[overlap]).remove(0);
            let mut decoder = Decoder::new();
            let sent = [&fragments[0], &fragments[1], &overlap, &fragments[2], &fragments[3]];
            let results = sent.map(|bytes| decode(&mut decoder, bytes, AT));
            assert_eq!(results[..2], [FRAGMENT, FRAGMENT]);
            assert_eq!(results[2..], ["Reassembly"; 3]);
        }
    }
}

#[test]
fn invalid_fragments_are_rejected() {
    for (whole, first) in [(tcp4(TEXT), 20), (tcp6(TEXT), 40)] {
        for wrong in [
            (0, true, &whole[first..first + 15]), // Not a multiple of 8.
            (65528, false, &whole[first..first + 16]), // Beyond 65,535 bytes.
            (16, false, &[][..]),                 // Nothing.
        ] {
            let mut decoder = Decoder::new();
            let wrong = make_fragments(&whole, 7, &[wrong]).remove(0);
            assert_eq!(decode(&mut decoder, &wrong, AT), "Reassembly");
        }
        // The last fragment ends before another one.
        let ends = [(32, true, &whole[first..first + 16]), (16, false, &whole[first..first + 8])];
        let ends = make_fragments(&whole, 7, &ends);
        let mut decoder = Decoder::new();
        assert_eq!(decode(&mut decoder, &ends[0], AT), FRAGMENT);
        assert_eq!(decode(&mut decoder, &ends[1], AT), "Reassembly");
        // A truncated fragment is not used.
        let fragments = split(&whole, 7, 32);
        let short = &fragments[0][..fragments[0].len() - 1];
        let truncated = decoder.decode(&packet(LinkType::Raw, short, short.len() + 1));
        assert_eq!(truncated, Decoded::Error(DecodeError::Truncated));
    }
}

#[test]
fn memory_is_bounded_under_attack() {
    let mut decoder = Decoder::new();
    let fragments: Vec<_> = (0..1000).map(|id| split(&tcp6(TEXT), id, 16)).collect();
    for (number, fragment) in fragments.iter().enumerate() {
        let expected = if number < 64 { FRAGMENT } else { "Reassembly" };
        assert_eq!(decode(&mut decoder, &fragment[0], AT), expected, "{number}");
    }
    // The newest are still held, an older one is not.
    for (id, expected) in [(999, TEXT), (936, TEXT), (935, FRAGMENT.as_bytes())] {
        let rest = &fragments[id][1..];
        let results: Vec<_> = rest.iter().map(|bytes| decode(&mut decoder, bytes, AT)).collect();
        assert_eq!(results.last().unwrap().as_bytes(), expected, "{id}");
    }
}

#[test]
fn fragments_expire() {
    let fragments = split(&tcp4(TEXT), 7, 40);
    for (seconds, expected) in [(60, TEXT), (61, FRAGMENT.as_bytes())] {
        let mut decoder = Decoder::new();
        assert_eq!(decode(&mut decoder, &fragments[0], AT), FRAGMENT);
        let later = AT + Duration::from_secs(seconds);
        assert_eq!(decode(&mut decoder, &fragments[1], later).as_bytes(), expected, "{seconds} s");
    }
}
