//! The log's output, standard output or a file. Lines are written completely or not at all, as far as the system allows.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::LogError;

/// Lines are joined up to this many bytes before they are written.
const CHUNK: usize = 64 * 1024;

pub(super) struct Sink {
    out: Box<dyn Write + Send>,
    /// For [`Sink::reopen`]; `None` for standard output.
    path: Option<PathBuf>,
    /// The last write ended within a line; the next one starts with a line end.
    torn: bool,
    /// A failure was reported on standard error, and no write has succeeded since.
    failing: bool,
    chunk: Vec<u8>,
}

impl Sink {
    /// Standard output if `path` is `None`.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, LogError> {
        let out: Box<dyn Write + Send> = match path {
            Some(path) => Box::new(open_file(path)?),
            // The descriptor itself, without the line buffer and the lock of the standard library.
            None => Box::new(File::from(
                io::stdout().as_fd().try_clone_to_owned().map_err(LogError::Stdout)?,
            )),
        };
        Ok(Self::new(out, path.map(Path::to_owned)))
    }

    pub(super) fn new(out: Box<dyn Write + Send>, path: Option<PathBuf>) -> Self {
        Self { out, path, torn: false, failing: false, chunk: Vec::new() }
    }

    /// Reopens the file for log rotation; keeps the previous file on failure. Does nothing for standard output.
    pub(super) fn reopen(&mut self) -> Result<(), LogError> {
        if let Some(path) = &self.path {
            self.out = Box::new(open_file(path)?);
            self.torn = false;
            self.failing = false;
        }
        Ok(())
    }

    /// Writes `lines`, each with its line end, and returns the number of lost lines. Reports a failure on standard error once,
    /// until a write succeeds again.
    pub(super) fn write<'a>(&mut self, lines: impl Iterator<Item = &'a str>) -> u64 {
        let mut lost = 0;
        for line in lines {
            if !self.chunk.is_empty() && self.chunk.len() + line.len() > CHUNK {
                lost += self.write_chunk();
            }
            self.chunk.extend_from_slice(line.as_bytes());
        }
        lost + self.write_chunk()
    }

    fn write_chunk(&mut self) -> u64 {
        let mut chunk = std::mem::take(&mut self.chunk);
        let lost = self.write_lines(&chunk);
        // Releases the memory of one long line.
        chunk.clear();
        chunk.shrink_to(CHUNK);
        self.chunk = chunk;
        lost
    }

    fn write_lines(&mut self, lines: &[u8]) -> u64 {
        if lines.is_empty() {
            return 0;
        }
        let mut rest = lines;
        let result = self.end_torn_line().and_then(|()| {
            while !rest.is_empty() {
                match self.out.write(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => {
                        self.torn = rest.get(n - 1) != Some(&b'\n');
                        rest = rest.get(n..).unwrap_or_default();
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            self.out.flush()
        });
        match result {
            Ok(()) => self.failing = false,
            Err(e) => self.report(&e),
        }
        rest.iter().filter(|&&b| b == b'\n').count() as u64
    }

    fn end_torn_line(&mut self) -> io::Result<()> {
        if self.torn {
            self.out.write_all(b"\n")?;
            self.torn = false;
        }
        Ok(())
    }

    fn report(&mut self, e: &io::Error) {
        if !self.failing {
            let log = match &self.path {
                Some(path) => path.display().to_string(),
                None => "standard output".to_owned(),
            };
            print_error(&format!(
                "cannot write the log to {log}: {e}; lines are lost until a write succeeds"
            ));
        }
        self.failing = true;
    }
}

/// To standard error, for failures of the log itself.
pub(super) fn print_error(message: &str) {
    // A failure here cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "gatepost: {message}");
}

fn open_file(path: &Path) -> Result<File, LogError> {
    OpenOptions::new()
        .append(true)
        .create(true)
        // The log contains personal addresses.
        .mode(0o640)
        .open(path)
        .map_err(|error| LogError::Open { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A disk with space for some bytes, full until it gets more.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().unwrap();
            let n = bytes.len().min(disk.0);
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            disk.0 -= n;
            disk.1.extend_from_slice(&bytes[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_never_joins_two() {
        let disk = Disk::default();
        let mut sink = Sink::new(Box::new(disk.clone()), None);
        disk.0.lock().unwrap().0 = 6;
        let lost = sink.write(["one\n", "two\n", "three\n"].into_iter());
        assert_eq!(lost, 2);
        assert_eq!(sink.write(["four\n"].into_iter()), 1);
        disk.0.lock().unwrap().0 = 100;
        assert_eq!(sink.write(["five\n"].into_iter()), 0);
        let written = String::from_utf8(disk.0.lock().unwrap().1.clone()).unwrap();
        assert_eq!(written, "one\ntw\nfive\n");
    }
}
