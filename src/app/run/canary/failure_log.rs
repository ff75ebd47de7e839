//! A failure that lasts, in two lines of the log.

use crate::report::{LogLevel, SessionLog};

/// Logs a failure when it begins and when it is over.
pub(super) struct FailureLog<'l> {
    what: &'static str,
    log: &'l SessionLog,
    fails: bool,
}

impl<'l> FailureLog<'l> {
    pub(super) const fn new(what: &'static str, log: &'l SessionLog) -> Self {
        Self { what, log, fails: false }
    }

    pub(super) fn on_result(&mut self, failure: Option<String>) {
        match (&failure, self.fails) {
            (Some(reason), false) => {
                self.log.notice(LogLevel::Warn, &format!("{}: {reason}", self.what));
            }
            (None, true) => {
                self.log.notice(LogLevel::Info, &format!("no longer: {}", self.what));
            }
            _ => {}
        }
        self.fails = failure.is_some();
    }
}
