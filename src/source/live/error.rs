//! Errors of live capture, with their remedies.

use crate::source::capabilities::{CAPABILITY_HINT, MissingCapabilities};
use crate::source::kind::SourceKind;

/// Why packets cannot be captured, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    #[error("no port to watch: expected at least one, for example 25")]
    NoPorts,
    #[error("no interface {name:?}; available interfaces: {}", .available.join(", "))]
    UnknownInterface { name: String, available: Vec<String> },
    #[error(
        "no interface is up and has a global address: select interfaces with -i, for example -i lo (available \
         interfaces: {})",
        .available.join(", ")
    )]
    NoDefaultInterface { available: Vec<String> },
    #[error("interface {name} is down: run `ip link set {name} up` or leave it out")]
    Down { name: String },
    #[error(
        "interface {name} has an unsupported link layer ({link}): expected Ethernet, raw IP, Linux cooked or BSD \
         loopback; leave it out"
    )]
    UnsupportedLink { name: String, link: String },
    /// For the requested kind; `alternative` is available.
    #[error("{missing}; {}{CAPABILITY_HINT}", alternative.map_or("", suggestion))]
    Capabilities { missing: MissingCapabilities, alternative: Option<SourceKind> },
    #[error("neither eBPF nor libpcap can capture: {reason}; {missing}; {CAPABILITY_HINT}")]
    NoneAvailable { reason: String, missing: MissingCapabilities },
    /// eBPF was requested.
    #[error("cannot capture with eBPF: {reason}; try --source pcap")]
    EbpfUnavailable { reason: String },
    #[error("cannot capture on {name}: {source}")]
    Open { name: String, source: ::pcap::Error },
    /// Reported once; the other interfaces continue.
    #[error("capture on {name} ended: {reason}; {}", match remaining {
        0 => "no interface is left".to_owned(),
        1 => "1 other interface is still watched".to_owned(),
        n => format!("{n} other interfaces are still watched"),
    })]
    InterfaceLost { name: String, reason: String, remaining: usize },
    /// Other software keeps packets from the source, which continues.
    #[error("{reason}; {remedy}")]
    Obstructed { reason: String, remedy: &'static str },
    /// libpcap continues in place of eBPF.
    #[error("watching by libpcap from now on, since {reason}")]
    SourceChanged { reason: String },
    #[error("cannot remove the filters of killed processes: {reason}")]
    Leftovers { reason: String },
    #[error("no interface is left to watch")]
    NoInterfaceLeft,
}

impl LiveError {
    /// Whether no further packet can follow.
    pub const fn is_fatal(&self) -> bool {
        !matches!(
            self,
            Self::InterfaceLost { .. } | Self::Obstructed { .. } | Self::SourceChanged { .. }
        )
    }
}

/// Suggests `alternative` for a kind that lacks capabilities.
const fn suggestion(alternative: SourceKind) -> &'static str {
    match alternative {
        SourceKind::Ebpf => "alternatively use eBPF (--source ebpf); ",
        SourceKind::Pcap => {
            "alternatively use libpcap (--source pcap), which copies whole packets and measures no round-trip times of \
             sockets; "
        }
    }
}
