//! The file of `--write`: the packets as the source gave them, each under the interface that saw it.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::app::output::{cannot_write, create};
use crate::source::Writer;
use crate::wire::{LinkType, Packet};

pub(super) struct Copy {
    path: PathBuf,
    /// By [`Packet::interface`].
    names: Vec<String>,
    writer: Writer<BufWriter<File>>,
    /// What the interfaces of the file are, by their numbers in it.
    described: Vec<(u32, LinkType)>,
}

impl Copy {
    /// Makes the file; `names` are those of the interfaces.
    pub(super) fn create(path: &Path, force: bool, names: Vec<String>) -> anyhow::Result<Self> {
        let file = BufWriter::new(create(path, force)?);
        // A section needs one interface; packets say which link theirs has, and until one comes a file has none of them.
        let first = names.first().map_or("", String::as_str);
        let writer =
            Writer::new(file, LinkType::Raw, 0, first).with_context(|| cannot_write(path))?;
        Ok(Self { path: path.to_owned(), names, writer, described: vec![(0, LinkType::Raw)] })
    }

    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> anyhow::Result<()> {
        self.write(packet).with_context(|| cannot_write(&self.path))
    }

    fn write(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let key = (packet.interface, packet.link);
        let known = self.described.iter().position(|described| *described == key);
        let interface = match known {
            Some(known) => u32::try_from(known).unwrap_or(u32::MAX),
            None => {
                let name = usize::try_from(packet.interface).ok().and_then(|at| self.names.get(at));
                self.described.push(key);
                self.writer.interface(packet.link, 0, name.map_or("", String::as_str))?
            }
        };
        self.writer.packet_of(interface, packet.at, packet.octets, packet.wire_len, None)
    }

    /// All of it is in the file.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let Self { path, writer, .. } = self;
        writer.finish().map(drop).with_context(|| cannot_write(&path))
    }
}
