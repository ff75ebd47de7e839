//! Live capture on this host's interfaces, through eBPF or libpcap.
//!
//! Layer 4. [`LiveCapture`] chooses between the two when it is opened.

mod choice;
mod error;
mod interfaces;
mod pcap;
mod writer;

#[cfg(feature = "ebpf")]
use std::time::SystemTime;

use rustix::thread::CapabilitySet;

pub use self::error::LiveError;
use self::pcap::Pcap;
pub use self::writer::LiveWriter;
pub use super::capabilities::MissingCapabilities;
use super::capabilities::{self, EffectiveCapabilities};
#[cfg(feature = "ebpf")]
use super::ebpf::{self, Ebpf, EbpfError};
pub use super::interface::WatchedInterface;
pub use super::kind::{SourceChoice, SourceKind};
pub use super::leftovers::Leftovers;
pub use super::packet_source::POLL_TIMEOUT;
use super::packet_source::{CaptureLoss, PacketSource};
use crate::stream::SocketEvent;
#[cfg(feature = "ebpf")]
use crate::time::Timestamp;
use crate::wire::Packet;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureSettings {
    pub choice: SourceChoice,
    /// Interface names; empty for every interface that is up and has a global address.
    pub interfaces: Vec<String>,
    /// Ports of SMTP servers.
    pub ports: Vec<u16>,
    /// Buffer shared with the kernel in bytes, for all interfaces together. libpcap takes at least 1.125 MiB an interface.
    pub buffer: usize,
}

impl CaptureSettings {
    /// 64 MiB: half a second of complete packets at 1 Gbit/s, or millions of headers.
    pub const BUFFER: usize = 64 << 20;

    /// The capabilities that capturing can use; the kernel accepts any capability of each set.
    pub fn required_capabilities(&self) -> Vec<CapabilitySet> {
        capabilities::usable_by(self.choice)
    }
}

/// A running capture. Dropping it removes everything from the kernel.
pub struct LiveCapture {
    backend: Backend,
    /// For another source that takes over.
    #[cfg(feature = "ebpf")]
    settings: CaptureSettings,
    choice_reason: Option<String>,
    interfaces: Vec<WatchedInterface>,
    /// Of a source that another one has replaced.
    loss_before: CaptureLoss,
}

enum Backend {
    Pcap(Pcap),
    #[cfg(feature = "ebpf")]
    Ebpf {
        capture: Box<Ebpf>,
        /// Interfaces that still exist.
        remaining: usize,
        /// Takes over when the last packet is read.
        successor: Option<Pcap>,
    },
}

impl LiveCapture {
    /// Starts a capture.
    ///
    /// # Errors
    /// A capability is missing, an interface does not exist, or the kernel does not support it.
    pub fn open(settings: &CaptureSettings) -> Result<Self, LiveError> {
        if settings.ports.is_empty() {
            return Err(LiveError::NoPorts);
        }
        let interfaces = interfaces::select(&settings.interfaces)?;
        let pcap = || Pcap::open(&interfaces, &settings.ports, settings.buffer).map(Backend::Pcap);
        let capabilities = EffectiveCapabilities::of_this_thread();
        #[cfg(feature = "ebpf")]
        let ebpf = Some(|| {
            let capture = Ebpf::open(&interfaces, &settings.ports, settings.buffer);
            let mut capture = Box::new(capture.map_err(|error| error.to_string())?);
            if settings.choice == SourceChoice::Auto
                && capabilities.missing_for(SourceKind::Pcap).is_none()
                && let Some(notice) = capture.take_notice()
            {
                return Err(notice.to_string());
            }
            Ok(Backend::Ebpf { capture, remaining: interfaces.len(), successor: None })
        });
        #[cfg(not(feature = "ebpf"))]
        let ebpf = None::<fn() -> Result<Backend, String>>;
        let (backend, choice_reason) = choice::choose(settings.choice, capabilities, ebpf, pcap)?;
        Ok(Self {
            backend,
            #[cfg(feature = "ebpf")]
            settings: settings.clone(),
            choice_reason,
            interfaces,
            loss_before: CaptureLoss::default(),
        })
    }

    pub const fn kind(&self) -> SourceKind {
        match self.backend {
            Backend::Pcap(_) => SourceKind::Pcap,
            #[cfg(feature = "ebpf")]
            Backend::Ebpf { .. } => SourceKind::Ebpf,
        }
    }

    /// Why this kind was chosen, to follow "because"; `None` if it was requested.
    pub fn choice_reason(&self) -> Option<&str> {
        self.choice_reason.as_deref()
    }

    /// Why there are no socket events; `None` if there are.
    pub fn socket_events_unavailable(&self) -> Option<&str> {
        match &self.backend {
            Backend::Pcap(_) => Some("libpcap captures packets only"),
            #[cfg(feature = "ebpf")]
            Backend::Ebpf { capture, .. } => capture.socket_events_unavailable(),
        }
    }

    /// All interfaces at the start of the capture, including those removed since.
    pub fn interfaces(&self) -> &[WatchedInterface] {
        &self.interfaces
    }
}

#[cfg(feature = "ebpf")]
impl LiveCapture {
    /// What eBPF noticed about other software. Where the choice is ours, libpcap takes over, if it sees more.
    fn next_notice(&mut self) -> Option<LiveError> {
        let Backend::Ebpf { capture, successor, .. } = &mut self.backend else { return None };
        if successor.is_some() {
            self.hand_over();
            return None;
        }
        let error = capture.take_notice()?;
        let reason = error.to_string();
        if error.is_fatal() {
            return Some(LiveError::EbpfUnavailable { reason });
        }
        if self.settings.choice == SourceChoice::Auto && error.is_avoided_by_pcap() {
            let CaptureSettings { ports, buffer, .. } = &self.settings;
            if let Ok(mut pcap) = Pcap::open(&self.interfaces, ports, *buffer) {
                // libpcap has packets from now on, so that none is missing in between.
                capture.detach();
                pcap.skip_until(Timestamp::from_system_time(SystemTime::now()));
                *successor = Some(pcap);
                return Some(LiveError::SourceChanged { reason });
            }
        }
        Some(LiveError::Obstructed { reason, remedy: error.remedy() })
    }

    /// Replaces eBPF by its successor when the last packet is read.
    fn hand_over(&mut self) {
        let Backend::Ebpf { capture, successor, .. } = &mut self.backend else { return };
        if capture.is_drained()
            && let Some(pcap) = successor.take()
        {
            self.loss_before = capture.loss();
            self.choice_reason = None;
            self.backend = Backend::Pcap(pcap);
        }
    }
}

/// Removes what gatepost processes that were killed have left in the kernel, in the network namespace of this thread: filters
/// of clsact, with their programs and maps. Those of running processes stay.
///
/// # Errors
/// A capability is missing, or the kernel refuses.
pub fn remove_leftovers() -> Result<Leftovers, LiveError> {
    #[cfg(feature = "ebpf")]
    return ebpf::remove_leftovers()
        .map_err(|error| LiveError::Leftovers { reason: error.to_string() });
    #[cfg(not(feature = "ebpf"))]
    return Ok(Leftovers::default());
}

impl PacketSource for LiveCapture {
    type Error = LiveError;

    /// An error may concern one interface only: continue until [`LiveError::is_fatal`].
    fn next(&mut self) -> Result<Option<Packet<'_>>, LiveError> {
        #[cfg(feature = "ebpf")]
        if let Some(error) = self.next_notice() {
            return Err(error);
        }
        match &mut self.backend {
            Backend::Pcap(pcap) => pcap.next(),
            #[cfg(feature = "ebpf")]
            Backend::Ebpf { remaining: 0, .. } => Err(LiveError::NoInterfaceLeft),
            #[cfg(feature = "ebpf")]
            Backend::Ebpf { capture, remaining, .. } => {
                capture.next().map_err(|error| match error {
                    EbpfError::InterfaceRemoved { name } => {
                        *remaining -= 1;
                        let reason = "it was removed".to_owned();
                        LiveError::InterfaceLost { name, reason, remaining: *remaining }
                    }
                    error => LiveError::EbpfUnavailable { reason: error.to_string() },
                })
            }
        }
    }

    fn next_socket_event(&mut self) -> Option<SocketEvent> {
        match &mut self.backend {
            Backend::Pcap(_) => None,
            #[cfg(feature = "ebpf")]
            Backend::Ebpf { capture, .. } => capture.next_socket_event(),
        }
    }

    fn loss(&mut self) -> CaptureLoss {
        let loss = match &mut self.backend {
            Backend::Pcap(pcap) => pcap.loss(),
            #[cfg(feature = "ebpf")]
            Backend::Ebpf { capture, .. } => capture.loss(),
        };
        let before = self.loss_before;
        CaptureLoss {
            syns: before.syns + loss.syns,
            packets: before.packets + loss.packets,
            hidden: loss.hidden,
        }
    }
}
