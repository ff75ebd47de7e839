//! A progress bar on a terminal, for files that take longer than a second.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time before the bar appears.
const DELAY: Duration = Duration::from_secs(1);
/// Packets between two looks at the clock.
const STRIDE: u32 = 4096;

pub(super) struct FileProgress {
    name: String,
    start: Instant,
    packets: u32,
    bar: Option<ProgressBar>,
    is_terminal: bool,
}

impl FileProgress {
    pub(super) fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self {
            name,
            start: Instant::now(),
            packets: 0,
            bar: None,
            is_terminal: stderr().is_terminal(),
        }
    }

    /// After each packet; `position` returns the bytes read and the file's size.
    pub(super) fn on_packet(&mut self, position: impl FnOnce() -> (u64, u64)) {
        self.packets = self.packets.wrapping_add(1);
        if !self.is_terminal || !self.packets.is_multiple_of(STRIDE) || self.start.elapsed() < DELAY
        {
            return;
        }
        let (read, size) = position();
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(size).with_message(self.name.clone());
            let template = "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left";
            bar.with_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        bar.set_position(read);
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
