//! Why packets of this host cannot be captured, in words that say what to do.

use super::SourceKind;
use crate::source::capabilities::{CAPABILITY_HINT, MissingCapabilities};

/// Why packets cannot be captured, or no longer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LiveError {
    #[error("no port to watch: expected at least one, for example 25")]
    NoPorts,
    #[error("there is no interface {name:?}; there are: {}", .there.join(", "))]
    NoSuchInterface { name: String, there: Vec<String> },
    #[error(
        "no interface is up and has a global address: name those to watch with -i, for example -i lo \
         (there are: {})",
        .there.join(", ")
    )]
    NoInterface { there: Vec<String> },
    #[error("the interface {name} is down: bring it up (`ip link set {name} up`) or leave it out")]
    Down { name: String },
    #[error(
        "the interface {name} has a link layer that is not read ({what}): expected Ethernet, IP alone, \
         Linux cooked or BSD loopback; leave it out"
    )]
    Link { name: String, what: String },
    /// Of what was asked for; the other way to capture may be open.
    #[error("{lack}; {}{CAPABILITY_HINT}", other.map_or("", SourceKind::instead))]
    Right { lack: MissingCapabilities, other: Option<SourceKind> },
    #[error("neither eBPF nor libpcap can capture: {reason}; {lack}; {CAPABILITY_HINT}")]
    Neither { reason: String, lack: MissingCapabilities },
    /// It was asked for.
    #[error("cannot capture by eBPF: {reason}; try --source pcap")]
    NoEbpf { reason: String },
    #[error("cannot capture on {name}: {source}")]
    Open { name: String, source: ::pcap::Error },
    /// Said once; the others go on.
    #[error("no more packets of {name}: {reason}; {}", match left {
        0 => "no interface is left".to_owned(),
        1 => "1 other is still watched".to_owned(),
        left => format!("{left} others are still watched"),
    })]
    Gone { name: String, reason: String, left: usize },
    #[error("no interface is left to watch")]
    Over,
}

impl LiveError {
    /// Nothing can come any more.
    pub const fn is_end(&self) -> bool {
        !matches!(self, Self::Gone { .. })
    }
}
