//! Whether the vantage responds. A vantage that does not is neither proof nor disproof (rule 14 of ARCHITECTURE.md).

use serde::{Deserialize, Serialize};

use crate::humanize::duration;
use crate::time::Timestamp;

/// The state of the vantage. The serde form is part of `gatepost door --format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VantageStatus {
    /// Whether it answered the latest request; null before the first result.
    pub up: Option<bool>,
    /// When `up` changed last.
    pub since: Timestamp,
    /// Its latest answer.
    pub last_answer: Option<Timestamp>,
    /// Why the latest request has no answer.
    pub error: Option<String>,
}

impl VantageStatus {
    pub const fn new(now: Timestamp) -> Self {
        Self { up: None, since: now, last_answer: None, error: None }
    }

    /// Records the result of a request: an error if there was no answer. Returns whether `up` changed.
    pub fn on_result(&mut self, result: Result<(), &str>, at: Timestamp) -> bool {
        let up = result.is_ok();
        if up {
            self.last_answer = self.last_answer.max(Some(at));
        }
        self.error = result.err().map(str::to_owned);
        let changed = self.up != Some(up);
        if changed {
            (self.up, self.since) = (Some(up), at);
        }
        changed
    }

    /// For people; `None` while it answers.
    pub fn problem(&self, now: Timestamp) -> Option<String> {
        if self.up != Some(false) {
            return None;
        }
        let error = self.error.as_deref().map_or_else(String::new, |error| format!(": {error}"));
        Some(format!("the vantage has been down for {}{error}", duration(now.since(self.since))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_is_down_while_requests_have_no_answer() {
        let at = |seconds| Timestamp::from_nanos(0) + Duration::from_secs(seconds);
        let mut vantage = VantageStatus::new(at(0));
        assert_eq!((vantage.up, vantage.problem(at(9))), (None, None));
        assert!(vantage.on_result(Ok(()), at(10)));
        assert!(vantage.on_result(Err("refused"), at(20)));
        assert!(!vantage.on_result(Err("timed out"), at(30)));
        assert_eq!(vantage.last_answer, Some(at(10)));
        let problem = vantage.problem(at(80)).unwrap();
        assert_eq!(problem, "the vantage has been down for 1 min: timed out");
        assert!(vantage.on_result(Ok(()), at(90)));
        assert_eq!((vantage.problem(at(95)), vantage.since), (None, at(90)));
    }
}
