//! The beginning of a log line: time, host, program and process.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::log_time::LogTime;
use crate::time::Timestamp;

/// Which program wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// smtp(8), under any service name.
    Smtp,
    /// qmgr(8).
    Qmgr,
}

/// Where a line is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineOrigin {
    pub(super) at: Timestamp,
    pub(super) program: Program,
    /// A hash of the host's name: several hosts may log to one file.
    pub(super) host: u64,
    /// A hash of host, program and process ID.
    pub(super) process: u64,
}

impl LineOrigin {
    /// `host` and `program` as logged: `postfix/smtp`, `postfix/smtp-ipv4/smtp`, `postfix-out/smtp`. `None` if it is another
    /// program.
    pub(super) fn new(at: Timestamp, host: &[u8], program: &[u8], pid: &[u8]) -> Option<Self> {
        let slash = memchr::memrchr(b'/', program)?;
        let kind = match program.get(slash + 1..)? {
            b"smtp" => Program::Smtp,
            b"qmgr" => Program::Qmgr,
            _ => return None,
        };
        if pid.is_empty() || !pid.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        host.hash(&mut hasher);
        let host = hasher.finish();
        (program, pid).hash(&mut hasher);
        Some(Self { at, program: kind, host, process: hasher.finish() })
    }

    /// Reads the header of a line of syslog or of Postfix's own `maillog_file`; returns it and the message. `None` for other
    /// programs and for lines of another form.
    pub(super) fn parse<'a>(line: &'a [u8], time: &mut LogTime) -> Option<(Self, &'a [u8])> {
        // A log that was truncated under a writer that does not append has NULs up to its old size.
        let start = line.iter().position(|&byte| byte != 0)?;
        let (at, rest) = time.parse(line.get(start..)?)?;
        let space = memchr::memchr(b' ', rest)?;
        let (host, rest) = (rest.get(..space)?, rest.get(space + 1..)?);
        let open = memchr::memchr2(b'[', b' ', rest)?;
        let (program, rest) = rest.split_at_checked(open)?;
        let rest = rest.strip_prefix(b"[")?;
        let close = memchr::memchr(b']', rest)?;
        let (pid, rest) = rest.split_at_checked(close)?;
        Some((Self::new(at, host, program, pid)?, rest.strip_prefix(b"]: ")?))
    }
}

/// Splits `4B2C31F4A: text`. A queue ID is upper-case hexadecimal, or has letters and digits without vowels
/// (`enable_long_queue_ids`), so that no word of a message is one.
pub(super) fn split_queue_id(message: &[u8]) -> Option<(&str, &[u8])> {
    let end = message.iter().take(MAX_QUEUE_ID + 1).position(|&byte| byte == b':')?;
    let (id, rest) = message.split_at_checked(end)?;
    let is_hexadecimal = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    let is_long = |byte: &u8| byte.is_ascii_alphanumeric() && !b"aeiouAEIOU".contains(byte);
    let is_id = id.len() >= MIN_QUEUE_ID
        && id.iter().any(u8::is_ascii_digit)
        && (id.iter().all(is_hexadecimal) || id.iter().all(is_long));
    let rest = rest.strip_prefix(b": ")?;
    is_id.then_some((std::str::from_utf8(id).ok()?, rest))
}

const MIN_QUEUE_ID: usize = 5;
const MAX_QUEUE_ID: usize = 32;

#[cfg(test)]
mod tests {
    use super::super::log_time::LogZone;
    use super::*;

    #[test]
    fn programs() {
        let mut time = LogTime::new(LogZone::utc(), Timestamp::from_nanos(u64::MAX / 4));
        let mut program = |text: &str| {
            let line = format!("Dec  1 21:00:00 mx {text}: m");
            LineOrigin::parse(line.as_bytes(), &mut time).map(|(origin, message)| {
                assert_eq!(message, b"m");
                origin.program
            })
        };
        for smtp in ["postfix/smtp[1]", "postfix/smtp-ipv4/smtp[23]", "postfix-out/relay/smtp[4]"] {
            assert_eq!(program(smtp), Some(Program::Smtp), "{smtp}");
        }
        assert_eq!(program("postfix/qmgr[1]"), Some(Program::Qmgr));
        for other in [
            "postfix/smtpd[1]",
            "postfix/lmtp[1]",
            "postfix/smtp/smtpd[1]",
            "smtp[1]",
            "postfix/smtp",
            "postfix/smtp[]",
            "postfix/smtp[x]",
            "sshd[1]: x postfix/smtp[1]",
        ] {
            assert_eq!(program(other), None, "{other}");
        }
    }

    #[test]
    fn queue_ids_are_no_words() {
        for id in ["4B2C31F4A", "4ZxKzs5lRLz1Xb", "ABC12"] {
            let line = format!("{id}: to=<>");
            assert_eq!(split_queue_id(line.as_bytes()), Some((id, &b"to=<>"[..])));
        }
        for other in
            ["warning: x", "fatal: x", "NOQUEUE: x", "1: x", "4B2C31F4A:x", "connect to x: y"]
        {
            assert_eq!(split_queue_id(other.as_bytes()), None, "{other}");
        }
    }
}
