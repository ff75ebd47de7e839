//! Times and reasons as the page says them.

use std::time::Duration;

use crate::engine::{AttemptOutcome, Refusal};
use crate::time::Timestamp;

/// `40 s`, `12 min`, `3 h 20 min`, `2 d 4 h`.
pub(super) fn lasting(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min"),
        3600..86_400 if minutes % 60 == 0 => format!("{hours} h"),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ if hours % 24 == 0 => format!("{days} d"),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `12 min ago`
pub(super) fn ago(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        return "just now".to_owned();
    }
    format!("{} ago", lasting(duration))
}

/// `03:04:05`, in UTC.
pub(super) fn clock(at: Timestamp) -> String {
    at.to_string().chars().skip(11).take(8).collect()
}

/// `2026-01-02 03:04:05 UTC`
pub(super) fn date(at: Timestamp) -> String {
    let text = at.to_string();
    format!("{} {} UTC", text.get(..10).unwrap_or_default(), clock(at))
}

pub(super) const fn attempt(outcome: AttemptOutcome) -> &'static str {
    match outcome {
        AttemptOutcome::Connected => "connected",
        AttemptOutcome::Refused => "connection refused",
        AttemptOutcome::Timeout => "no answer in time",
        AttemptOutcome::Unreachable => "unreachable",
        AttemptOutcome::Lost => "another answered first",
        AttemptOutcome::Error => "error of the socket",
    }
}

/// A [`Refusal`] by its label; `None` for what is none.
pub(super) fn refusal(label: &str) -> Option<&'static str> {
    let refusal = Refusal::ALL.iter().find(|refusal| refusal.as_str() == label)?;
    Some(match refusal {
        Refusal::AccessReject | Refusal::AccessTempfail => "an access rule",
        Refusal::PolicyReject | Refusal::PolicyTempfail => "a policy rule",
        Refusal::Door => "the family's door is closed",
        Refusal::Pregreet => "the client spoke before the greeting",
        Refusal::Junk => "not SMTP",
        Refusal::BareNewline => "a line that ends otherwise than by CRLF",
        Refusal::CommandSyntax => "a command with bad syntax",
        Refusal::Xclient => "the client sent XCLIENT or XFORWARD",
        Refusal::LimitSessions => "too many sessions at once",
        Refusal::LimitClientSessions => "too many sessions of this client at once",
        Refusal::LimitClientRate => "too many new sessions of this client",
        Refusal::LimitCommands => "too many commands",
        Refusal::LimitErrors => "too many errors",
        Refusal::LimitLine => "a command that is too long",
        Refusal::UpstreamUnavailable => "no upstream took the connection",
        Refusal::UpstreamLost => "the upstream closed in mid-session",
        Refusal::Identity => "the upstream does not take our XCLIENT",
        Refusal::Timeout => "nothing came in time",
        Refusal::ProxyHeader => "a trusted peer sent no valid PROXY header",
        Refusal::Shutdown => "the gateway was stopping",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3600, "1 h"),
            (12_000, "3 h 20 min"),
            (86_400, "1 d"),
            (187_200, "2 d 4 h"),
        ] {
            assert_eq!(lasting(Duration::from_secs(seconds)), words);
        }
        assert_eq!(ago(Duration::ZERO), "just now");
        assert_eq!(
            date(Timestamp::from_nanos(1_767_323_045_678_901_234)),
            "2026-01-02 03:04:05 UTC"
        );
    }

    #[test]
    fn every_refusal_has_its_words() {
        assert!(Refusal::ALL.iter().all(|one| refusal(one.as_str()).is_some()));
        assert_eq!(refusal("fcrdns.no_ptr"), None);
    }
}
