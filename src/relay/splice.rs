//! splice(2): octets that nobody looks at go from socket to socket through a pipe, without a copy to user space.
//!
//! A session holds a pipe only while octets are in it, so idle sessions cost none.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// What is asked for; an unprivileged user gets less once its pipes hold `pipe-user-pages-soft` pages (pipe(7)).
const PIPE_SIZE: usize = 1 << 20;
/// Empty pipes that a thread keeps.
const KEPT: usize = 32;

thread_local! {
    static IDLE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

/// A pipe and the octets in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    full: usize,
}

impl Pipe {
    /// An empty pipe.
    pub(super) fn take() -> io::Result<Self> {
        if let Some(pipe) = IDLE.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let size = fcntl_setpipe_size(&write, PIPE_SIZE).unwrap_or(64 * 1024);
        Ok(Self { read, write, size, full: 0 })
    }

    /// Gives an empty pipe back for the next session; one that still holds octets is closed.
    pub(super) fn give_back(self) {
        if self.is_empty() {
            IDLE.with_borrow_mut(|idle| {
                if idle.len() < KEPT {
                    idle.push(self);
                }
            });
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.full == 0
    }

    /// Moves up to `limit` octets from `socket` into the empty pipe. Zero is the socket's end.
    pub(super) fn fill(&mut self, socket: impl AsFd, limit: u64) -> io::Result<usize> {
        let len = usize::try_from(limit).unwrap_or(usize::MAX).min(self.size);
        let moved = splice(socket, None, &self.write, None, len, FLAGS)?;
        self.full += moved;
        Ok(moved)
    }

    /// Moves what the pipe holds, or a part of it, to `socket`.
    pub(super) fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.read, None, socket, None, self.full, FLAGS)?;
        self.full = self.full.saturating_sub(moved);
        Ok(moved)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
