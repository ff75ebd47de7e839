//! The Message-ID of canaries is read as messages pass, by DATA and by chunks.

use std::sync::Arc;

use gatepost::addr::{ClientAddr, OriginalDst};
use gatepost::canary::{MarkPattern, MarkRules, PassedMessage, SpamFilter};
use gatepost::engine::{Output, Profile, Proxy, Timeouts};
use gatepost::time::Timestamp;

const ID: &str = "<c1.0123456789abcdef.6i.6957370f.b2a5f14ddb4c0f81ae8c5b47d689a4d2@a>";
const AT: Timestamp = Timestamp::from_nanos(1);

/// The canaries that pass in a session of these bytes of the client, each answered by the next replies.
fn passed(reads_canaries: bool, dialogue: &[(&str, &str)]) -> Vec<String> {
    let messages = messages(reads_canaries.then(MarkRules::default), dialogue);
    messages.into_iter().map(|message| message.message_id).collect()
}

fn messages(canary_marks: Option<MarkRules>, dialogue: &[(&str, &str)]) -> Vec<PassedMessage> {
    let profile = Arc::new(Profile { canary_marks, ..Profile::default() });
    let client = ClientAddr::new("[2001:db8::1]:4000".parse().unwrap());
    let destination = OriginalDst::new("[2001:db8::25]:25".parse().unwrap());
    let mut proxy = Proxy::new(profile, Timeouts::RFC_5321, client, destination, AT);
    let mut out = Output::default();
    proxy.open(None, &mut out);
    let mut canaries = Vec::new();
    proxy.on_server_data(b"220 s\r\n", AT, &mut out);
    for (sent, reply) in dialogue {
        let mut rest = sent.as_bytes();
        while !rest.is_empty() {
            out.clear();
            let used = proxy.on_client_data(rest, AT, &mut out);
            assert!(used > 0, "{sent:?} is not consumed");
            rest = &rest[used..];
            canaries.append(&mut out.canaries);
        }
        out.clear();
        let used = proxy.on_server_data(reply.as_bytes(), AT, &mut out);
        assert_eq!(used, reply.len(), "{reply:?} is not consumed");
    }
    canaries
}

const EHLO: (&str, &str) = ("EHLO c\r\n", "250-s\r\n250 CHUNKING\r\n");
const MAIL: (&str, &str) = ("MAIL FROM:<a@a.example>\r\n", "250 ok\r\n");
const RCPT: (&str, &str) = ("RCPT TO:<b@b.example>\r\n", "250 ok\r\n");

#[test]
fn canaries_are_read_in_data_and_in_chunks() {
    let header = format!("Subject: a\r\nMessage-ID: {ID}\r\n\r\n");
    let data = format!("{header}Message-ID: {ID}\r\n.\r\n");
    let (one, other) = header.split_at(20);
    let first = format!("BDAT {}\r\n{one}", one.len());
    let second = format!("BDAT {}\r\n{other}", other.len());
    let last = format!("BDAT {} LAST\r\n{header}", header.len());
    let dialogue = [
        EHLO,
        MAIL,
        RCPT,
        ("DATA\r\n", "354 go\r\n"),
        (&data, "250 queued\r\n"),
        MAIL,
        RCPT,
        (&first, "250 ok\r\n"),
        (&second, "250 ok\r\n"),
        // It belongs to the body.
        (&last, "250 queued\r\n"),
        MAIL,
        RCPT,
        (&last, "250 queued\r\n"),
    ];
    assert_eq!(passed(true, &dialogue), [ID, ID, ID]);
    assert_eq!(passed(false, &dialogue), [""; 0]);
}

#[test]
fn marks_of_the_operator_are_seen_as_a_message_passes() {
    let data = format!("X-Filter-Verdict: it is\r\n Junk\r\nMessage-ID: {ID}\r\n\r\n.\r\n");
    let dialogue = [EHLO, MAIL, RCPT, ("DATA\r\n", "354 go\r\n"), (&data, "250 queued\r\n")];
    let of = |rules| {
        let found = messages(Some(rules), &dialogue).remove(0).judgement.marks;
        found.into_iter().map(|mark| (mark.by, mark.value)).collect::<Vec<_>>()
    };
    let pattern = MarkPattern::parse("X-Filter-Verdict: *junk*").unwrap();
    assert_eq!(of(MarkRules::new(vec![pattern])), [(SpamFilter::Custom, "it is Junk".to_owned())]);
    assert_eq!(of(MarkRules::default()), []);
}
