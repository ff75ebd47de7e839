//! Postfix's mail log.

use gatepost::postfix::mail_log::{LogZone, MailLogCounts, MailLogEvent, MailLogParser};
use gatepost::time::Timestamp;

/// 2026-12-01T22:00:00Z.
const REFERENCE: Timestamp = Timestamp::from_nanos(1_796_162_400_000_000_000);
/// Bytes of a reply that may be kept.
const MAX_REPLY: usize = 600;

/// Any octets as a log of text lines and as an export of the journal, in one piece and in pieces.
pub(crate) fn mail_log(input: &[u8]) {
    for read in [MailLogParser::on_bytes, MailLogParser::on_journal] {
        let whole = events(&[input], read);
        let size = 1 + input.len() / 7;
        assert_eq!(whole, events(&input.chunks(size).collect::<Vec<_>>(), read));
        check(&whole.0, whole.1);
    }
}

type Read = fn(&mut MailLogParser, &[u8], &mut Vec<MailLogEvent>);

fn events(pieces: &[&[u8]], read: Read) -> (Vec<MailLogEvent>, MailLogCounts) {
    let mut parser = MailLogParser::new(LogZone::utc(), REFERENCE);
    let mut out = Vec::new();
    for piece in pieces {
        read(&mut parser, piece, &mut out);
    }
    parser.finish(&mut out);
    (out, parser.counts())
}

fn check(events: &[MailLogEvent], counts: MailLogCounts) {
    assert!(counts.not_understood <= counts.smtp_lines);
    // A line leads to an attempt and a delivery at the most.
    assert!(events.len() as u64 <= 2 * counts.smtp_lines);
    for event in events {
        let MailLogEvent::Attempt(attempt) = event else { continue };
        assert!(!attempt.address.ip().is_loopback());
        let Some(reply) = &attempt.reply else { continue };
        assert!(reply.len() <= MAX_REPLY && !reply.contains(char::is_control), "{reply:?}");
        for (at, _) in reply.match_indices('@') {
            let before = reply[..at].chars().next_back();
            let is_masked = before.is_none_or(|c| c == '*' || c == '@' || !c.is_alphanumeric());
            assert!(is_masked, "a local part in {reply:?}");
        }
    }
}
