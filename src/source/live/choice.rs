//! Who captures: eBPF where it can, else libpcap.

use super::{LiveError, SourceChoice, SourceKind};
use crate::source::capabilities::Capabilities;

/// Opens what was chosen. With it comes why it is that and not the other, where that was left to us.
///
/// `ebpf` is `None` where that was not built. It says in a sentence why it cannot be had.
pub(super) fn decide<T>(
    choice: SourceChoice,
    rights: Capabilities,
    ebpf: Option<impl FnOnce() -> Result<T, String>>,
    pcap: impl FnOnce() -> Result<T, LiveError>,
) -> Result<(T, Option<String>), LiveError> {
    let Some(ebpf) = ebpf else {
        let reason = "this gatepost was built without eBPF".to_owned();
        return match choice {
            SourceChoice::Ebpf => Err(LiveError::NoEbpf { reason }),
            SourceChoice::Pcap => Ok((permitted(SourceKind::Pcap, rights, None, pcap)?, None)),
            SourceChoice::Auto => instead(reason, rights, pcap),
        };
    };
    match choice {
        SourceChoice::Ebpf => {
            let ebpf = || ebpf().map_err(|reason| LiveError::NoEbpf { reason });
            Ok((permitted(SourceKind::Ebpf, rights, Some(SourceKind::Pcap), ebpf)?, None))
        }
        SourceChoice::Pcap => {
            Ok((permitted(SourceKind::Pcap, rights, Some(SourceKind::Ebpf), pcap)?, None))
        }
        SourceChoice::Auto => match rights.missing_for(SourceKind::Ebpf) {
            Some(lack) => instead(lack.to_string(), rights, pcap),
            None => match ebpf() {
                Ok(by) => {
                    let why = "this kernel and the rights of this process allow it";
                    Ok((by, Some(why.to_owned())))
                }
                Err(reason) => instead(reason, rights, pcap),
            },
        },
    }
}

/// Opens what was asked for, if this process may; else tells of `other` if that could be had.
fn permitted<T>(
    kind: SourceKind,
    rights: Capabilities,
    other: Option<SourceKind>,
    open: impl FnOnce() -> Result<T, LiveError>,
) -> Result<T, LiveError> {
    match rights.missing_for(kind) {
        None => open(),
        Some(lack) => {
            let other = other.filter(|other| rights.missing_for(*other).is_none());
            Err(LiveError::Right { lack, other })
        }
    }
}

/// libpcap, since eBPF cannot be had for this reason.
fn instead<T>(
    reason: String,
    rights: Capabilities,
    pcap: impl FnOnce() -> Result<T, LiveError>,
) -> Result<(T, Option<String>), LiveError> {
    match rights.missing_for(SourceKind::Pcap) {
        None => Ok((pcap()?, Some(reason))),
        Some(lack) => Err(LiveError::Neither { reason, lack }),
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::*;

    /// What is said where eBPF is not built (`None`), can be had, or cannot.
    fn said(
        choice: SourceChoice,
        set: CapabilitySet,
        ebpf: Option<Result<SourceKind, &str>>,
    ) -> String {
        let ebpf = ebpf.map(|result| move || result.map_err(str::to_owned));
        match decide(choice, Capabilities::of(set), ebpf, || Ok(SourceKind::Pcap)) {
            Ok((kind, why)) => format!("{}: {}", kind.as_str(), why.unwrap_or_default()),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn what_is_said() {
        let (bpf, raw) = (CapabilitySet::BPF | CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW);
        let can = Some(Ok(SourceKind::Ebpf));
        let cannot = Some(Err("this kernel cannot load programs"));
        let mut lines = Vec::new();
        for choice in [SourceChoice::Auto, SourceChoice::Ebpf, SourceChoice::Pcap] {
            for (rights, set) in [
                ("all", bpf | raw),
                ("libpcap's", raw),
                ("eBPF's", bpf),
                ("no", CapabilitySet::empty()),
            ] {
                for (state, ebpf) in [("can", can), ("cannot", cannot), ("not built", None)] {
                    let said = said(choice, set, ebpf);
                    lines.push(format!("{choice:?}, {rights} rights, eBPF {state}\n  {said}"));
                }
            }
        }
        insta::assert_snapshot!(lines.join("\n"));
    }
}
