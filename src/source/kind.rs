//! The two ways to capture on this host.

/// Requested way to capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceChoice {
    /// eBPF if kernel and capabilities allow it, else libpcap.
    #[default]
    Auto,
    Ebpf,
    Pcap,
}

/// Way to capture in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    Ebpf,
    Pcap,
}

impl SourceKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Pcap => "pcap",
        }
    }

    /// Its name in a message.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Ebpf => "eBPF",
            Self::Pcap => "libpcap",
        }
    }
}
