//! Log lines for upstreams that go down and come back.

use std::collections::HashMap;

use crate::relay::UpstreamHealth;
use crate::report::{LogLevel, upstream_error};

/// The states that were logged last.
#[derive(Debug, Default)]
pub(super) struct UpstreamLog(HashMap<String, bool>);

impl UpstreamLog {
    /// A line for each upstream whose state changed. The first state is logged only if it is down.
    pub(super) fn changes(&mut self, upstreams: &[UpstreamHealth]) -> Vec<(LogLevel, String)> {
        self.0.retain(|known, _| upstreams.iter().any(|upstream| upstream.to_string() == *known));
        let mut lines = Vec::new();
        for upstream in upstreams {
            let Some(up) = upstream.up else { continue };
            let name = upstream.to_string();
            let was_up = self.0.insert(name.clone(), up).unwrap_or(true);
            if up == was_up {
                continue;
            }
            lines.push(if up {
                (LogLevel::Info, format!("upstream {name} is up again"))
            } else {
                let error =
                    upstream.failed.map_or("unknown", |(outcome, _)| upstream_error(outcome));
                (LogLevel::Error, format!("upstream {name} is down: {error}"))
            });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::AttemptOutcome;

    #[test]
    fn changes_are_logged_once() {
        let address = Some("192.0.2.1:25".parse().unwrap());
        let health = |up| UpstreamHealth {
            address,
            name: None,
            up,
            lasts: Duration::ZERO,
            failed: Some((AttemptOutcome::Refused, Duration::ZERO)),
        };
        let mut log = UpstreamLog::default();
        let mut lines = |up| {
            let changes = log.changes(&[health(up)]);
            changes.into_iter().map(|(_, line)| line).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(lines(None), none);
        assert_eq!(lines(Some(true)), none);
        assert_eq!(lines(Some(false)), ["upstream 192.0.2.1:25 is down: connection refused"]);
        assert_eq!(lines(Some(false)), none);
        assert_eq!(lines(Some(true)), ["upstream 192.0.2.1:25 is up again"]);
    }
}
