//! The terminal's alternate screen, restored on drop and on panic.
//!
//! Control sequences are those of ECMA-48 and xterm. A frame is one write.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _, stdout};
use std::os::fd::AsFd as _;
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, raise};
use terminal_size::terminal_size_of;

use crate::report::watch::TerminalSize;

/// Alternate screen, hidden cursor.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";
/// For a terminal of unknown size.
const DEFAULT_SIZE: TerminalSize = TerminalSize { columns: 80, lines: 24 };
/// Smaller terminals are drawn as if they had this size.
const MIN_SIZE: TerminalSize = TerminalSize { columns: 20, lines: 5 };

static IS_ACTIVE: AtomicBool = AtomicBool::new(false);

/// Leaves the alternate screen when dropped.
pub(super) struct Screen {
    /// Standard output without line buffering, so that a frame is one write.
    terminal: File,
}

impl Screen {
    /// Whether standard output is a terminal that supports control sequences.
    pub(super) fn is_available() -> bool {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        stdout().is_terminal() && !dumb
    }

    /// # Errors
    /// The terminal cannot be written.
    pub(super) fn open() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            // A panic in any thread prints its message, which must appear on the normal screen.
            panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        });
        let terminal = File::from(stdout().as_fd().try_clone_to_owned()?);
        IS_ACTIVE.store(true, Ordering::SeqCst);
        let mut screen = Self { terminal };
        screen.terminal.write_all(ENTER)?;
        Ok(screen)
    }

    /// Stops this process as requested by SIGTSTP, and returns when it is continued.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        restore();
        raise(Signal::SIGSTOP)?;
        IS_ACTIVE.store(true, Ordering::SeqCst);
        self.terminal.write_all(ENTER)
    }

    /// Draws a whole frame.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        if !IS_ACTIVE.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut frame = String::from("\x1b[H");
        for (n, line) in lines.iter().enumerate() {
            if n > 0 {
                frame.push_str("\r\n");
            }
            frame.push_str(line);
            frame.push_str("\x1b[K");
        }
        frame.push_str("\x1b[J");
        self.terminal.write_all(frame.as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// The current size.
pub(super) fn size() -> TerminalSize {
    let size = terminal_size_of(stdout()).map(|(columns, lines)| TerminalSize {
        columns: usize::from(columns.0).max(MIN_SIZE.columns),
        lines: usize::from(lines.0).max(MIN_SIZE.lines),
    });
    size.unwrap_or(DEFAULT_SIZE)
}

fn restore() {
    if IS_ACTIVE.swap(false, Ordering::SeqCst) {
        let mut out = stdout().lock();
        let _no_terminal_any_more = out.write_all(LEAVE).and_then(|()| out.flush());
    }
}
