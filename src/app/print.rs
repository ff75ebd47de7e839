//! What a command says on standard output.

use std::io::{self, Write as _};

use anyhow::Context as _;

/// Why a command ends that could not say what it found; the system's reason comes behind it.
pub(super) const WRITING: &str =
    "cannot write to standard output; send it to a terminal, or to a disk that has room";

/// Says all of `text`. A reader who has seen enough (`| head`) is no error.
///
/// # Errors
/// It cannot be written: the disk is full, or it is closed.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context(WRITING),
    }
}
