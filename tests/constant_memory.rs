//! The engine, the observer and the DKIM verifier allocate no memory for the length of a message of 100 MB (10 MB for the
//! verifier), counted at the allocator, in a separate process.

#![allow(unsafe_code, reason = "a global allocator cannot be written without")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests end by panicking"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gatepost::addr::{ClientAddr, OriginalDst};
use gatepost::dkim::{DkimLimits, MessageVerifier};
use gatepost::engine::{Action, Observer, Output, Profile, Proxy, Side, TcpFacts, Timeouts};
use gatepost::time::Timestamp;

thread_local! {
    /// Of this thread only: the test harness has its own threads.
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting touches none of the caller's memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + layout.size());
        // SAFETY: the caller fulfils the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TOTAL: usize = 100 << 20;

/// Bytes allocated after the first read while 100 MB of `line`s pass in reads of 64 KiB, and bytes forwarded.
fn streamed(open: &[u8], replies: &[u8], line: &[u8]) -> (usize, usize) {
    let at = Timestamp::from_nanos(1);
    let client = ClientAddr::new("192.0.2.1:4000".parse().unwrap());
    let server = OriginalDst::new("192.0.2.2:25".parse().unwrap());
    let timeouts = Timeouts::RFC_5321;
    let mut engine = Proxy::new(Profile::default().into(), timeouts, client, server, at);
    let mut out = Output::default();
    assert!(engine.open(None, &mut out));
    engine.on_server_data(b"220 a\r\n", at, &mut out);
    engine.on_client_data(b"EHLO a\r\n", at, &mut out);
    engine.on_server_data(b"250-a\r\n250-PIPELINING\r\n250 CHUNKING\r\n", at, &mut out);
    assert_eq!(engine.on_client_data(open, at, &mut out), open.len());
    engine.on_server_data(replies, at, &mut out);
    let read: Vec<u8> = line.iter().copied().cycle().take(64 << 10).collect();
    let (mut warm, mut forwarded) = (0, 0);
    for number in 0..TOTAL / read.len() {
        out.clear();
        assert_eq!(engine.on_client_data(&read, at, &mut out), read.len());
        for action in &out.actions {
            match action {
                Action::Forward(range) => forwarded += range.len(),
                Action::Insert(bytes) => forwarded += bytes.len(),
                other => panic!("{other:?}"),
            }
        }
        if number == 1 {
            warm = ALLOCATED.get();
        }
    }
    (ALLOCATED.get() - warm, forwarded)
}

#[test]
fn a_hundred_megabytes_allocate_nothing() {
    let envelope = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n";
    let data = [&envelope[..], b"DATA\r\n"].concat();
    let bdat = [&envelope[..], format!("BDAT {}\r\n", TOTAL + 1).as_bytes()].concat();
    let replies = b"250 a\r\n250 b\r\n354 c\r\n";
    let clean = b"0123456789012345678901234567890123456789012345678901234567890\r\n";
    // 64 KiB hold a whole number of these, so that every read is like the first.
    for (what, open, replies, line) in [
        ("clean data", &data, &replies[..], &clean[..]),
        ("a chunk", &bdat, &replies[..14], &b"\n.\r\n"[..]),
        ("data with a bare LF in every line", &data, &replies[..], &b"abcdefg\n"[..]),
    ] {
        let (allocated, forwarded) = streamed(open, replies, line);
        println!(
            "{what}: {forwarded} bytes forwarded, {allocated} allocated after the second read"
        );
        assert_eq!(allocated, 0, "{what}");
        assert!(forwarded >= TOTAL - 64, "{what}");
    }
}

/// Bytes allocated after the first read while the observer receives 100 MB of `line`s in reads of 64 KiB, and the message's
/// length.
fn observe(open: &[u8], replies: &[u8], line: &[u8]) -> (usize, u64) {
    let at = Timestamp::from_nanos(1);
    let client = ClientAddr::new("192.0.2.1:4000".parse().unwrap());
    let server = OriginalDst::new("192.0.2.2:25".parse().unwrap());
    let mut observer = Observer::new(Profile::default().into(), client, server, at, false);
    let mut out = Output::default();
    observer.on_data(Side::Server, b"220 a\r\n", at, &mut out);
    observer.on_data(Side::Client, open, at, &mut out);
    observer.on_data(Side::Server, replies, at, &mut out);
    let read: Vec<u8> = line.iter().copied().cycle().take(64 << 10).collect();
    let mut warm = 0;
    for number in 0..TOTAL / read.len() {
        out.clear();
        observer.on_data(Side::Client, &read, at, &mut out);
        assert_eq!(observer.held_bytes(), 0, "nothing is held");
        if number == 1 {
            warm = ALLOCATED.get();
        }
    }
    let allocated = ALLOCATED.get() - warm;
    observer.on_data(Side::Client, b"\r\n.\r\n", at, &mut out);
    let record = observer.finish(TcpFacts::default(), at, &mut out);
    (allocated, record.smtp.transactions[0].bytes)
}

#[test]
fn the_observer_copies_no_message() {
    let envelope = b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n";
    let data = [&envelope[..], b"DATA\r\n"].concat();
    let bdat = [&envelope[..], format!("BDAT {} LAST\r\n", TOTAL + 5).as_bytes()].concat();
    let replies = b"250 a\r\n250 b\r\n354 c\r\n";
    let clean = b"0123456789012345678901234567890123456789012345678901234567890\r\n";
    for (what, open, replies, line, end) in [
        ("clean data", &data, &replies[..], &clean[..], 2),
        ("a chunk", &bdat, &replies[..14], &b"\n.\r\n"[..], 5),
        ("data with a bare LF in every line", &data, &replies[..], &b"abcdefg\n"[..], 2),
    ] {
        let (allocated, bytes) = observe(open, replies, line);
        println!("{what}: {bytes} bytes observed, {allocated} allocated after the second read");
        assert_eq!(allocated, 0, "{what}");
        assert_eq!(bytes, TOTAL as u64 + end, "{what}");
    }
}

/// 10 MB, since hashes are slow without optimisation; signatures of both canonicalisations, and one with a limit that is reached
/// on the way.
#[test]
fn body_hashes_allocate_nothing() {
    let signature = |tags: &str| {
        format!(
            "DKIM-Signature: v=1; a=rsa-sha256; d=a.example; s=s; h=from; b=YQ==; {tags};\r\n \
             bh=uaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=\r\n"
        )
    };
    let header: String = ["c=simple/simple", "c=relaxed/relaxed", "c=relaxed/relaxed; l=1000000"]
        .map(signature)
        .concat();
    let mut verifier = MessageVerifier::new(DkimLimits::default());
    verifier.write(format!("{header}From: a@a.example\r\n\r\n").as_bytes());
    assert_eq!(verifier.signatures().count(), 3);
    let read: Vec<u8> = b"a  b c \r\n\r\n \r\n".iter().copied().cycle().take(64 << 10).collect();
    let before = ALLOCATED.get();
    for _ in 0..TOTAL / 10 / read.len() {
        verifier.write(&read);
    }
    assert_eq!(ALLOCATED.get() - before, 0);
    let message = verifier.finish().unwrap();
    assert!(message.signatures[2].unsigned_octets() > TOTAL as u64 / 30);
}
