//! Why there is no capture by eBPF, or no longer.

use std::error::Error;
use std::io;

use aya::programs::ProgramError;

use crate::source::capabilities::{CAPABILITY_HINT, MissingCapabilities};

/// Why packets cannot be captured by eBPF, or no longer.
#[derive(Debug, thiserror::Error)]
pub(in crate::source) enum EbpfError {
    #[error("{0}; {CAPABILITY_HINT}")]
    Right(MissingCapabilities),
    /// It has the capabilities, as far as it sees.
    #[error(
        "the kernel does not permit to {what} ({reason}), although this process has the capabilities: are \
         they those of a user namespace, or does a security module forbid bpf(2)?"
    )]
    Forbidden { what: &'static str, reason: String },
    #[error(
        "this kernel cannot {what}: {reason}; eBPF needs Linux 5.8 or later with CONFIG_BPF_SYSCALL and \
         CONFIG_NET_CLS_ACT"
    )]
    Kernel { what: &'static str, reason: String },
    #[error("the interface {name} is gone: what passes on it is no longer seen")]
    Gone { name: String },
    /// Kernels before 6.6 only.
    #[error(
        "{0} processes capture by eBPF in this network namespace, and no more may: end one of them, or \
         capture by libpcap"
    )]
    Crowded(u16),
}

impl EbpfError {
    /// What the kernel answered when it was to do `what`.
    pub(super) fn refused<E: Error + 'static>(what: &'static str, error: &E) -> Self {
        let reason = said(error);
        if os_error(error) == Some(EPERM) {
            Self::Forbidden { what, reason }
        } else {
            Self::Kernel { what, reason }
        }
    }
}

/// errno(3).
const EPERM: i32 = 1;

/// The operating system's error somewhere below `error`.
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

/// How the lines begin that the verifier ends with.
const STATISTICS: [&str; 4] = ["processed ", "stack depth ", "verification time ", "mark_read "];

/// The error with its causes. Of the verifier's log, which is some thousand lines, the last that says something.
fn said(error: &(dyn Error + 'static)) -> String {
    let mut next = Some(error);
    let mut text = String::new();
    while let Some(error) = next {
        if let Some(ProgramError::LoadError { io_error, verifier_log }) = error.downcast_ref() {
            let log = verifier_log.to_string();
            let last =
                log.lines().rfind(|line| !STATISTICS.iter().any(|begin| line.starts_with(begin)));
            let separator = if text.is_empty() { "" } else { ": " };
            return format!(
                "{text}{separator}{io_error}: {}",
                last.unwrap_or("no reason was given")
            );
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
