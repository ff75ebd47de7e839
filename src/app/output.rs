//! Standard output, notes on standard error, and the capture files that commands write.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

/// Context of errors on standard output; the system's reason follows it.
pub(super) const WRITING: &str =
    "cannot write to standard output; send it to a terminal, or to a disk with free space";

/// Prints all of `text`. A reader that closes the pipe early (`| head`) is not an error.
///
/// # Errors
/// Standard output is closed, or its disk is full.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match write_now(text.as_bytes()) {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        written => written,
    }
}

/// Writes to standard output without buffering: a reader of a pipe gets each line at once.
///
/// # Errors
/// As [`print`]; also when the reader closed the pipe.
pub(super) fn write_now(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context(WRITING)
}

/// Whether `error` is that of a reader that closed standard output.
pub(super) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let is_closed = |cause: &io::Error| cause.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<&str>() == Some(&WRITING)
        && error.root_cause().downcast_ref::<io::Error>().is_some_and(is_closed)
}

/// Whether standard output shows colours.
pub(super) fn has_colour() -> bool {
    io::stdout().is_terminal()
        && anstream::AutoStream::choice(&io::stdout()) != anstream::ColorChoice::Never
}

/// Prints a note on standard error; standard output may be data.
pub(super) fn note(text: &str) {
    let _closed = writeln!(io::stderr(), "gatepost: {text}");
}

/// Creates a file that only its owner may read, since captures hold private mail. An existing file is an error unless
/// `force` is set.
pub(super) fn create(path: &Path, force: bool) -> anyhow::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    match options.open(path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{} exists; name another file, or add --force", path.display())
        }
        Err(error) => Err(error).with_context(|| cannot_write(path)),
    }
}

pub(super) fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}
