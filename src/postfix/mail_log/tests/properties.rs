//! Properties that hold for every log.

use proptest::prelude::*;

use super::super::{MailLogCounts, MailLogEvent};
use super::{log, parser, show};

/// Lines of a few processes, messages and servers.
fn any_log() -> impl Strategy<Value = String> {
    let server = || prop::sample::select(vec!["a.example[2001:db8::1]", "a.example[192.0.2.1]"]);
    let id = || prop::sample::select(vec!["ABC123", "ABC124", "4ZxKzs5lRLz1Xb"]);
    let reply =
        prop::sample::select(vec!["550 5.7.1 (x)", "450 4.7.25 <u@b.example>", "550 5.1.1 no"]);
    let command = prop::sample::select(vec!["RCPT TO", "end of DATA", "MAIL FROM"]);
    let text =
        (server(), reply, command, 0..4).prop_map(|(server, reply, command, kind)| match kind {
            0 => format!("host {server} said: {reply} (in reply to {command} command)"),
            1 => format!("host {server} refused to talk to me: {reply}"),
            2 => format!("lost connection with {server} while sending {command}"),
            _ => "Cannot start TLS: handshake failure".to_owned(),
        });
    let fields = "delay=1, delays=0/0/1/0, dsn=4.0.0";
    let line = prop_oneof![
        server().prop_map(|server| format!("connect to {server}:25: Connection timed out")),
        server().prop_map(|server| format!("SSL_connect error to {server}:25: lost connection")),
        (id(), text.clone()).prop_map(|(id, text)| format!("{id}: {text}")),
        (id(), server(), text).prop_map(move |(id, server, text)| format!(
            "{id}: to=<u@b.example>, relay={server}:25, {fields}, status=deferred ({text})"
        )),
        (id(), server()).prop_map(move |(id, server)| format!(
            "{id}: to=<u@b.example>, relay={server}:25, {fields}, status=sent (250 ok)"
        )),
        id().prop_map(move |id| format!(
            "{id}: to=<u@b.example>, relay=none, {fields}, status=deferred (connect to x)"
        )),
    ];
    prop::collection::vec((0..60_u8, 1..4_u8, line), 0..30).prop_map(|lines| {
        let mut lines = lines;
        lines.sort_by_key(|(second, ..)| *second);
        let lines =
            lines.iter().map(|(second, pid, line)| format!("{second:02} smtp {pid} {line}\n"));
        log(&lines.collect::<String>())
    })
}

fn parse(pieces: &[&[u8]]) -> (Vec<MailLogEvent>, MailLogCounts) {
    let (mut parser, mut out) = (parser(), Vec::new());
    for piece in pieces {
        parser.on_bytes(piece, &mut out);
    }
    parser.finish(&mut out);
    (out, parser.counts())
}

proptest! {
    #[test]
    fn pieces_change_nothing(log in any_log(), cuts in prop::collection::vec(0..4096_usize, 0..8)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(log.len())).collect();
        cuts.extend([0, log.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &log.as_bytes()[cut[0]..cut[1]]).collect();
        prop_assert_eq!(parse(&pieces), parse(&[log.as_bytes()]));
    }

    #[test]
    fn a_line_that_is_logged_twice_is_no_second_attempt(log in any_log()) {
        let twice: String = log.split_inclusive('\n').flat_map(|line| [line, line]).collect();
        let attempts = |log: &str| {
            let (mut events, _) = parse(&[log.as_bytes()]);
            events.retain(|event| matches!(event, MailLogEvent::Attempt(_)));
            events
        };
        prop_assert_eq!(show(&attempts(&twice)), show(&attempts(&log)));
    }

    #[test]
    fn an_attempt_needs_a_line_of_its_own(log in any_log()) {
        let (events, counts) = parse(&[log.as_bytes()]);
        let attempts = events.iter().filter(|event| matches!(event, MailLogEvent::Attempt(_)));
        prop_assert!(attempts.count() as u64 <= counts.smtp_lines);
        prop_assert_eq!(counts.not_understood, 0);
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), log in any_log(), at in 0..4096_usize) {
        let at = at.min(log.len());
        let damaged = [&log.as_bytes()[..at], &bytes, &log.as_bytes()[at..]].concat();
        let (mut parser, mut out) = (parser(), Vec::new());
        parser.on_bytes(&damaged, &mut out);
        parser.on_journal(&damaged, &mut out);
        parser.finish(&mut out);
    }
}
