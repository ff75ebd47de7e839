//! What this process may do: its effective capabilities (capabilities(7)), and what each way to capture needs.
//!
//! CAP_BPF and CAP_PERFMON are of Linux 5.8; before it CAP_SYS_ADMIN was both, and it still is.

use std::fmt;

use rustix::thread::{CapabilitySet, capabilities};

use super::live::{SourceChoice, SourceKind};

/// How to give a process all that gatepost can use.
pub(in crate::source) const CAPABILITY_HINT: &str = "to allow all that it can use, give the program \
    `setcap cap_net_raw,cap_bpf,cap_net_admin,cap_perfmon+ep`, or its systemd unit \
    `AmbientCapabilities=CAP_NET_RAW CAP_BPF CAP_NET_ADMIN CAP_PERFMON`, or run it as root";

/// Beside what a way to capture cannot do without: the name, and what the kernel takes for it.
const SOCKETS: (&str, CapabilitySet) = ("CAP_PERFMON", CapabilitySet::PERFMON.union(ADMIN));
const ADMIN: CapabilitySet = CapabilitySet::SYS_ADMIN;

/// What a way to capture cannot do without; of each, the kernel takes any.
const fn needed(kind: SourceKind) -> &'static [(&'static str, CapabilitySet)] {
    const EBPF: &[(&str, CapabilitySet)] = &[
        ("CAP_BPF", CapabilitySet::BPF.union(ADMIN)),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ];
    match kind {
        SourceKind::Ebpf => EBPF,
        SourceKind::Pcap => &[("CAP_NET_RAW", CapabilitySet::NET_RAW)],
    }
}

/// All that a choice can use, for as long as it watches: a source that failed is opened again. Of each set the kernel takes any.
pub(in crate::source) fn usable_by(choice: SourceChoice) -> Vec<CapabilitySet> {
    let of = |kind| needed(kind).iter().map(|&(_, any)| any);
    let ebpf = || of(SourceKind::Ebpf).chain([SOCKETS.1]);
    match choice {
        SourceChoice::Auto => ebpf().chain(of(SourceKind::Pcap)).collect(),
        SourceChoice::Ebpf => ebpf().collect(),
        SourceChoice::Pcap => of(SourceKind::Pcap).collect(),
    }
}

/// The effective set of a thread.
#[derive(Clone, Copy, Debug)]
pub(in crate::source) struct Capabilities(CapabilitySet);

/// Capabilities that one way to capture needs and this process lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingCapabilities {
    pub kind: SourceKind,
    /// As in capabilities(7).
    pub missing: Vec<&'static str>,
}

impl Capabilities {
    /// All of them where the kernel does not tell: then it says what it thinks when it is asked to do something.
    pub(in crate::source) fn of_this_thread() -> Self {
        Self(capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective))
    }

    /// What is missing, if that is anything.
    pub(in crate::source) fn missing_for(self, kind: SourceKind) -> Option<MissingCapabilities> {
        let needed = needed(kind);
        let missing = needed.iter().filter(|(_, any)| !self.0.intersects(*any));
        let missing: Vec<_> = missing.map(|(name, _)| *name).collect();
        (!missing.is_empty()).then_some(MissingCapabilities { kind, missing })
    }

    /// What is missing for a program on a tracepoint, which hears of sockets: eBPF does without.
    #[cfg(feature = "ebpf")]
    pub(in crate::source) fn missing_for_sockets(self) -> Option<&'static str> {
        let (name, any) = SOCKETS;
        (!self.0.intersects(any)).then_some(name)
    }
}

/// "libpcap needs CAP_NET_RAW, which this process lacks"
impl fmt::Display for MissingCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let missing = self.missing.join(" and ");
        write!(f, "{} needs {missing}, which this process lacks", self.kind.title())
    }
}

#[cfg(test)]
pub(in crate::source) mod tests {
    use super::*;

    impl Capabilities {
        /// These and no others.
        pub(in crate::source) const fn of(set: CapabilitySet) -> Self {
            Self(set)
        }
    }

    #[test]
    fn exactly_what_is_missing_is_named() {
        let (bpf, admin, raw) =
            (CapabilitySet::BPF, CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW);
        let all = ["CAP_BPF", "CAP_NET_ADMIN"];
        for (set, kind, missing) in [
            (CapabilitySet::empty(), SourceKind::Ebpf, &all[..]),
            (raw, SourceKind::Ebpf, &all[..]),
            (bpf, SourceKind::Ebpf, &all[1..]),
            (admin, SourceKind::Ebpf, &all[..1]),
            (bpf | admin, SourceKind::Ebpf, &[]),
            (CapabilitySet::SYS_ADMIN | admin, SourceKind::Ebpf, &[]),
            (CapabilitySet::SYS_ADMIN, SourceKind::Ebpf, &all[1..]),
            (CapabilitySet::all() - raw, SourceKind::Pcap, &["CAP_NET_RAW"]),
            (raw, SourceKind::Pcap, &[]),
        ] {
            let lack = Capabilities::of(set).missing_for(kind);
            assert_eq!(lack.map_or(Vec::new(), |lack| lack.missing), missing, "{set:?} {kind:?}");
        }
    }

    #[test]
    #[cfg(feature = "ebpf")]
    fn sockets_need_one_more() {
        let missing = |set| Capabilities::of(set).missing_for_sockets();
        assert_eq!(missing(CapabilitySet::BPF | CapabilitySet::NET_ADMIN), Some("CAP_PERFMON"));
        assert_eq!(missing(CapabilitySet::PERFMON), None);
        assert_eq!(missing(CapabilitySet::SYS_ADMIN), None);
    }
}
