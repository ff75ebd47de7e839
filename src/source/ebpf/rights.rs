//! What this process may do: its effective capabilities.

use std::fs;

use super::EbpfError;

/// capabilities(7): the bits that matter here.
const NET_ADMIN: Capability = Capability { bit: 12, name: "CAP_NET_ADMIN" };
const SYS_ADMIN: Capability = Capability { bit: 21, name: "CAP_SYS_ADMIN" };
const PERFMON: Capability = Capability { bit: 38, name: "CAP_PERFMON" };
const BPF: Capability = Capability { bit: 39, name: "CAP_BPF" };

#[derive(Clone, Copy)]
struct Capability {
    bit: u32,
    name: &'static str,
}

/// The effective set of the thread that asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights(u64);

impl Rights {
    /// All of them where `/proc` does not tell: then the kernel says what it thinks.
    pub(super) fn of_this_thread() -> Self {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
        Self::in_status(&status).unwrap_or(Self(u64::MAX))
    }

    /// From the text of proc_pid_status(5).
    pub(super) fn in_status(status: &str) -> Option<Self> {
        let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(set.trim(), 16).ok().map(Self)
    }

    /// # Errors
    /// Names what is missing for programs of packets: to load them and to attach them.
    pub(super) fn suffice_for_packets(self) -> Result<(), EbpfError> {
        let mut missing = Vec::new();
        // Before 5.8 CAP_SYS_ADMIN was all of these; it still is.
        if !self.has(BPF) && !self.has(SYS_ADMIN) {
            missing.push(BPF.name);
        }
        if !self.has(NET_ADMIN) {
            missing.push(NET_ADMIN.name);
        }
        if missing.is_empty() { Ok(()) } else { Err(EbpfError::Right { missing }) }
    }

    /// The capability that is missing for a program on a tracepoint.
    pub(super) fn missing_for_sockets(self) -> Option<&'static str> {
        (!self.has(PERFMON) && !self.has(SYS_ADMIN)).then_some(PERFMON.name)
    }

    const fn has(self, capability: Capability) -> bool {
        self.0 & (1 << capability.bit) != 0
    }
}
