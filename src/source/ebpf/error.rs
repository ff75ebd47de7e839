//! Errors of capture with eBPF.

use std::error::Error;
use std::io;

use aya::programs::ProgramError;

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
    /// Only before Linux 6.6.
    #[error(
        "{0} processes capture with eBPF in this network namespace, which is the maximum: end one of them, or use \
         libpcap"
    )]
    TooManyProcesses(u16),
}

impl EbpfError {
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
