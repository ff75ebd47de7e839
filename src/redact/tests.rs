use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::addr::Side;
use crate::recording::{EndSummary, Omission};
use crate::time::Timestamp;

const CLIENT: &str = "[2001:db8:1::10]:40000";
const SERVER: &str = "[2001:db8:2::25]:25";

fn redactor() -> Redactor {
    Redactor::new(&RedactionKey::new(std::array::from_fn(|n| n as u8)).unwrap())
}

fn frame(at: u64, body: FrameBody) -> Frame {
    Frame { session: 7, at: Timestamp::from_nanos(at), body }
}

fn begin() -> Frame {
    let (client, server) = (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
    frame(0, FrameBody::Begin { client, server, listener: "mx".into() })
}

fn end(at: u64) -> Frame {
    let ending = EndSummary {
        verdict: "reject".to_owned(),
        rule: Some("192.0.2.7 is bad".to_owned()),
        reason: None,
        outcome: "quit".to_owned(),
        decrypted: None,
        answers: Some("[[{\"reverse\":\"192.0.2.7\"}]]".to_owned()),
    };
    frame(at, FrameBody::End { reset: false, summary: ending })
}

fn redacted(frames: impl IntoIterator<Item = Frame>) -> Vec<Frame> {
    let (mut redactor, mut out) = (redactor(), Vec::new());
    for frame in frames {
        redactor.on_frame(frame, &mut |frame| out.push(frame));
    }
    out
}

/// `C: ` and `S: ` lines, each a frame, as a whole session; `C+ ` is content that has no line end of its own.
fn session(script: &str) -> Vec<Frame> {
    let dialogue_parts = script.lines().map(str::trim_start).filter(|line| !line.is_empty());
    let dialogue_parts = dialogue_parts.enumerate().map(|(n, line)| {
        let (from, text) = line.split_at_checked(3).unwrap();
        let bytes = match from {
            "C: " | "S: " => format!("{text}\r\n").into_bytes(),
            "C+ " => text.as_bytes().to_vec(),
            other => panic!("{other:?}"),
        };
        let from = if from.starts_with('C') { Side::Client } else { Side::Server };
        frame(n as u64 + 1, FrameBody::Data { from, bytes })
    });
    [begin()].into_iter().chain(dialogue_parts).chain([end(1000)]).collect()
}

/// The dialogue as a script again; `*N` are dropped bytes.
fn script(frames: &[Frame]) -> String {
    let side = |from: &Side| if *from == Side::Client { "C" } else { "S" };
    let lines = frames.iter().filter_map(|frame| match &frame.body {
        FrameBody::Data { from, bytes } => {
            let text = bytes.escape_ascii().to_string();
            let text = text.strip_suffix("\\r\\n").map_or(text.clone(), str::to_owned);
            Some(format!("{}: {text}\n", side(from)))
        }
        FrameBody::Omitted { from, count, .. } => Some(format!("{}: *{count}\n", side(from))),
        _ => None,
    });
    lines.collect()
}

#[test]
fn a_session_reads_on_without_telling_who_wrote_what() {
    let frames = session(
        "S: 220 mx.example.org ESMTP
         C: EHLO host192-0-2-7.example.net
         S: 250-mx.example.org hello [2001:db8:1::10]
         S: 250 SIZE 1000
         C: MAIL FROM:<Mary@example.net> SIZE=20 AUTH=<mary>
         S: 250 2.1.0 Ok
         C: RCPT TO:<nobody@example.org> NOTIFY=NEVER ORCPT=rfc822;nobody@example.org
         S: 550 5.1.1 <nobody@example.org>: no nobody here
         C: RCPT TO:<mary@[192.0.2.1]>
         S: 250 2.1.5 Ok
         C: DATA
         S: 354 go
         C: Subject: secret
         C: .
         S: 250 2.0.0 Ok: queued as 4F1D2C
         C: VRFY mary
         S: 252 2.0.0 Mary Smith
         C: XCLIENT ADDR=192.0.2.1
         S: 550 5.7.0 no
         C: MSLI mary
         S: 500 5.5.2 mary?
         C: QUIT
         S: 221 2.0.0 Bye",
    );
    let out = redacted(frames);
    let locals = LocalParts::new(&std::array::from_fn(|n| n as u8));
    let letters = |local: &str| String::from_utf8(locals.letters(local.as_bytes())).unwrap();
    let (mary, nobody) = (letters("mary"), letters("nobody"));
    let expected = format!(
        "S: 220 mx.example.org ESMTP
C: EHLO hostxxx-x-x-x.example.net
S: 250-mx.example.org hello [xxxx:xxx:x::xx]
S: 250 SIZE 1000
C: MAIL FROM:<{mary}@example.net> SIZE=20 xxxxxxxxxxx
S: 250 2.1.0 Ok
C: RCPT TO:<{nobody}@example.org> NOTIFY=NEVER xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
S: 550 5.1.1 <{nobody}@example.org>: no {nobody} here
C: RCPT TO:<{mary}@[xxx.x.x.x]>
S: 250 2.1.5 Ok
C: DATA
S: 354 go
C: *15
C: \\r\\n
C: .
S: 250 2.0.0 Ok: queued as 4F1D2C
C: VRFY xxxx
S: 252 2.0.0 xxxx xxxxx
C: XCLIENT xxxxxxxxxxxxxx
S: 550 5.7.0 xx
C: xxxx xxxx
S: 500 5.5.2 xxxxx
C: QUIT
S: 221 2.0.0 Bye
"
    );
    // The CRLF before the dot is shown as the end of data: alone it reads as an empty line.
    assert_eq!(script(&out).replace("C: \n", "C: \\r\\n\n"), expected);
    let Some(FrameBody::End { summary: ending, .. }) = out.last().map(|frame| &frame.body) else {
        panic!("no end: {out:?}")
    };
    assert_eq!(ending.rule.as_deref(), Some("xxx.x.x.x is bad"));
}

/// A replay of the redacted session rejects the same paths.
#[test]
fn a_hidden_path_is_as_well_formed_as_the_path() {
    let arguments = [
        "FROM:<mary@example.net> SIZE=3",
        "FROM:<\"mary%x\"@example.net>",
        "FROM:<>mary@example.net",
        "FROM: mary@example.net  SIZE=3",
        "TO:<Postmaster>",
        "TO:<abuse@example.org>",
        "TO:<mary>",
        "TO:<mary>,<bob@example.org>",
        "TO:<mary!bob%mary@example.org>",
        "TO:<\"mary@bob\"@example.org>",
        "TO:<@mary.example,@r.example:mary@example.org>",
        "TO:mary@example.org>",
        "TO:\"mary m\"@example.org NOTIFY=NEVER",
        "TO:<mary@example.org> <mary@example.org>",
        "TO <mary@example.org>",
        "mary",
    ];
    for argument in arguments {
        let verb = if argument.starts_with('F') { "MAIL" } else { "RCPT" };
        let shown = script(&redacted(session(&format!("S: 220 mx\n C: {verb} {argument}"))));
        assert!(!shown.to_ascii_lowercase().contains("mary"), "{shown}");
        let (_, shown) = shown.split_once("C: ").unwrap();
        let shown = shown.trim_end().replace("\\\"", "\"");
        let rerouting = |line: &str| {
            crate::smtp::Command::parse(line.as_bytes())
                .envelope()
                .ok()
                .map(|read| read.rerouting())
        };
        assert_eq!(
            rerouting(&shown),
            rerouting(&format!("{verb} {argument}")),
            "{argument}: {shown}"
        );
    }
}

#[test]
fn secrets_of_auth_are_blank_and_so_are_challenges() {
    let out = redacted(session(
        "S: 220 mx
         C: AUTH PLAIN AG1hcnkAc2VjcmV0
         S: 535 5.7.8 mary, no
         C: AUTH CRAM-MD5
         S: 334 PDE4OTYuNjk3MTcwOTUyQG14Pg==
         C: bWFyeSA1ZjQ=
         S: 235 2.7.0 welcome mary
         C: AUTH AG1hcnkAc2VjcmV0
         S: 504 5.5.4 no",
    ));
    let expected = "S: 220 mx
C: AUTH PLAIN xxxxxxxxxxxxxxxx
S: 535 5.7.8 xxxxx xx
C: AUTH CRAM-MD5
S: 334 xxxxxxxxxxxxxxxxxxxxxxxxxxxx
C: xxxxxxxxxxxx
S: 235 2.7.0 xxxxxxx xxxx
C: AUTH xxxxxxxxxxxxxxxx
S: 504 5.5.4 xx
";
    assert_eq!(script(&out), expected);
}

/// Servers such as Postfix skip it.
#[test]
fn a_blank_before_the_verb_reveals_nothing() {
    let out = redacted(session(
        "S: 220 mx
         C:  AUTH PLAIN AG1hcnkAc2VjcmV0
         S: 535 5.7.8 mary, no
         C:  MAIL FROM:<mary@example.net> SIZE=20
         S: 250 2.1.0 Ok",
    ));
    let shown = script(&out);
    assert!(!shown.contains("AG1h") && !shown.contains("mary"), "{shown}");
    assert!(
        shown.contains("AUTH PLAIN xxxx") && shown.contains("@example.net> SIZE=20"),
        "{shown}"
    );
}

#[test]
fn chunks_and_tls_are_dropped_and_what_follows_a_chunk_is_read_on() {
    let out = redacted(session(
        "S: 220 mx
         C: BDAT 6 LAST
         C+ secret
         S: 250 2.0.0 Ok
         C: STARTTLS
         S: 220 2.0.0 Ready
         C+ \u{16}secret
         S: secret",
    ));
    let expected = "S: 220 mx
C: BDAT 6 LAST
C: *6
S: 250 2.0.0 Ok
C: STARTTLS
S: 220 2.0.0 Ready
C: *7
S: *8
";
    assert_eq!(script(&out), expected);
}

#[test]
fn after_a_hole_in_what_must_be_followed_nothing_is_shown() {
    let hole = |body: FrameBody| {
        let mut frames =
            session("S: 220 mx\n C: NOOP\n C: MAIL FROM:<mary@example.net>\n S: 250 mary");
        frames.insert(2, frame(1, body));
        script(&redacted(frames))
    };
    let omitted = |from| FrameBody::Omitted { from, count: 9, reason: Omission::Overflow };
    let expected = |side: &str| format!("S: 220 mx\n{side}: *9\nC: *6\nC: *30\nS: *10\n");
    assert_eq!(hole(omitted(Side::Client)), expected("C"));
    assert_eq!(hole(omitted(Side::Server)), expected("S"));
}

#[test]
fn what_is_no_smtp_is_dropped() {
    let out =
        redacted(session("S: 220 mx\n C: GET /mary HTTP/1.1\n C: Host: mary\n S: 554 5.5.1 mary"));
    assert_eq!(script(&out), "S: 220 mx\nC: *20\nC: *12\nS: 554 5.5.1 mary\n");
    let out = redacted(session("S: hello mary\n C: MAIL FROM:<mary@example.net>"));
    assert_eq!(script(&out), "S: *12\nC: *30\n");
}

#[test]
fn what_comes_early_keeps_its_place_and_time() {
    let frames = session("C: EHLO early.example\n S: 220 mx\n S: 250 mx");
    let out = redacted(frames.clone());
    assert_eq!(out.len(), frames.len());
    for (out, frame) in out.iter().zip(&frames).skip(1).take(3) {
        assert_eq!(out, frame);
    }
}

#[test]
fn a_session_whose_beginning_is_not_known_is_not_shown() {
    let mut frames = session("S: 220 mx");
    frames.remove(0);
    assert_eq!(redacted(frames), []);
}

#[test]
fn keys_are_64_digits_with_two_halves() {
    let half = "00112233445566778899aabbccddeeff";
    assert!(RedactionKey::from_hex(&format!("{half}{}", half.replace("00", "01"))).is_some());
    assert!(RedactionKey::from_hex(&format!("{half}{half}")).is_none(), "hides nothing");
    for wrong in ["", half, &"+1".repeat(32), &"\u{e4}".repeat(32)] {
        assert!(RedactionKey::from_hex(wrong).is_none(), "{wrong}");
    }
}

fn common_prefix(a: IpAddr, b: IpAddr) -> u32 {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u32::from(a) ^ u32::from(b)).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (u128::from(a) ^ u128::from(b)).leading_zeros(),
        _ => panic!("{a} and {b} are of two families"),
    }
}

/// A local part that stands nowhere else.
fn local() -> impl Strategy<Value = String> {
    "[A-Z0-9]{3}([.]?[a-z0-9+=_-]){2,12}qz"
}

/// The commands of a session, the replies, and the words that must not survive.
fn dialogue() -> impl Strategy<Value = (Vec<(Side, Vec<u8>)>, Vec<String>)> {
    let secret = "[a-z]{4}(\r\n\\.?)?[a-z]{4}secret(\r\n)?".prop_map(|text| text + "wordqz");
    (local(), proptest::collection::vec(local(), 1..4), secret, any::<bool>()).prop_map(
        |(sender, recipients, secret, chunked)| {
            let mut dialogue_parts = Vec::new();
            let mut send = |from, text: String| dialogue_parts.push((from, text.into_bytes()));
            send(Side::Server, "220 mx.example ESMTP\r\n".to_owned());
            send(
                Side::Client,
                format!("EHLO [IPv6:2001:db8:1::10]\r\nMAIL FROM:<{sender}@a.example>\r\n"),
            );
            send(Side::Server, format!("250 mx\r\n250 2.1.0 {sender} ok\r\n"));
            for recipient in &recipients {
                send(
                    Side::Client,
                    format!("rcpt to:<{recipient}@b.example> ORCPT={recipient}\r\n"),
                );
                send(Side::Server, format!("550 5.1.1 <{recipient}@b.example>: {recipient}?\r\n"));
            }
            if chunked {
                send(Side::Client, format!("BDAT {} LAST\r\n{secret}", secret.len()));
            } else {
                send(Side::Client, "DATA\r\n".to_owned());
                send(Side::Server, "354 go\r\n".to_owned());
                send(Side::Client, format!("{secret}\r\n.\r\n"));
            }
            send(Side::Server, format!("250 2.0.0 ok {sender}@a.example\r\n"));
            send(Side::Client, format!("VRFY {sender}\r\nQUIT\r\n"));
            send(Side::Server, format!("252 {sender}\r\n221 bye 2001:db8:1::10\r\n"));
            let mut words = recipients;
            words.extend([sender, "secret".to_owned(), "wordqz".to_owned(), "2001:db8".to_owned()]);
            (dialogue_parts, words)
        },
    )
}

proptest! {
    #[test]
    fn equal_prefixes_stay_equal_and_no_longer(a: IpAddr, b: IpAddr, keep in 0..128u32) {
        let redactor = redactor();
        let replaced = |ip: IpAddr| redactor.address(SocketAddr::new(ip, 1)).ip();
        let b = match (a, b) {
            (IpAddr::V4(a), _) => {
                let flip = 1u32 << (31 - keep % 32);
                IpAddr::V4((u32::from(a) ^ flip).into())
            }
            (IpAddr::V6(a), _) => IpAddr::V6((u128::from(a) ^ (1 << (127 - keep))).into()),
        };
        let (a, b) = (a.to_canonical(), b.to_canonical());
        prop_assume!(a.is_ipv4() == b.is_ipv4());
        prop_assert_eq!(common_prefix(replaced(a), replaced(b)), common_prefix(a, b));
    }

    /// However the dialogue is cut: each frame keeps its time and its length, and no word survives.
    #[test]
    fn nothing_survives_and_lengths_stay((dialogue_parts, words) in dialogue(), size in 1..60usize) {
        let mut frames = vec![begin()];
        let mut at = 0;
        for (from, bytes) in &dialogue_parts {
            for part in bytes.chunks(size) {
                at += 1;
                frames.push(frame(at, FrameBody::Data { from: *from, bytes: part.to_vec() }));
            }
        }
        frames.push(end(at + 1));
        let out = redacted(frames.clone());

        let lengths = |frames: &[Frame]| {
            let mut lengths: std::collections::BTreeMap<_, u64> = Default::default();
            for frame in frames {
                match &frame.body {
                    FrameBody::Data { from, bytes } => {
                        *lengths.entry((frame.at, *from)).or_default() += bytes.len() as u64;
                    }
                    FrameBody::Omitted { from, count, .. } => {
                        *lengths.entry((frame.at, *from)).or_default() += count;
                    }
                    _ => {}
                }
            }
            lengths
        };
        prop_assert_eq!(lengths(&out), lengths(&frames));
        prop_assert!(out.windows(2).all(|pair| pair[0].at <= pair[1].at));

        let shown = |side| -> Vec<u8> {
            let bytes = out.iter().filter_map(|frame| match &frame.body {
                FrameBody::Data { from, bytes } if *from == side => Some(bytes.clone()),
                _ => None,
            });
            bytes.flatten().collect()
        };
        for side in Side::ALL {
            let shown = String::from_utf8(shown(side)).unwrap().to_lowercase();
            for word in &words {
                prop_assert!(!shown.contains(&word.to_lowercase()), "{word} survives in {shown}");
            }
        }
        // It is still the same dialogue.
        let client = String::from_utf8(shown(Side::Client)).unwrap();
        for kept in ["EHLO [IPv6:", "MAIL FROM:<", "@a.example>", "rcpt to:<", "@b.example>", "QUIT"] {
            prop_assert!(client.contains(kept), "{kept} is gone from {client}");
        }
    }

    #[test]
    fn nothing_panics(
        dialogue_parts in proptest::collection::vec((any::<bool>(), "[ -~\r\n]{0,40}|220 a\r\n|354\r\n|DATA\r\n|BDAT 9\r\n|AUTH a\r\n|334 a\r\n|STARTTLS\r\n"), 0..20)
    ) {
        let frames = dialogue_parts.into_iter().map(|(client, text)| {
            let from = if client { Side::Client } else { Side::Server };
            frame(1, FrameBody::Data { from, bytes: text.into_bytes() })
        });
        let frames: Vec<Frame> = [begin()].into_iter().chain(frames).chain([end(2)]).collect();
        let out = redacted(frames.clone());
        let count = |frames: &[Frame]| -> u64 {
            let counts = frames.iter().map(|frame| match &frame.body {
                FrameBody::Data { bytes, .. } => bytes.len() as u64,
                FrameBody::Omitted { count, .. } => *count,
                _ => 0,
            });
            counts.sum()
        };
        prop_assert_eq!(count(&out), count(&frames));
    }
}
