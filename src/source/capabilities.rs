//! Effective capabilities of this process (capabilities(7)), and those that each way to capture needs.
//!
//! CAP_BPF and CAP_PERFMON exist since Linux 5.8. Before, CAP_SYS_ADMIN covered both, and it still does.

use std::fmt;

use rustix::thread::{CapabilitySet, capabilities};

use super::kind::{SourceChoice, SourceKind};

/// How to grant all capabilities that gatepost can use.
pub(in crate::source) const CAPABILITY_HINT: &str = "to grant all capabilities that gatepost can use, run `setcap \
    cap_net_raw,cap_bpf,cap_net_admin,cap_perfmon+ep` on the program, or set `AmbientCapabilities=CAP_NET_RAW CAP_BPF \
    CAP_NET_ADMIN CAP_PERFMON` in its systemd unit, or run it as root";

/// Needed for socket events, but not for packets: the name, and the capabilities of which the kernel accepts any.
const SOCKET_EVENTS: (&str, CapabilitySet) = ("CAP_PERFMON", CapabilitySet::PERFMON.union(ADMIN));
const ADMIN: CapabilitySet = CapabilitySet::SYS_ADMIN;

/// Required capabilities; the kernel accepts any capability of each set.
const fn required(kind: SourceKind) -> &'static [(&'static str, CapabilitySet)] {
    const EBPF: &[(&str, CapabilitySet)] = &[
        ("CAP_BPF", CapabilitySet::BPF.union(ADMIN)),
        ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ];
    match kind {
        SourceKind::Ebpf => EBPF,
        SourceKind::Pcap => &[("CAP_NET_RAW", CapabilitySet::NET_RAW)],
    }
}

/// All capabilities that `choice` can use while it captures: a source that fails is reopened. The kernel accepts any
/// capability of each set.
pub(in crate::source) fn usable_by(choice: SourceChoice) -> Vec<CapabilitySet> {
    let of = |kind| required(kind).iter().map(|&(_, any)| any);
    let ebpf = || of(SourceKind::Ebpf).chain([SOCKET_EVENTS.1]);
    match choice {
        SourceChoice::Auto => ebpf().chain(of(SourceKind::Pcap)).collect(),
        SourceChoice::Ebpf => ebpf().collect(),
        SourceChoice::Pcap => of(SourceKind::Pcap).collect(),
    }
}

/// The effective capabilities of a thread.
#[derive(Clone, Copy, Debug)]
pub(in crate::source) struct EffectiveCapabilities(CapabilitySet);

/// Capabilities that one way to capture needs and this process does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingCapabilities {
    pub kind: SourceKind,
    /// Names as in capabilities(7).
    pub names: Vec<&'static str>,
}

impl EffectiveCapabilities {
    /// All capabilities if the kernel does not report them: the operation itself fails then.
    pub(in crate::source) fn of_this_thread() -> Self {
        Self(capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective))
    }

    /// `None` if none is missing.
    pub(in crate::source) fn missing_for(self, kind: SourceKind) -> Option<MissingCapabilities> {
        let missing = required(kind).iter().filter(|(_, any)| !self.0.intersects(*any));
        let names: Vec<_> = missing.map(|(name, _)| *name).collect();
        (!names.is_empty()).then_some(MissingCapabilities { kind, names })
    }

    /// The capability missing for socket events, which come from a program on a tracepoint and are optional.
    #[cfg(feature = "ebpf")]
    pub(in crate::source) fn missing_for_socket_events(self) -> Option<&'static str> {
        let (name, any) = SOCKET_EVENTS;
        (!self.0.intersects(any)).then_some(name)
    }
}

/// "libpcap needs CAP_NET_RAW, which this process lacks"
impl fmt::Display for MissingCapabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.join(" and ");
        write!(f, "{} needs {names}, which this process lacks", self.kind.title())
    }
}

#[cfg(test)]
pub(in crate::source) mod tests {
    use super::*;

    impl EffectiveCapabilities {
        /// Exactly `set`.
        pub(in crate::source) const fn of(set: CapabilitySet) -> Self {
            Self(set)
        }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let (bpf, admin, raw) =
            (CapabilitySet::BPF, CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW);
        let all = ["CAP_BPF", "CAP_NET_ADMIN"];
        for (set, kind, names) in [
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
            let missing = EffectiveCapabilities::of(set).missing_for(kind);
            assert_eq!(
                missing.map_or(Vec::new(), |missing| missing.names),
                names,
                "{set:?} {kind:?}"
            );
        }
    }

    #[test]
    #[cfg(feature = "ebpf")]
    fn socket_events_need_one_more_capability() {
        let missing = |set| EffectiveCapabilities::of(set).missing_for_socket_events();
        assert_eq!(missing(CapabilitySet::BPF | CapabilitySet::NET_ADMIN), Some("CAP_PERFMON"));
        assert_eq!(missing(CapabilitySet::PERFMON), None);
        assert_eq!(missing(CapabilitySet::SYS_ADMIN), None);
    }
}
