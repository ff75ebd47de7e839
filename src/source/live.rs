//! Packets of this host's interfaces, by eBPF or libpcap.

use std::time::Duration;

use ipnet::IpNet;

use super::{Lost, PacketSource};
use crate::stream::SocketFacts;
use crate::wire::Packet;

/// So long [`PacketSource::next`] waits for a packet.
pub const PAUSE: Duration = Duration::from_millis(100);

/// What is to be watched.
#[derive(Clone, Debug)]
pub struct Settings {
    pub choice: Choice,
    /// By name; empty for every interface that is up and has a global address.
    pub interfaces: Vec<String>,
    /// Of SMTP servers.
    pub ports: Vec<u16>,
    /// Octets that may wait in the kernel, for each interface (libpcap) or for all (eBPF).
    pub buffer: usize,
}

impl Settings {
    /// 64 MiB: half a second of 1 Gbit/s whole, or some millions of headers.
    pub const BUFFER: usize = 64 << 20;
}

/// Who captures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// eBPF where the kernel and rights allow, else libpcap.
    #[default]
    Auto,
    Ebpf,
    Pcap,
}

/// Who captures, once it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ebpf,
    Pcap,
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Pcap => "pcap",
        }
    }
}

/// An interface that is watched; [`Packet::interface`] is its position in [`Live::interfaces`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    /// `ifindex`.
    pub index: u32,
    /// With their prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// Why packets cannot be captured, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {}

/// A capture on its way. Dropped, it leaves nothing in the kernel.
pub struct Live {}

impl Live {
    /// Begins to capture.
    ///
    /// # Errors
    /// A right is missing, an interface is not there, or the kernel cannot; the message says which and what to do.
    pub fn open(_settings: &Settings) -> Result<Self, LiveError> {
        Ok(Self {})
    }

    pub const fn kind(&self) -> Kind {
        Kind::Pcap
    }

    /// Why not the other, in a sentence; `None` where that was asked for.
    pub const fn why(&self) -> Option<&str> {
        None
    }

    pub const fn interfaces(&self) -> &[Interface] {
        &[]
    }
}

impl PacketSource for Live {
    type Error = LiveError;

    fn next(&mut self) -> Result<Option<Packet<'_>>, LiveError> {
        Ok(None)
    }

    fn socket(&mut self) -> Option<SocketFacts> {
        None
    }

    fn lost(&mut self) -> Lost {
        Lost::default()
    }
}
