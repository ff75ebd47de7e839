//! Packets of this host's interfaces, by eBPF or libpcap.
//!
//! Layer 4. [`LiveCapture`] is what the rest of the program sees; which of the two captures is decided when it is opened.

mod choice;
mod error;
mod interfaces;
mod pcap;
mod writer;

use std::time::Duration;

use ipnet::IpNet;
use rustix::thread::CapabilitySet;

pub use self::error::LiveError;
use self::pcap::Pcap;
pub use self::writer::LiveWriter;
#[cfg(feature = "ebpf")]
use super::ebpf::{Ebpf, EbpfError};
use super::{CaptureLoss, PacketSource};
use crate::label::labels;
pub use crate::source::capabilities::MissingCapabilities;
use crate::source::capabilities::{self, Capabilities};
use crate::stream::SocketEvent;
use crate::wire::Packet;

/// So long [`PacketSource::next`] waits for a packet.
pub const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// What is to be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureSettings {
    pub choice: SourceChoice,
    /// By name; empty for every interface that is up and has a global address.
    pub interfaces: Vec<String>,
    /// Of SMTP servers.
    pub ports: Vec<u16>,
    /// Bytes that may wait in the kernel, for each interface (libpcap) or for all (eBPF).
    pub buffer: usize,
}

impl CaptureSettings {
    /// 64 MiB: half a second of 1 Gbit/s whole, or some millions of headers.
    pub const BUFFER: usize = 64 << 20;

    /// The capabilities that watching can use; of each set the kernel takes any.
    pub fn needs(&self) -> Vec<CapabilitySet> {
        capabilities::usable_by(self.choice)
    }
}

/// Who captures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    /// eBPF where the kernel and rights allow, else libpcap.
    #[default]
    Auto,
    Ebpf,
    Pcap,
}

labels! {
    /// Who captures, once it is decided.
    pub enum SourceKind {
        Ebpf = "ebpf",
        Pcap = "pcap",
    }
}

impl SourceKind {
    /// Its name in a sentence.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Ebpf => "eBPF",
            Self::Pcap => "libpcap",
        }
    }

    /// What can still be had where the other cannot.
    const fn instead(self) -> &'static str {
        match self {
            Self::Ebpf => "without it there is eBPF (--source ebpf); ",
            Self::Pcap => {
                "without it there is libpcap (--source pcap), which copies whole packets and knows no \
                 round-trip times of sockets; "
            }
        }
    }
}

/// An interface that is watched; [`Packet::interface`] is its position in [`LiveCapture::interfaces`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedInterface {
    pub name: String,
    /// `ifindex`.
    pub index: u32,
    /// With their prefix lengths.
    pub addresses: Vec<IpNet>,
}

/// A capture on its way. Dropped, it leaves nothing in the kernel.
pub struct LiveCapture {
    by: By,
    why: Option<String>,
    interfaces: Vec<WatchedInterface>,
}

enum By {
    Pcap(Pcap),
    #[cfg(feature = "ebpf")]
    Ebpf {
        capture: Box<Ebpf>,
        /// Interfaces that are not gone.
        left: usize,
    },
}

impl LiveCapture {
    /// Begins to capture.
    ///
    /// # Errors
    /// A right is missing, an interface is not there, or the kernel cannot; the message says which and what to do.
    pub fn open(settings: &CaptureSettings) -> Result<Self, LiveError> {
        if settings.ports.is_empty() {
            return Err(LiveError::NoPorts);
        }
        let interfaces = interfaces::chosen(&settings.interfaces)?;
        let pcap = || Pcap::open(&interfaces, &settings.ports, settings.buffer).map(By::Pcap);
        let rights = Capabilities::of_this_thread();
        #[cfg(feature = "ebpf")]
        let ebpf = Some(|| {
            let capture = Ebpf::open(&interfaces, &settings.ports, settings.buffer);
            let left = interfaces.len();
            let by = |capture| By::Ebpf { capture: Box::new(capture), left };
            capture.map(by).map_err(|error| error.to_string())
        });
        #[cfg(not(feature = "ebpf"))]
        let ebpf = None::<fn() -> Result<By, String>>;
        let (by, why) = choice::decide(settings.choice, rights, ebpf, pcap)?;
        Ok(Self { by, why, interfaces })
    }

    pub const fn kind(&self) -> SourceKind {
        match self.by {
            By::Pcap(_) => SourceKind::Pcap,
            #[cfg(feature = "ebpf")]
            By::Ebpf { .. } => SourceKind::Ebpf,
        }
    }

    /// Why this one and not the other, to follow "by libpcap, since"; `None` where it was asked for.
    pub fn choice_reason(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// Why it knows no round-trip times of sockets, in a sentence; `None` if it does.
    pub fn socket_events_unavailable(&self) -> Option<&str> {
        match &self.by {
            By::Pcap(_) => Some("libpcap sees packets only"),
            #[cfg(feature = "ebpf")]
            By::Ebpf { capture, .. } => capture.socket_events_unavailable(),
        }
    }

    /// All that the capture began with, also those that are gone since.
    pub fn interfaces(&self) -> &[WatchedInterface] {
        &self.interfaces
    }
}

impl PacketSource for LiveCapture {
    type Error = LiveError;

    /// An error may concern one interface: ask again until [`LiveError::is_end`].
    fn next(&mut self) -> Result<Option<Packet<'_>>, LiveError> {
        match &mut self.by {
            By::Pcap(pcap) => pcap.next(),
            #[cfg(feature = "ebpf")]
            By::Ebpf { left: 0, .. } => Err(LiveError::Over),
            #[cfg(feature = "ebpf")]
            By::Ebpf { capture, left } => capture.next().map_err(|error| match error {
                EbpfError::Gone { name } => {
                    *left -= 1;
                    let reason = "it was removed".to_owned();
                    LiveError::Gone { name, reason, left: *left }
                }
                error => LiveError::NoEbpf { reason: error.to_string() },
            }),
        }
    }

    fn next_socket_event(&mut self) -> Option<SocketEvent> {
        match &mut self.by {
            By::Pcap(_) => None,
            #[cfg(feature = "ebpf")]
            By::Ebpf { capture, .. } => capture.next_socket_event(),
        }
    }

    fn loss(&mut self) -> CaptureLoss {
        match &mut self.by {
            By::Pcap(pcap) => pcap.loss(),
            #[cfg(feature = "ebpf")]
            By::Ebpf { capture, .. } => capture.loss(),
        }
    }
}
