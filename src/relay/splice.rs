//! splice(2): bytes that need no inspection go from socket to socket through a pipe, without a copy to user space.
//!
//! A session holds a pipe only while it has bytes in it, so an idle session has none.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Requested size; an unprivileged user gets less once its pipes hold `pipe-user-pages-soft` pages (pipe(7)).
const PIPE_SIZE: usize = 1 << 20;
/// Empty pipes that a thread keeps for reuse.
const KEPT: usize = 32;

thread_local! {
    static IDLE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: usize,
    /// Bytes in the pipe.
    filled: usize,
}

impl Pipe {
    /// An empty pipe.
    pub(super) fn take() -> io::Result<Self> {
        if let Some(pipe) = IDLE.with_borrow_mut(Vec::pop) {
            return Ok(pipe);
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let size = fcntl_setpipe_size(&write, PIPE_SIZE).unwrap_or(64 * 1024);
        Ok(Self { read, write, size, filled: 0 })
    }

    /// Returns an empty pipe for reuse; one that still holds bytes is closed.
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
        self.filled == 0
    }

    /// Moves up to `limit` bytes from `socket` into the empty pipe. Zero means end of file.
    pub(super) fn fill(&mut self, socket: impl AsFd, limit: u64) -> io::Result<usize> {
        let len = usize::try_from(limit).unwrap_or(usize::MAX).min(self.size);
        let moved = splice(socket, None, &self.write, None, len, FLAGS)?;
        self.filled += moved;
        Ok(moved)
    }

    /// Moves the pipe's content, or a part of it, to `socket`.
    pub(super) fn drain(&mut self, socket: impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.read, None, socket, None, self.filled, FLAGS)?;
        self.filled = self.filled.saturating_sub(moved);
        Ok(moved)
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);
