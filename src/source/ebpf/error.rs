//! Errors of capture with eBPF.

use std::error::Error;
use std::io;
use std::time::Duration;

use aya::programs::ProgramError;

use crate::humanize::duration;
use crate::source::capabilities::{CAPABILITY_HINT, MissingCapabilities};

/// Why packets cannot be captured with eBPF, or no longer.
#[derive(Debug, thiserror::Error)]
pub(in crate::source) enum EbpfError {
    #[error("{0}; {CAPABILITY_HINT}")]
    Capabilities(MissingCapabilities),
    /// EPERM although the process has the capabilities.
    #[error(
        "the kernel refused to {operation} ({reason}) although this process has the capabilities: check whether they \
         are those of a user namespace, or a security module forbids bpf(2)"
    )]
    Forbidden { operation: &'static str, reason: String },
    #[error(
        "this kernel cannot {operation}: {reason}; eBPF needs Linux 5.8 or later with CONFIG_BPF_SYSCALL and \
         CONFIG_NET_CLS_ACT"
    )]
    Unsupported { operation: &'static str, reason: String },
    #[error("interface {name} was removed")]
    InterfaceRemoved { name: String },
    #[error(
        "interface {name} has the qdisc `ingress` in the place of clsact, and it has no filters for packets that leave: \
         run `tc qdisc del dev {name} ingress` and `tc qdisc add dev {name} clsact`, which takes the same filters"
    )]
    IngressQdisc { name: String },
    /// Not fatal.
    #[error(
        "packets that {verb} on {name} may be hidden from gatepost: {before} runs before its program and may end the chain"
    )]
    Hidden { name: String, verb: &'static str, before: String },
    /// Not fatal.
    #[error("gatepost's program sees none of the packets that {verb} on {name}, {packets} in {}{}", duration(*time), match xdp {
        Some(id) => format!("; the XDP program with id {id} runs before it"),
        None => String::new(),
    })]
    Blind { name: String, verb: &'static str, packets: u64, time: Duration, xdp: Option<u32> },
    /// Not fatal: it was attached again.
    #[error(
        "something detached gatepost's program for packets that {verb} on {name}; it is attached again, and packets in \
         between were not seen"
    )]
    Detached { name: String, verb: &'static str },
    /// Only before Linux 6.6.
    #[error(
        "{0} processes capture with eBPF in this network namespace, which is the maximum: end one of them, or use \
         libpcap"
    )]
    TooManyProcesses(u16),
}

impl EbpfError {
    /// Whether the capture cannot go on.
    pub(in crate::source) const fn is_fatal(&self) -> bool {
        !matches!(self, Self::Hidden { .. } | Self::Blind { .. } | Self::Detached { .. })
    }

    /// Whether libpcap sees what is hidden from eBPF: it runs before tcx and clsact, but after XDP.
    pub(in crate::source) const fn is_avoided_by_pcap(&self) -> bool {
        matches!(self, Self::Hidden { .. } | Self::Blind { xdp: None, .. })
    }

    /// What to do about an error that is not fatal.
    pub(in crate::source) const fn remedy(&self) -> &'static str {
        match self {
            Self::Blind { xdp: Some(_), .. } => {
                "libpcap does not see what it takes either: watch on the interface to which it passes packets, or on the mail \
                 server"
            }
            Self::Detached { .. } => {
                "if that happens again, use --source pcap (`source = \"pcap\"` in [watch])"
            }
            _ => {
                "attach it behind gatepost's, or use --source pcap (`source = \"pcap\"` in [watch]), from which it hides nothing"
            }
        }
    }

    /// The kernel's refusal of `operation`.
    pub(super) fn refused<E: Error + 'static>(operation: &'static str, error: &E) -> Self {
        let reason = error_chain(error);
        if os_error(error) == Some(EPERM) {
            Self::Forbidden { operation, reason }
        } else {
            Self::Unsupported { operation, reason }
        }
    }
}

/// errno(3).
const EPERM: i32 = 1;

/// The errno among the causes of `error`.
fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        next = error.source();
    }
    None
}

/// Prefixes of the statistics at the end of the verifier's log.
const STATISTICS: [&str; 4] = ["processed ", "stack depth ", "verification time ", "mark_read "];

/// The error with its causes. The verifier's log, thousands of lines, is reduced to its last line before the statistics.
fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut next = Some(error);
    let mut text = String::new();
    while let Some(error) = next {
        if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref() {
            let log = verifier_log.to_string();
            let last =
                log.lines().rfind(|line| !STATISTICS.iter().any(|begin| line.starts_with(begin)));
            let separator = if text.is_empty() { "" } else { ": " };
            return format!("{text}{separator}{io_error}: {}", last.unwrap_or("no reason given"));
        }
        let here = error.to_string();
        if !text.ends_with(&here) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&here);
        }
        next = error.source();
    }
    text
}
