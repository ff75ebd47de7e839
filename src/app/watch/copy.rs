//! The file of `--write`: an unchanged copy of the source's packets.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::app::output::{cannot_write, create};
use crate::source::live::{LiveWriter, WatchedInterface};
use crate::wire::Packet;

pub(super) struct PacketCopy {
    path: PathBuf,
    writer: LiveWriter<BufWriter<File>>,
}

impl PacketCopy {
    pub(super) fn create(
        path: &Path,
        force: bool,
        interfaces: &[WatchedInterface],
    ) -> anyhow::Result<Self> {
        let file = BufWriter::new(create(path, force)?);
        let writer = LiveWriter::new(file, interfaces).with_context(|| cannot_write(path))?;
        Ok(Self { path: path.to_owned(), writer })
    }

    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> anyhow::Result<()> {
        self.writer.packet(packet).with_context(|| cannot_write(&self.path))
    }

    /// Makes the packets so far visible to readers of the file.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        self.writer.flush().with_context(|| cannot_write(&self.path))
    }

    /// Completes the file.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Self { path, writer } = self;
        writer.finish().map(drop).with_context(|| cannot_write(&path))
    }
}
