//! A terminal that is drawn on: taken for as long as it lasts, and given back as it was, also on panic.
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

/// The other screen, and no cursor.
const TAKE: &[u8] = b"\x1b[?1049h\x1b[?25l";
const GIVE_BACK: &[u8] = b"\x1b[?25h\x1b[?1049l";
/// What a terminal has that does not say.
const USUAL: TerminalSize = TerminalSize { columns: 80, lines: 24 };
/// Nothing is drawn on less.
const LEAST: TerminalSize = TerminalSize { columns: 20, lines: 5 };

static TAKEN: AtomicBool = AtomicBool::new(false);

/// A terminal that is taken. Dropped, it is given back.
pub(super) struct Screen {
    /// Standard output without its buffer of lines, which would make two writes of a frame.
    terminal: File,
}

impl Screen {
    /// Standard output can be drawn on.
    pub(super) fn is_there() -> bool {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        stdout().is_terminal() && !dumb
    }

    /// # Errors
    /// It cannot be written.
    pub(super) fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = panic::take_hook();
            // Whoever panics, in whatever thread: what is said of it must not go with the other screen.
            panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        let terminal = File::from(stdout().as_fd().try_clone_to_owned()?);
        TAKEN.store(true, Ordering::SeqCst);
        let mut screen = Self { terminal };
        screen.terminal.write_all(TAKE)?;
        Ok(screen)
    }

    /// Stops this process as the terminal asked (SIGTSTP), and goes on when it is continued.
    ///
    /// # Errors
    /// The terminal cannot be written.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        raise(Signal::SIGSTOP)?;
        TAKEN.store(true, Ordering::SeqCst);
        self.terminal.write_all(TAKE)
    }

    /// Draws all of it anew.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
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
        give_back();
    }
}

/// As large as it is now.
pub(super) fn size() -> TerminalSize {
    let size = terminal_size_of(stdout()).map(|(columns, lines)| TerminalSize {
        columns: usize::from(columns.0).max(LEAST.columns),
        lines: usize::from(lines.0).max(LEAST.lines),
    });
    size.unwrap_or(USUAL)
}

fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let mut out = stdout().lock();
        let _nothing_else_can_be_done = out.write_all(GIVE_BACK).and_then(|()| out.flush());
    }
}
