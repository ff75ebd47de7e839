//! Standard input, or another pipe.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;

use super::input::{Feed, Form, Stopped, TICK, is_ready};
use super::status::MailLogState;

const READ: usize = 256 * 1024;

/// Reads `input` to its end.
pub(super) fn follow(mut input: impl Read + AsFd, mut feed: Feed) -> Result<(), Stopped> {
    feed.set_state(MailLogState::Reading);
    let mut buffer = vec![0; READ];
    loop {
        while !is_ready(input.as_fd()) {
            feed.wait(&[input.as_fd()], TICK)?;
        }
        match input.read(&mut buffer) {
            Ok(0) => return feed.finish(),
            Ok(length) => feed.on_bytes(buffer.get(..length).unwrap_or_default(), Form::Lines)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                feed.finish()?;
                let reason = format!("cannot read standard input: {error}");
                feed.set_state(MailLogState::Failed(reason.into()));
                return Ok(());
            }
        }
    }
}
