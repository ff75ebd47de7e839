//! How far a file is read, on a terminal, when it takes longer than a second.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// What is read in less needs no bar.
const PATIENCE: Duration = Duration::from_secs(1);
/// Packets between two looks at the clock.
const STRIDE: u32 = 4096;

pub(super) struct Progress {
    name: String,
    began: Instant,
    packets: u32,
    bar: Option<ProgressBar>,
    wanted: bool,
}

impl Progress {
    pub(super) fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, began: Instant::now(), packets: 0, bar: None, wanted: stderr().is_terminal() }
    }

    /// After each packet; `where_to` gives octets read and in all.
    pub(super) fn at(&mut self, where_to: impl FnOnce() -> (u64, u64)) {
        self.packets = self.packets.wrapping_add(1);
        if !self.wanted || !self.packets.is_multiple_of(STRIDE) || self.began.elapsed() < PATIENCE {
            return;
        }
        let (read, size) = where_to();
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(size).with_message(self.name.clone());
            let form = "{msg} {wide_bar} {bytes} of {total_bytes}, {eta} left";
            bar.with_style(
                ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        bar.set_position(read);
    }

    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
