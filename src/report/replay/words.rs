//! Numbers, times and outcomes in words.

use std::time::Duration;

use super::NAME;
use crate::addr::{Family, Side};
use crate::engine::{Anomaly, Outcome, SessionRecord};
use crate::policy::facts::Reason;
use crate::policy::rules::FactName;
use crate::report::columns::width;
use crate::report::escape::{Place, fitted};
use crate::stream::FlowOutcome;
use crate::time::Timestamp;

/// `12,345`
pub(in crate::report) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 piece`, `2 pieces`
pub(in crate::report) fn several(n: u64, what: &str) -> String {
    format!("{} {what}{}", count(n), if n == 1 { "" } else { "s" })
}

/// In six columns at most; what is beyond the unit's precision is dropped.
pub(in crate::report) fn duration(duration: Duration) -> String {
    let (seconds, tenths) = (duration.as_secs(), duration.subsec_millis() / 100);
    let (micros, millis) = (duration.subsec_micros(), duration.subsec_millis());
    match seconds {
        0 if micros == 0 => "0 s".to_owned(),
        0 if micros < 1000 => format!("{micros} µs"),
        0 if micros < 10_000 => format!("{millis}.{} ms", micros % 1000 / 100),
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds}.{tenths} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..360_000 => format!("{}.{} h", seconds / 3600, seconds % 3600 / 360),
        360_000..864_000_000 => format!("{} d", seconds / 86_400),
        _ => format!("{} y", seconds / 31_557_600),
    }
}

/// `2026-01-02`, in UTC.
pub(in crate::report) fn date(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

/// `03:04:05.678`, in UTC.
pub(in crate::report) fn clock(at: Timestamp) -> String {
    at.to_string().chars().skip(11).take(12).collect()
}

/// The reason of a policy rule's verdict, `fcrdns.no_ptr`, for people; others as they are.
pub(in crate::report) fn reason(word: &str) -> String {
    let found = word.split_once('.').and_then(|(name, reason)| {
        let name = FactName::ALL.into_iter().find(|fact| fact.as_str() == name)?;
        let reason = Reason::ALL.into_iter().find(|known| known.as_str() == reason)?;
        Some(format!("{}: {} ({word})", fact(name), why(reason)))
    });
    found.unwrap_or_else(|| word.to_owned())
}

const fn fact(name: FactName) -> &'static str {
    match name {
        FactName::ReverseName => "reverse name",
        FactName::Fcrdns => "forward-confirmed reverse name",
        FactName::HeloResolves => "HELO name",
        FactName::ReturnPath => "return path",
        FactName::Recipient => "recipient",
        FactName::ReceivePath => "receive path",
    }
}

pub(in crate::report) const fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::NoPtr => "no PTR record",
        Reason::NotConfirmed => "no PTR name has the address",
        Reason::Nxdomain => "no such domain",
        Reason::NullMx => "the domain takes no mail",
        Reason::NoUsableAddress => "no usable address",
        Reason::NotADomain => "not a domain",
        Reason::NullSender => "there is no sender to reach",
        Reason::Servfail => "the DNS server failed",
        Reason::Timeout => "no answer in time",
        Reason::Unreachable => "the DNS server was not reached",
        Reason::NoResolver => "nobody was there to ask",
        Reason::Refused => "connections are refused",
        Reason::NoResponse => "nothing answers",
        Reason::EstablishedButStalled => "connected, and then silent",
        Reason::RejectedBeforeRcpt => "we are turned away",
        Reason::NoSuchMailbox => "no such mailbox",
        Reason::Deferred => "the mailbox is refused for now",
        Reason::RateLimited => "too many questions at once",
        Reason::NoProof => "nothing proved it lately",
        Reason::NotReached => "not reached from outside",
        Reason::UpstreamDown => "the MTA behind is down",
    }
}

pub(in crate::report) const fn family(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4",
        Family::Ipv6 => "IPv6",
    }
}

pub(in crate::report) const fn side(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Server => "server",
    }
}

/// A file's name in [`NAME`] columns. Folders are left out from the front: files of one replay differ at the end.
pub(in crate::report) fn file(name: &str) -> String {
    let mut rest = name;
    let mut shown = fitted(name, Place::Sentence, usize::MAX);
    while width(&shown) > NAME {
        let Some((_, shorter)) = rest.split_once('/') else {
            return fitted(rest, Place::Sentence, NAME);
        };
        rest = shorter;
        shown = format!("…/{}", fitted(rest, Place::Sentence, usize::MAX));
    }
    shown
}

/// How it ended, in two words where two do.
pub(in crate::report) fn ending(record: &SessionRecord) -> &'static str {
    match record.tcp.outcome {
        Some(FlowOutcome::Unanswered) => return "SYN unanswered",
        Some(FlowOutcome::Refused) => return "connection refused",
        Some(FlowOutcome::Unreachable) => return "unreachable",
        Some(FlowOutcome::Reset) if record.outcome != Outcome::Quit => return "reset",
        Some(FlowOutcome::Established | FlowOutcome::Midstream | FlowOutcome::Reset) | None => {}
    }
    match record.outcome {
        Outcome::Quit => "quit",
        Outcome::ClientClosed => "client closed",
        Outcome::UpstreamClosed => "server closed",
        Outcome::UpstreamUnavailable => "no greeting",
        Outcome::Timeout => "timed out",
        Outcome::Refused => "turned away",
        Outcome::Limit => "over a limit",
        Outcome::Protocol => "not SMTP",
        Outcome::Shutdown => "shut down",
        Outcome::Error => "gatepost failed",
        Outcome::CaptureEnded => "unfinished",
    }
}

/// The capture shows that there was no connection.
pub(in crate::report) const fn not_connected(record: &SessionRecord) -> bool {
    matches!(
        record.tcp.outcome,
        Some(FlowOutcome::Unanswered | FlowOutcome::Refused | FlowOutcome::Unreachable)
    )
}

/// Either side said something of SMTP.
pub(in crate::report) fn has_smtp(record: &SessionRecord) -> bool {
    let smtp = &record.smtp;
    smtp.greeting.is_some() || !smtp.commands.is_empty() || !smtp.replies.is_empty()
}

/// What an anomaly is, to be followed by its label.
pub(in crate::report) const fn meaning(anomaly: Anomaly) -> &'static str {
    match anomaly {
        Anomaly::Pregreet => "the client spoke before the greeting",
        Anomaly::JunkHttp => "the client spoke HTTP",
        Anomaly::JunkTls => "the client began TLS where plaintext SMTP belongs",
        Anomaly::JunkProxy => "the client sent a PROXY header",
        Anomaly::UnknownCommand => "the client sent a command that is not known",
        Anomaly::BadSyntax => "the client sent a command with bad syntax",
        Anomaly::BareLf => "a line ends with LF alone",
        Anomaly::BareCr => "a CR without LF",
        Anomaly::Smuggling => "a line of \".\" that only a lax server takes for the end of data",
        Anomaly::CommandTooLong => "a command line is too long",
        Anomaly::TextLineTooLong => "a line of a message is longer than 1,000 octets",
        Anomaly::StarttlsPlaintext => "plaintext after STARTTLS",
        Anomaly::Xclient => "the client sent XCLIENT",
        Anomaly::Xforward => "the client sent XFORWARD",
        Anomaly::EarlyData => "the client sent the message before the 354",
        Anomaly::UnauthorizedPipelining => {
            "the client pipelined although PIPELINING was not offered"
        }
        Anomaly::BadReply => "the server sent what is no SMTP reply",
        Anomaly::Gap => "the capture lacks a piece of it",
        Anomaly::UnexpectedReply => "the server sent a reply that answers no command",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_words() {
        for (n, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(n), expected);
        }
        assert_eq!(several(1, "piece"), "1 piece");
        assert_eq!(several(2000, "piece"), "2,000 pieces");
    }

    #[test]
    fn files_are_told_by_their_end() {
        let long = format!("/captures/{}/smtp-rset/input.pcap", "folder".repeat(8));
        assert_eq!(file(&long), "…/smtp-rset/input.pcap");
        assert_eq!(file("a/input.pcap"), "a/input.pcap");
        let one = file(&format!("a/{}.pcap", "x".repeat(80)));
        assert!(one.starts_with("xxx") && one.ends_with('…') && width(&one) <= NAME, "{one}");
        let hostile = file(&"\u{202e}/\n".repeat(40));
        assert!(hostile.starts_with("…/") && width(&hostile) <= NAME, "{hostile}");
    }

    #[test]
    fn durations_fit_six_columns() {
        for (nanos, expected) in [
            (0, "0 s"),
            (999, "0 s"),
            (999_999, "999 µs"),
            (1_100_000, "1.1 ms"),
            (999_999_999, "999 ms"),
            (59_999_999_999, "59.9 s"),
            (3_599_000_000_000, "59 min"),
            (86_400_000_000_000, "24.0 h"),
            (u64::MAX, "584 y"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanos)), expected);
        }
        for digits in 0..20 {
            let text = duration(Duration::from_nanos(u64::MAX / 10u64.pow(digits)));
            assert!(text.chars().count() <= 6, "{text}");
        }
    }
}
