//! Choice between eBPF and libpcap.

use super::error::LiveError;
use crate::source::capabilities::EffectiveCapabilities;
use crate::source::kind::{SourceChoice, SourceKind};

/// Opens the requested kind. With [`SourceChoice::Auto`] it also returns the reason for the choice.
///
/// `ebpf` is `None` if gatepost was built without it; its error is a clause for a message.
pub(super) fn choose<T>(
    choice: SourceChoice,
    capabilities: EffectiveCapabilities,
    ebpf: Option<impl FnOnce() -> Result<T, String>>,
    pcap: impl FnOnce() -> Result<T, LiveError>,
) -> Result<(T, Option<String>), LiveError> {
    let Some(ebpf) = ebpf else {
        let reason = "this gatepost was built without eBPF".to_owned();
        return match choice {
            SourceChoice::Ebpf => Err(LiveError::EbpfUnavailable { reason }),
            SourceChoice::Pcap => {
                Ok((open_permitted(SourceKind::Pcap, capabilities, None, pcap)?, None))
            }
            SourceChoice::Auto => fall_back_to_pcap(reason, capabilities, pcap),
        };
    };
    match choice {
        SourceChoice::Ebpf => {
            let ebpf = || ebpf().map_err(|reason| LiveError::EbpfUnavailable { reason });
            let alternative = Some(SourceKind::Pcap);
            Ok((open_permitted(SourceKind::Ebpf, capabilities, alternative, ebpf)?, None))
        }
        SourceChoice::Pcap => {
            let alternative = Some(SourceKind::Ebpf);
            Ok((open_permitted(SourceKind::Pcap, capabilities, alternative, pcap)?, None))
        }
        SourceChoice::Auto => match capabilities.missing_for(SourceKind::Ebpf) {
            Some(missing) => fall_back_to_pcap(missing.to_string(), capabilities, pcap),
            None => match ebpf() {
                Ok(backend) => {
                    let reason = "kernel and capabilities allow it";
                    Ok((backend, Some(reason.to_owned())))
                }
                Err(reason) => fall_back_to_pcap(reason, capabilities, pcap),
            },
        },
    }
}

/// Opens `kind` if the capabilities suffice; the error suggests `alternative` if that is available.
fn open_permitted<T>(
    kind: SourceKind,
    capabilities: EffectiveCapabilities,
    alternative: Option<SourceKind>,
    open: impl FnOnce() -> Result<T, LiveError>,
) -> Result<T, LiveError> {
    match capabilities.missing_for(kind) {
        None => open(),
        Some(missing) => {
            let is_available = |kind: &SourceKind| capabilities.missing_for(*kind).is_none();
            Err(LiveError::Capabilities { missing, alternative: alternative.filter(is_available) })
        }
    }
}

/// Opens libpcap because eBPF is unavailable for `reason`.
fn fall_back_to_pcap<T>(
    reason: String,
    capabilities: EffectiveCapabilities,
    pcap: impl FnOnce() -> Result<T, LiveError>,
) -> Result<(T, Option<String>), LiveError> {
    match capabilities.missing_for(SourceKind::Pcap) {
        None => Ok((pcap()?, Some(reason))),
        Some(missing) => Err(LiveError::NoneAvailable { reason, missing }),
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::*;

    /// The outcome as text, if eBPF is not built (`None`), works or fails.
    fn outcome(
        choice: SourceChoice,
        set: CapabilitySet,
        ebpf: Option<Result<SourceKind, &str>>,
    ) -> String {
        let ebpf = ebpf.map(|result| move || result.map_err(str::to_owned));
        match choose(choice, EffectiveCapabilities::of(set), ebpf, || Ok(SourceKind::Pcap)) {
            Ok((kind, reason)) => format!("{}: {}", kind.as_str(), reason.unwrap_or_default()),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn choices_and_errors() {
        let (bpf, raw) = (CapabilitySet::BPF | CapabilitySet::NET_ADMIN, CapabilitySet::NET_RAW);
        let works = Some(Ok(SourceKind::Ebpf));
        let fails = Some(Err("this kernel cannot load programs"));
        let mut lines = Vec::new();
        for choice in [SourceChoice::Auto, SourceChoice::Ebpf, SourceChoice::Pcap] {
            for (capabilities, set) in [
                ("all capabilities", bpf | raw),
                ("those of libpcap", raw),
                ("those of eBPF", bpf),
                ("none", CapabilitySet::empty()),
            ] {
                for (state, ebpf) in [("works", works), ("fails", fails), ("not built", None)] {
                    let outcome = outcome(choice, set, ebpf);
                    lines.push(format!("{choice:?}, {capabilities}, eBPF {state}\n  {outcome}"));
                }
            }
        }
        insta::assert_snapshot!(lines.join("\n"));
    }
}
